"""Stores of examples: their interface, and the store in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from suture.data.sources.decoding import BadExample, ExampleKind, decode, explain_error


class Store(Protocol):
    """Examples as they are stored, by row. Threads read from it at the same time."""

    def __len__(self) -> int:
        """Return the number of examples."""

    def fetch(self, rows: Sequence[int]) -> Any:
        """Return the examples at `rows`: a sequence for `decode`, or a raw tensor (len(rows), ...)."""

    def describe_row(self, row: int) -> str:
        """Describe an example in messages: its file, or its file and row (from 0)."""


@dataclass(frozen=True, eq=False)
class MemoryStore:
    """Store of examples in memory.

    Arguments:
        values: a tensor (N, ...) of raw examples, or a sequence for `decode`.
        name: name of the file or object they come from.
        lines: (N,) file and line of each, if they have them.
    """

    values: Tensor | Sequence[Any]
    name: str
    lines: Sequence[tuple[str, int]] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def fetch(self, rows: Sequence[int]) -> Any:
        """Return the examples at `rows`; see `Store`."""
        return self.values[list(rows)] if isinstance(self.values, Tensor) else [self.values[r] for r in rows]

    def describe_row(self, row: int) -> str:
        """Return file and line, or name and row, of an example; see `Store`."""
        if self.lines is None:
            return f"{self.name}, row {row}"
        file, line = self.lines[row]
        return f"{file}, line {line}"


def decode_rows(store: Store, kind: ExampleKind, rows: Sequence[int]) -> list[Any] | Tensor:
    """Decode the raw examples at `rows` one by one, or return the tensor that holds them.

    Raises:
        BadExample: the first that cannot be decoded.
    """
    stored = store.fetch(rows)
    if isinstance(stored, Tensor):
        return stored
    found = []
    for row, one in zip(rows, stored, strict=True):
        try:
            found.append(decode(one, kind))
        except (ValueError, OSError) as e:
            raise BadExample(row, explain_error(e)) from e
    return found


@dataclass(frozen=True)
class StoredSplit:
    """One split as it is stored.

    Attributes:
        store, kind: its examples.
        labels: one for each example, as stored: class numbers, strings, None where there is none. None: no
            labels.
        names: names of the classes, if the labels are their numbers.
        classes: number of classes, if it is known without the other splits.
        column: name of the labels in messages.
        note: what a reader should know.
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
    """Data with its splits, which are opened on request.

    Attributes:
        name: the stem of the path, or the name of the data set.
        splits: splits by name; data without splits have one named "".
    """

    name: str
    splits: Mapping[str, Callable[[], StoredSplit]]
