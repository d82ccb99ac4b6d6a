"""What a command line names: networks, data, and what each network is given of the data."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from torch import nn

from suture.cli import specs
from suture.cli.specs.pairing import adjusted, prepared


@dataclass(frozen=True)
class Reading:
    """How data are read and prepared; the fields are options of the same names.

    Attributes:
        train_size, test_size, image_column, label_column, text_column, skip_bad: see `suture.cli.specs.data`.
        source_input, target_input, length, mask_rate: see `suture.cli.specs.pairing.adjusted`.
    """

    train_size: int | None = None
    test_size: int | None = None
    image_column: str | None = None
    label_column: str | None = None
    text_column: str | None = None
    skip_bad: bool = False
    source_input: str | None = None
    target_input: str | None = None
    length: int | None = None
    mask_rate: float = 0.0

    @classmethod
    def of(cls, options: dict[str, Any]) -> Reading:
        """From a command's arguments, which have more."""
        return cls(**{f.name: options[f.name] for f in fields(cls)})

    def data(self, spec: str, seed: int) -> tuple[Any, Any]:
        """(training data, test data), raw."""
        return specs.data(spec, train_size=self.train_size, test_size=self.test_size, seed=seed,
                          image_column=self.image_column, label_column=self.label_column,
                          text_column=self.text_column, skip_bad=self.skip_bad)


@dataclass(frozen=True)
class Inputs:
    """Networks and data, ready for `suture.compare`; `target` is None for self-stitching.

    `notes` say what a reader has to know of them.
    """

    source: nn.Module
    target: nn.Module | None
    train: Any
    test: Any
    notes: tuple[str, ...]


def gather(source: str, target: str | None, source_weights: Path | None, target_weights: Path | None, data: str,
           reading: Reading, seed: int) -> Inputs:
    """Everything that the specs of a command name.

    Raises:
        SutureError: any of them does not work out.
    """
    raw = reading.data(data, seed)
    one = specs.network(source, weights=source_weights, like=raw[0], seed=seed)
    other = None if target is None else specs.network(target, weights=target_weights, like=raw[0], seed=seed + 1)
    text: dict[str, Any] = {"length": reading.length, "mask_rate": reading.mask_rate, "seed": seed}
    how = adjusted(one.preprocessing, reading.source_input, **text)
    theirs = how if other is None else adjusted(other.preprocessing, reading.target_input, **text)
    always = reading.source_input is not None or reading.target_input is not None
    train, test = (prepared(d, how, theirs, always=always) for d in raw)
    notes = [*one.notes, *(() if other is None else other.notes)]
    return Inputs(one.network, None if other is None else other.network, train, test, tuple(dict.fromkeys(notes)))
