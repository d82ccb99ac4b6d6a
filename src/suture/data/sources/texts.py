"""Texts in files: ``.txt`` with one text in each line, ``.jsonl``, ``.csv`` and ``.tsv`` with columns.

suture reads them itself, because the library `datasets` refuses a whole file for one bad row or line, reads
the text "NA" as missing, and reads class numbers beside a gap as fractions.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from suture._base import SutureError, summarise_error
from suture.data.sources.columns import ColumnNames, ColumnType, choose_columns
from suture.data.sources.decoding import BadExample
from suture.data.sources.stores import MemoryStore, StoredSplit

TEXT_ENDINGS = (".jsonl", ".csv", ".tsv", ".txt")
DELIMITERS = {".csv": ",", ".tsv": "\t"}
LONGEST_FIELD = 2**31 - 1
"""Most characters of a field. The default of `csv`, 131072, is too small for some documents."""
Row = dict[str, Any] | BadExample


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
