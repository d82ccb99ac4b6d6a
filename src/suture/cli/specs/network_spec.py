"""What is asked of a network by its spec, and what comes of it."""

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
        network: in the mode that its library makes it in.
        preprocessing: from raw examples (images, texts) to what the network takes. None: unknown, the data
            must be what the network takes.
        spec: as it was written.
        notes: what the reader of a result has to know about it, such as that its weights are random.
    """

    network: nn.Module
    preprocessing: Preprocessing | None
    spec: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ParsedSpec:
    """A spec taken apart.

    Attributes:
        spec: as it was written.
        name: what follows the kind.
        classes, channels: of the data. None: unknown, the network's own.
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
        """Of `classes` and `channels` those that are known."""
        both = {"classes": self.classes, "channels": self.channels}
        return {name: value for name, value in both.items() if value is not None}

    @property
    def notes(self) -> tuple[str, ...]:
        """For a network that brings no weights."""
        return () if self.weights else (f"{self.spec} has random weights (seed {self.seed}); give trained "
                                        "ones as weights",)


@contextmanager
def report_build_errors(spec: str) -> Iterator[None]:
    """Turn whatever a library raises while it makes a network into one line.

    Raises:
        SutureError: with the library's own words.
    """
    try:
        yield
    except SutureError:
        raise
    except Exception as e:
        raise SutureError(f"{spec} cannot be made: {type(e).__name__}: {summarise_error(e)}") from e
