"""Parquet files in the layout of the hubs: one column of encoded images or of texts, one of labels."""

from __future__ import annotations

import json
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any

from suture._base import SutureError, import_optional, summarise_error
from suture.data.sources.columns import ColumnNames, ColumnType, choose_columns
from suture.data.sources.stores import DataSource, StoredSplit

GROUP_BYTES = 2**28
"""Bytes of encoded row groups that stay in memory, the last used ones.

Rows drawn at random from small images lie in all row groups.
"""
HELD_BYTES = 2**30
"""Bytes of encoded examples that stay in memory, the first read ones.

Later passes in another order then open no file.
"""


class ParquetColumn:
    """Store of one column of several files, read by row group.

    Args:
        files: files in order.
        column: column of the examples.
        name: name of the data set in messages.

    Raises:
        SutureError: pyarrow is missing.
    """

    def __init__(self, files: Sequence[Path], column: str, name: str) -> None:
        self.files, self.column, self.name = tuple(files), column, name
        self._groups: list[tuple[int, int]] = []
        self._starts: list[int] = [0]
        self._firsts: list[int] = []
        for k, file in enumerate(self.files):
            meta = open_file(file).metadata
            self._firsts.append(self._starts[-1])
            for g in range(meta.num_row_groups):
                self._groups.append((k, g))
                self._starts.append(self._starts[-1] + meta.row_group(g).num_rows)
        self._clear()

    def _clear(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[int, Any] = OrderedDict()
        self._held: dict[int, Any] = {}
        self._bytes = 0
        self._file: tuple[int, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items()
                if k not in ("_lock", "_open", "_held", "_bytes", "_file")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._clear()

    def __len__(self) -> int:
        return self._starts[-1]

    def describe_row(self, row: int) -> str:
        """Return file and row of an example; see `Store`."""
        k = bisect_right(self._firsts, row) - 1
        return f"{self.files[k].name}, row {row - self._firsts[k]}"

    def fetch(self, rows: Sequence[int]) -> list[Any]:
        """Return the encoded examples at `rows`; see `Store`.

        Each row group is opened once for all of its rows.
        """
        with self._lock:
            found = {r: self._held[r] for r in rows if r in self._held}
            for group, ones in groupby(sorted(set(rows) - found.keys()),
                                       lambda r: bisect_right(self._starts, r) - 1):
                column, start = self._read_group(group), self._starts[group]
                for r in ones:
                    found[r] = self._hold(r, column[r - start].as_py())
        return [found[r] for r in rows]

    def _hold(self, row: int, value: Any) -> Any:
        size = len(value or b"")
        if self._bytes + size <= HELD_BYTES:
            self._held[row] = value
            self._bytes += size
        return value

    def _read_group(self, group: int) -> Any:
        """Read the column in one row group as an Arrow array of bytes or strings."""
        if group not in self._open:
            k, g = self._groups[group]
            if self._file is None or self._file[0] != k:
                self._file = k, open_file(self.files[k])
            try:
                table = self._file[1].read_row_group(g, columns=[self.column], use_threads=False)
            except (OSError, ValueError) as e:
                raise _make_unreadable_error(self.files[k], e) from e
            column = table.column(0).combine_chunks()
            if hasattr(column.type, "num_fields") and column.type.num_fields:
                # `flatten`, unlike `field`, hands the nulls of the struct down.
                column = dict(zip((f.name for f in column.type), column.flatten(), strict=True))["bytes"]
            self._open[group] = column
            while len(self._open) > 1 and sum(c.nbytes for c in self._open.values()) > GROUP_BYTES:
                self._open.popitem(last=False)
        self._open.move_to_end(group)
        return self._open[group]


def open_file(file: Path) -> Any:
    """Open a Parquet file for its metadata and row groups (`pyarrow.parquet.ParquetFile`).

    Raises:
        SutureError: pyarrow is missing, or the file is no Parquet file.
    """
    parquet = import_optional("pyarrow.parquet", "parquet", str(file))
    try:
        return parquet.ParquetFile(file)
    except (OSError, ValueError) as e:
        raise _make_unreadable_error(file, e) from e


def _make_unreadable_error(file: Path, error: Exception) -> SutureError:
    return SutureError(f"expected a Parquet file, got {str(file)!r} that cannot be read "
                       f"({summarise_error(error)}); fetch it again")


def open_parquet(files: dict[str, list[Path]], name: str, column_names: ColumnNames) -> DataSource:
    """Open the splits that lie in `files`, by name."""
    splits: dict[str, Callable[[], StoredSplit]] = {s: cache(partial(_read_split, f, name, column_names))
                                                    for s, f in files.items()}
    return DataSource(name, splits)


def _read_split(files: list[Path], name: str, column_names: ColumnNames) -> StoredSplit:
    schema = open_file(files[0]).schema_arrow
    names = _read_class_names(schema)
    types = {f.name: "classes" if f.name in names else _find_type(f.type) for f in schema}
    kind, column, label = choose_columns(types, column_names, name)
    for file in files:
        other = open_file(file).schema_arrow
        gone = next((c for c in (column, label) if c is not None and c not in other.names), None)
        if gone is not None:
            raise SutureError(f"expected the columns of {files[0].name} in all files of {name}, got "
                              f"{file.name} without {gone!r}; keep other data in another folder")
    labels = None if label is None else [v for f in files for v in _read_column(f, label)]
    return StoredSplit(ParquetColumn(files, column, name), kind, labels, names.get(label or ""),
                       column=label or "")


def _read_column(file: Path, column: str) -> list[Any]:
    try:
        found: list[Any] = open_file(file).read(columns=[column], use_threads=False).column(0).to_pylist()
    except (OSError, ValueError) as e:
        raise _make_unreadable_error(file, e) from e
    return found


def _find_type(arrow: Any) -> ColumnType:
    types = import_optional("pyarrow", "parquet", "Parquet files").types
    if types.is_struct(arrow):
        return "image" if "bytes" in {f.name for f in arrow} else "other"
    if types.is_binary(arrow) or types.is_large_binary(arrow):
        return "bytes"
    if types.is_string(arrow) or types.is_large_string(arrow):
        return "string"
    return "int" if types.is_integer(arrow) or types.is_boolean(arrow) else "other"


def _read_class_names(schema: Any) -> dict[str, tuple[str, ...]]:
    """Read the names of the classes by column, from what the library `datasets` writes into the schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {c: tuple(f["names"]) for c, f in features.items() if f.get("_type") == "ClassLabel"}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}
