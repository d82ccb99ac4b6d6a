"""The networks and data that a command line names, with the preprocessing of each network."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from torch import nn

from suture.cli import specs
from suture.cli.specs.preparation import adjust_preprocessing, prepare_data


@dataclass(frozen=True)
class DataOptions:
    """Options of reading and preparing data. Each field is an option of the same name.

    Attributes:
        train_size, test_size, image_column, label_column, text_column, skip_bad: see `suture.cli.specs.data`.
        source_input, target_input, length, mask_rate: see
            `suture.cli.specs.preparation.adjust_preprocessing`.
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
    def of(cls, options: dict[str, Any]) -> DataOptions:
        """Return the data options among all arguments of a command."""
        return cls(**{f.name: options[f.name] for f in fields(cls)})

    def load_data(self, spec: str, seed: int) -> tuple[Any, Any]:
        """Return (training data, test data), raw."""
        return specs.load_data(spec, train_size=self.train_size, test_size=self.test_size, seed=seed,
                               image_column=self.image_column, label_column=self.label_column,
                               text_column=self.text_column, skip_bad=self.skip_bad)


@dataclass(frozen=True)
class ComparisonInputs:
    """Networks and data, ready for `suture.compare`; `target` is None for self-stitching.

    `notes` are sentences for the reader of the result.
    """

    source: nn.Module
    target: nn.Module | None
    train: Any
    test: Any
    notes: tuple[str, ...]


def load_comparison_inputs(source: str, target: str | None, source_weights: Path | None, target_weights: Path
                           | None, data: str, options: DataOptions, seed: int) -> ComparisonInputs:
    """Load the networks and data that the specs of a command name.

    Raises:
        SutureError: any of them cannot be loaded.
    """
    raw = options.load_data(data, seed)
    one = specs.build_network(source, weights=source_weights, like=raw[0], seed=seed)
    other = (None if target is None
             else specs.build_network(target, weights=target_weights, like=raw[0], seed=seed + 1))
    text: dict[str, Any] = {"length": options.length, "mask_rate": options.mask_rate, "seed": seed}
    how = adjust_preprocessing(one.preprocessing, options.source_input, **text)
    theirs = how if other is None else adjust_preprocessing(other.preprocessing, options.target_input, **text)
    always = options.source_input is not None or options.target_input is not None
    train, test = (prepare_data(d, how, theirs, always=always) for d in raw)
    notes = [*one.notes, *(() if other is None else other.notes)]
    return ComparisonInputs(one.network, None if other is None else other.network, train, test,
                            tuple(dict.fromkeys(notes)))
