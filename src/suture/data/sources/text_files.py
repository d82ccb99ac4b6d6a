"""Texts in files: ``.txt`` with one text in each line, ``.jsonl``, ``.csv`` and ``.tsv`` with columns."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from suture._base import SutureError, summarise_error
from suture.data.sources.columns import ColumnNames, ColumnType, choose_columns
from suture.data.sources.decoding import BrokenExample
from suture.data.sources.stores import DataSource, MemoryStore, StoredSplit

TEXT_ENDINGS = (".jsonl", ".csv", ".tsv", ".txt")
DELIMITERS = {".csv": ",", ".tsv": "\t"}
LONGEST_FIELD = 2**31 - 1
"""Largest number of characters of a field. The default of `csv`, 131072, is less than some documents have."""
FileRow = tuple[str, int, "dict[str, Any] | str"]
"""(file, line from 1, columns, or the reason why they cannot be read)."""


def open_texts(files: Mapping[str, list[Path]], name: str, columns: ColumnNames) -> DataSource:
    """Open the splits in `files`, UTF-8, held in memory.

    Blank lines of ``.txt`` files separate texts and are not texts. The first line of ``.csv`` and ``.tsv``
    names the columns. Rows that cannot be read are bad examples.
    """
    splits: dict[str, Callable[[], StoredSplit]] = {s: cache(partial(_read_split, f, name, columns))
                                                    for s, f in files.items()}
    return DataSource(name, splits)


def _read_split(files: list[Path], name: str, columns: ColumnNames) -> StoredSplit:
    rows = [row for file in files for row in _read_rows(file)]
    types: dict[str, ColumnType] = {}
    for _, _, fields in rows:
        if isinstance(fields, dict):
            types.update({c: _find_type(v) for c, v in fields.items() if types.get(c, "other") == "other"})
    if not rows:
        raise SutureError(f"expected at least one text in {name}, got none; check {files[0].name}")
    if files[0].suffix.lower() == ".txt":
        types = {"text": "string"}
    _, column, label = choose_columns(types, columns, name)
    values = [fields.get(column) if isinstance(fields, dict) else BrokenExample(fields)
              for _, _, fields in rows]
    labels = (None if label is None
              else [fields.get(label) if isinstance(fields, dict) else None for _, _, fields in rows])
    lines = [(file, line) for file, line, _ in rows]
    return StoredSplit(MemoryStore(values, name, lines), "text", labels, column=label or "")


def _read_rows(file: Path) -> Iterator[FileRow]:
    ending = file.suffix.lower()
    try:
        with file.open(encoding="utf-8-sig", newline="" if ending in DELIMITERS else None) as lines:
            if ending in DELIMITERS:
                yield from _read_table(csv.DictReader(lines, delimiter=DELIMITERS[ending], strict=True),
                                       file.name)
                return
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield (file.name, number,
                           {"text": line.rstrip("\r\n")} if ending == ".txt" else _parse_object(line))
    except UnicodeDecodeError as e:
        raise SutureError(f"expected text in UTF-8, got {str(file)!r} with byte {e.object[e.start]:#04x} "
                          "that is none; convert it with iconv -t utf-8") from e


def _read_table(reader: csv.DictReader[str], name: str) -> Iterator[FileRow]:
    usual = csv.field_size_limit(LONGEST_FIELD)
    try:
        for row in reader:
            whole = None not in row and None not in row.values()
            yield (name, reader.line_num,
                   row if whole else f"has not the {len(reader.fieldnames or ())} columns")
    except csv.Error as e:
        raise SutureError(f"expected a table in {name!r}, got line {reader.line_num} that cannot be read "
                          f"({summarise_error(e)}); mend it") from e
    finally:
        csv.field_size_limit(usual)


def _parse_object(line: str) -> dict[str, Any] | str:
    try:
        found = json.loads(line)
    except ValueError as e:
        return f"is no JSON ({summarise_error(e)})"
    return found if isinstance(found, dict) else f"is {type(found).__name__} and no JSON object"


def _find_type(value: Any) -> ColumnType:
    if isinstance(value, str):
        return "string"
    return "int" if isinstance(value, int) else "other"
