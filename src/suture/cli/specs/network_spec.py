"""The records of a network's spec and of the network loaded from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from suture._base import SutureError, summarise_error
from suture.data import Preprocessing


@dataclass(frozen=True)
class LoadedNetwork:
    """A network that a spec names.

    Attributes:
        network: in the mode of its library.
        preprocessing: from raw examples (images, texts) to inputs of the network. None: unknown, so the data
            must already be inputs of the network.
        spec: as it was written.
        notes: sentences for the reader of a result, such as that the weights are random.
    """

    network: nn.Module
    preprocessing: Preprocessing | None
    spec: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ParsedSpec:
    """A spec split into its parts.

    Attributes:
        spec: as it was written.
        name: the part after the kind.
        classes, channels: of the data. None: unknown, so the network keeps its own.
        seed: of random weights.
        weights: file whose weights are loaded afterwards.
    """

    spec: str
    name: str
    classes: int | None = None
    channels: int | None = None
    seed: int = 0
    weights: Path | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """Those of `classes` and `channels` that are known."""
        both = {"classes": self.classes, "channels": self.channels}
        return {name: value for name, value in both.items() if value is not None}

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on random weights, for a network without weights of its own."""
        return () if self.weights else (f"{self.spec} has random weights (seed {self.seed}); give trained "
                                        "ones as weights",)


@contextmanager
def report_build_errors(spec: str) -> Iterator[None]:
    """Turn any error of a library that builds a network into one line.

    Raises:
        SutureError: with the library's own words.
    """
    try:
        yield
    except SutureError:
        raise
    except Exception as e:
        raise SutureError(f"{spec} cannot be made: {type(e).__name__}: {summarise_error(e)}") from e
