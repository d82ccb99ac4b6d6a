"""Stores of examples, and the splits of a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from suture.data.sources.decoding import BadExample, ExampleKind, decode


class Store(Protocol):
    """Examples as they are stored, by row."""

    def __len__(self) -> int:
        """Return the number of examples."""

    def fetch(self, rows: Sequence[int]) -> Any:
        """Return the examples at `rows`: a sequence for `decode`, or a raw tensor (len(rows), ...)."""

    def describe_row(self, row: int) -> str:
        """Return the place of an example for messages: its file, or its file and row (from 0)."""


@dataclass(frozen=True, eq=False)
class MemoryStore:
    """Store of examples in memory, or of the paths of their files.

    Attributes:
        values: a tensor (N, ...) of raw examples, or a sequence for `decode`.
        places: (N,) place of each in messages. Default: `name` and the row.
    """

    values: Tensor | Sequence[Any]
    name: str
    places: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def fetch(self, rows: Sequence[int]) -> Any:
        return self.values[list(rows)] if isinstance(self.values, Tensor) else [self.values[r] for r in rows]

    def describe_row(self, row: int) -> str:
        return f"{self.name}, row {row}" if self.places is None else self.places[row]


def decode_rows(store: Store, kind: ExampleKind, rows: Sequence[int]) -> list[Any] | Tensor:
    """Decode the examples at `rows`; a failure gives a `BadExample`."""
    stored = store.fetch(rows)
    return stored if isinstance(stored, Tensor) else [decode(one, kind) for one in stored]


def find_bad(loaded: list[Any] | Tensor) -> int | None:
    if isinstance(loaded, Tensor):
        return None
    return next((i for i, one in enumerate(loaded) if isinstance(one, BadExample)), None)


@dataclass(frozen=True)
class StoredSplit:
    """One split as it is stored.

    Attributes:
        labels: (N,) as stored: class numbers, strings, None for an example without one. None: no labels.
        names: names of the classes, if the labels are their numbers.
        classes: number of classes, if it is known without the other splits.
        column: name of the labels in messages.
    """

    store: Store
    kind: ExampleKind
    labels: Sequence[Any] | None = None
    names: tuple[str, ...] | None = None
    classes: int | None = None
    column: str = "label"
    note: str = ""


@dataclass(frozen=True)
class DataSource:
    """Splits of a data set by name, opened on request; data without splits have one named ""."""

    name: str
    splits: Mapping[str, Callable[[], StoredSplit]]
