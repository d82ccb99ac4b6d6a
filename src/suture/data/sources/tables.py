"""Tables in files: Parquet, and texts in ``.csv``, ``.tsv``, ``.jsonl`` or the lines of ``.txt``.

Parquet is read by row group, so that memory stays bounded and no copy is written. The library `datasets`
interprets its columns only: its streams have neither the length nor the random access that shuffling and
balanced draws need. suture reads texts itself, because `datasets` refuses a whole file for one bad row or
line, reads the text "NA" as missing, and reads class numbers beside a gap as fractions.
"""

from __future__ import annotations

import csv
import json
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any, TypeVar

import torch

from suture._base import SutureError, check_free_memory, import_optional, summarise_error
from suture.data.sources.columns import ColumnNames, ColumnType, choose_columns
from suture.data.sources.libraries import choose_features
from suture.data.sources.stores import BadExample, MemoryStore, StoredSplit

TEXT_ENDINGS = (".jsonl", ".csv", ".tsv", ".txt")
DELIMITERS = {".csv": ",", ".tsv": "\t"}
LONGEST_FIELD = 2**31 - 1
"""Most characters of a field. The default of `csv`, 131072, is too small for some documents."""
GROUP_BYTES = 2**28
"""Bytes of the last opened row groups that stay in memory. Random rows of small images lie in all groups."""
HELD_BYTES = 2**30
"""Bytes of the first read encoded examples that stay in memory. Later passes then open no file."""
T = TypeVar("T")
Row = dict[str, Any] | BadExample


class ParquetColumn:
    """Store of one column of several files."""

    def __init__(self, files: Sequence[Path], column: str) -> None:
        self.files, self.column = tuple(files), column
        metas = [_read(f, lambda opened: opened.metadata) for f in self.files]
        self._firsts: list[int] = [0, *accumulate(m.num_rows for m in metas)]
        self._groups = [(k, g) for k, m in enumerate(metas) for g in range(m.num_row_groups)]
        self._starts: list[int] = [0, *accumulate(metas[k].row_group(g).num_rows for k, g in self._groups)]
        self._open: dict[int, Any] = {}
        self._held: dict[int, Any] = {}
        self._held_bytes = 0

    def __getstate__(self) -> dict[str, Any]:
        # A copy in another process starts with empty caches.
        return vars(self) | {"_open": {}, "_held": {}, "_held_bytes": 0}

    def __len__(self) -> int:
        return self._starts[-1]

    def describe_row(self, row: int) -> str:
        k = bisect_right(self._firsts, row) - 1
        return f"{self.files[k].name}, row {row - self._firsts[k]}"

    def fetch(self, rows: Sequence[int]) -> list[Any]:
        """Return the encoded examples at `rows`. Each row group is opened once for all its rows."""
        found = {r: self._held[r] for r in rows if r in self._held}
        for group, ones in groupby(sorted(set(rows) - found.keys()),
                                   lambda r: bisect_right(self._starts, r) - 1):
            values = self._read_group(group)
            found.update((r, values[r - self._starts[group]].as_py()) for r in ones)
        for r in found.keys() - self._held.keys():
            size = len(found[r] or b"")
            if self._held_bytes + size <= HELD_BYTES:
                self._held[r] = found[r]
                self._held_bytes += size
        return [found[r] for r in rows]

    def _read_group(self, group: int) -> Any:
        """Return the column in one row group as an Arrow array of bytes or strings."""
        values = self._open.pop(group, None)
        if values is None:
            k, g = self._groups[group]
            _read(self.files[k], lambda opened: _check_group(opened, g, self.column, self.files[k]))
            values = _read(self.files[k], lambda opened: opened.read_row_group(
                g, columns=[self.column], use_threads=False).column(0).combine_chunks())
            if hasattr(values.type, "num_fields") and values.type.num_fields:
                # `flatten`, unlike `field`, keeps the nulls of the struct.
                values = dict(zip((f.name for f in values.type), values.flatten(), strict=True))["bytes"]
        self._open[group] = values
        while len(self._open) > 1 and sum(v.nbytes for v in self._open.values()) > GROUP_BYTES:
            del self._open[next(iter(self._open))]
        return values


def _check_group(opened: Any, group: int, column: str, file: Path) -> None:
    """Check that a column fits the memory in one row group, which is read as a whole."""
    about = opened.metadata.row_group(group)
    held = (about.column(k) for k in range(about.num_columns))
    size = sum(c.total_uncompressed_size for c in held if c.path_in_schema.partition(".")[0] == column)
    check_free_memory(size, torch.device("cpu"), f"row group {group} of {str(file)!r}",
                      "write it with smaller row groups")


def read_parquet(files: list[Path], name: str, columns: ColumnNames) -> StoredSplit:
    library = import_optional("datasets", "data", str(files[0]))
    schemas = [_read(f, lambda opened: opened.schema_arrow) for f in files]
    features = library.Features.from_arrow_schema(schemas[0])
    kind, column, label, names = choose_features(features, columns, name)
    for file, schema in zip(files, schemas, strict=True):
        gone = {column, label or column}.difference(schema.names)
        if gone:
            raise SutureError(f"{file.name} has no column {min(gone)!r}, unlike {files[0].name}; move it to "
                              "another folder")
    labels = None if label is None else [
        v for f in files for v in _read(f, lambda opened: opened.read([label])[label].to_pylist())]
    return StoredSplit(ParquetColumn(files, column), kind, labels, names, column=label or "")


def _read(file: Path, read: Callable[[Any], T]) -> T:
    parquet = import_optional("pyarrow.parquet", "data", str(file))
    try:
        with parquet.ParquetFile(file) as opened:
            return read(opened)
    except (OSError, ValueError, NotImplementedError) as e:
        raise SutureError(f"{str(file)!r} is no Parquet file, or is cut off ({summarise_error(e)}); fetch it "
                          "again") from e


def read_texts(files: list[Path], name: str, columns: ColumnNames) -> StoredSplit:
    """Read the texts of a split, UTF-8, into memory. Rows that cannot be read are bad examples."""
    places, rows = [], []
    for file in files:
        for line, row in _read_rows(file):
            places.append(f"{file.name}, line {line}")
            rows.append(row)
    if not rows:
        raise SutureError(f"expected at least one text in {name}, got none; check {files[0].name}")
    types: dict[str, ColumnType] = {}
    for row in rows:
        if isinstance(row, dict):
            types.update({c: _find_type(v) for c, v in row.items() if types.get(c, "other") == "other"})
    _, column, label = choose_columns({"text": "string"} if files[0].suffix.lower() == ".txt" else types,
                                      columns, name)
    values = [row.get(column) if isinstance(row, dict) else row for row in rows]
    labels = None if label is None else [row.get(label) if isinstance(row, dict) else None for row in rows]
    return StoredSplit(MemoryStore(values, name, places), "text", labels, column=label or "")


def _read_rows(file: Path) -> Iterator[tuple[int, Row]]:
    """Yield (line from 1, columns) of each row."""
    ending = file.suffix.lower()
    try:
        with file.open(encoding="utf-8-sig", newline="" if ending in DELIMITERS else None) as lines:
            if ending in DELIMITERS:
                yield from _read_table(csv.DictReader(lines, delimiter=DELIMITERS[ending], strict=True), file)
                return
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, {"text": line.rstrip("\r\n")} if ending == ".txt" else _parse_object(line)
    except UnicodeDecodeError as e:
        raise SutureError(f"{str(file)!r} is not UTF-8: byte {e.object[e.start]:#04x}; convert it with iconv "
                          "-t utf-8") from e


def _read_table(reader: csv.DictReader[str], file: Path) -> Iterator[tuple[int, Row]]:
    usual = csv.field_size_limit(LONGEST_FIELD)
    try:
        for row in reader:
            whole = None not in row and None not in row.values()
            yield (reader.line_num,
                   row if whole else BadExample(f"has not the {len(reader.fieldnames or ())} columns"))
    except csv.Error as e:
        raise SutureError(f"{file.name!r} cannot be read at line {reader.line_num}: {summarise_error(e)}; "
                          "correct the line") from e
    finally:
        csv.field_size_limit(usual)


def _parse_object(line: str) -> Row:
    try:
        found = json.loads(line)
    except ValueError as e:
        return BadExample(f"is no JSON ({summarise_error(e)})")
    return found if isinstance(found, dict) else BadExample(f"is {type(found).__name__} and no JSON object")


def _find_type(value: Any) -> ColumnType:
    if isinstance(value, str):
        return "string"
    return "int" if isinstance(value, int) else "other"
