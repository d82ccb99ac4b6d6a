"""Where examples lie: what a store can do, and the one that is memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from suture.data.sources.decoding import BadExample, ExampleKind, decode, explain_error


class Store(Protocol):
    """Examples as they are stored, by row. Threads read from it at the same time."""

    def __len__(self) -> int:
        """Number of examples."""

    def fetch(self, rows: Sequence[int]) -> Any:
        """What lies at `rows`: a sequence for `decode`, or a tensor (len(rows), ...) that is raw already."""

    def describe_row(self, row: int) -> str:
        """How messages call the example: its file, or its file and row (from 0)."""


@dataclass(frozen=True, eq=False)
class MemoryStore:
    """Examples in memory.

    Arguments:
        values: a tensor (N, ...) of raw examples, or a sequence for `decode`.
        name: of the file or object they come from.
        lines: (N,) file and line of each, where it has them.
    """

    values: Tensor | Sequence[Any]
    name: str
    lines: Sequence[tuple[str, int]] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def fetch(self, rows: Sequence[int]) -> Any:
        """See `Store`."""
        return self.values[list(rows)] if isinstance(self.values, Tensor) else [self.values[r] for r in rows]

    def describe_row(self, row: int) -> str:
        """See `Store`."""
        if self.lines is None:
            return f"{self.name}, row {row}"
        file, line = self.lines[row]
        return f"{file}, line {line}"


def decode_rows(store: Store, kind: ExampleKind, rows: Sequence[int]) -> list[Any] | Tensor:
    """The raw examples at `rows`, one by one or as the tensor that they are stored as.

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
        names: of the classes, where the labels are numbers of these.
        classes: how many there are, where that is known without the other splits.
        column: how messages call the labels.
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
    """Data with its splits, which are opened when they are asked for.

    Attributes:
        name: the stem of the path, or the name of the data set.
        splits: by name; the one split of data without splits is "".
    """

    name: str
    splits: Mapping[str, Callable[[], StoredSplit]]
