"""The records of a network's spec and of the network loaded from it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from suture._base import report_errors, seed_torch
from suture.data import ImagePreprocessing, Preprocessing

FoundPreprocessing = tuple[ImagePreprocessing | None, tuple[str, ...]]
"""Preprocessing of images (None if suture does not support it), and notes."""


@dataclass(frozen=True)
class LoadedNetwork:
    """A network that a spec names, in the mode of its library.

    Attributes:
        preprocessing: from raw examples to inputs of the network. None: the data must already be inputs.
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
        name: the part after the kind.
        classes, channels: numbers of the data. None: unknown, so the network keeps its own.
        weights: file whose weights are loaded afterwards.
    """

    spec: str
    name: str
    classes: int | None = None
    channels: int | None = None
    seed: int = 0
    weights: Path | None = None

    def list_sizes(self, classes: str, channels: str) -> dict[str, int]:
        """Return the known numbers of classes and channels, by a library's names for them."""
        both = {classes: self.classes, channels: self.channels}
        return {name: value for name, value in both.items() if value is not None}

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on random weights, for a network without weights of its own."""
        return () if self.weights else (f"{self.spec} has random weights (seed {self.seed}); give trained "
                                        "ones as weights",)


@contextmanager
def build_quietly(parsed: ParsedSpec) -> Iterator[None]:
    """Seed random weights and silence warnings; any error of the library becomes one line."""
    with report_errors(f"{parsed.spec} cannot be made"), seed_torch(parsed.seed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def note_unsupported(what: str) -> tuple[None, tuple[str, ...]]:
    return None, (f"suture does not do {what}; give data that are inputs of the network",)
