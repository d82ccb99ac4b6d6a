"""Texts in files: ``.txt`` with one in each line, ``.jsonl``, ``.csv`` and ``.tsv`` with columns."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from suture._base.errors import SutureError, first_line
from suture.data.sources.columns import Type, Wanted, choose
from suture.data.sources.decoding import Broken
from suture.data.sources.stores import Memory, Part, Source

ENDINGS = (".jsonl", ".csv", ".tsv", ".txt")
DELIMITERS = {".csv": ",", ".tsv": "\t"}
LONGEST = 2**31 - 1
"""Characters of a field; the default of `csv`, 131072, is less than some documents have."""
Row = tuple[str, int, "dict[str, Any] | str"]
"""(file, line from 1, columns, or why there are none)."""


def source(files: Mapping[str, list[Path]], name: str, wanted: Wanted) -> Source:
    """The splits in `files`, UTF-8, held in memory. Blank lines of ``.txt`` files separate texts and are none.

    The first line of ``.csv`` and ``.tsv`` names the columns. Rows that cannot be read are bad examples.
    """
    splits: dict[str, Callable[[], Part]] = {s: cache(partial(_part, f, name, wanted)) for s, f in files.items()}
    return Source(name, splits)


def _part(files: list[Path], name: str, wanted: Wanted) -> Part:
    rows = [row for file in files for row in _rows(file)]
    types: dict[str, Type] = {}
    for _, _, told in rows:
        if isinstance(told, dict):
            types.update({c: _type(v) for c, v in told.items() if types.get(c, "other") == "other"})
    if not rows:
        raise SutureError(f"expected at least one text in {name}, got none; check {files[0].name}")
    if files[0].suffix.lower() == ".txt":
        types = {"text": "string"}
    _, column, label = choose(types, wanted, name)
    values = [told.get(column) if isinstance(told, dict) else Broken(told) for _, _, told in rows]
    labels = None if label is None else [told.get(label) if isinstance(told, dict) else None for _, _, told in rows]
    lines = [(file, line) for file, line, _ in rows]
    return Part(Memory(values, name, lines), "text", labels, column=label or "")


def _rows(file: Path) -> Iterator[Row]:
    ending = file.suffix.lower()
    try:
        with file.open(encoding="utf-8-sig", newline="" if ending in DELIMITERS else None) as lines:
            if ending in DELIMITERS:
                yield from _table(csv.DictReader(lines, delimiter=DELIMITERS[ending], strict=True), file.name)
                return
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield file.name, number, {"text": line.rstrip("\r\n")} if ending == ".txt" else _object(line)
    except UnicodeDecodeError as e:
        raise SutureError(f"expected text in UTF-8, got {str(file)!r} with byte {e.object[e.start]:#04x} that is none; "
                          "convert it with iconv -t utf-8") from e


def _table(reader: csv.DictReader[str], name: str) -> Iterator[Row]:
    usual = csv.field_size_limit(LONGEST)
    try:
        for row in reader:
            whole = None not in row and None not in row.values()
            yield name, reader.line_num, row if whole else f"has not the {len(reader.fieldnames or ())} columns"
    except csv.Error as e:
        raise SutureError(f"expected a table in {name!r}, got line {reader.line_num} that cannot be read "
                          f"({first_line(e)}); mend it") from e
    finally:
        csv.field_size_limit(usual)


def _object(line: str) -> dict[str, Any] | str:
    try:
        found = json.loads(line)
    except ValueError as e:
        return f"is no JSON ({first_line(e)})"
    return found if isinstance(found, dict) else f"is {type(found).__name__} and no JSON object"


def _type(value: Any) -> Type:
    if isinstance(value, str):
        return "string"
    return "int" if isinstance(value, int) else "other"
