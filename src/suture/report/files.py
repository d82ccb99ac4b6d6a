"""Files that a reader never sees half-written, tables as text, and what a report asks of a comparison."""

from __future__ import annotations

import csv
import io
import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt
import pandas as pd

from suture._errors import SutureError
from suture.verdict import Verdict


class Compared(Protocol):
    """What a report needs to know; `suture.results.Comparison` has it."""

    @property
    def source(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def sources(self) -> tuple[str, ...]: ...
    @property
    def targets(self) -> tuple[str, ...]: ...
    @property
    def same_network(self) -> bool: ...
    @property
    def same_architecture(self) -> bool: ...
    @property
    def table(self) -> pd.DataFrame: ...
    @property
    def arrays(self) -> dict[str, npt.NDArray[Any]]: ...
    @property
    def meta(self) -> dict[str, Any]: ...
    @property
    def measures(self) -> list[str]: ...
    def matrix(self, measure: str, what: str = "value") -> pd.DataFrame: ...
    def marks(self, measure: str) -> pd.DataFrame: ...
    def cells(self, method: str = "dm", what: str = "word") -> pd.DataFrame: ...
    def verdict(self) -> Verdict: ...


def write(path: Path, data: bytes) -> None:
    """Write a new file and flush it to the disk."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace(path: Path, data: bytes) -> None:
    """Put `data` at `path` in one step: whoever opens `path` finds all of the old or all of the new.

    Missing parent folders are made.

    Raises:
        SutureError: the place cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(temporary, data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> SutureError:
    """The error for a place that cannot be written, in one line."""
    return SutureError(f"cannot write {str(path)!r}: {error.strerror or error}; choose a place that can be "
                       "written")


def csv_text(table: pd.DataFrame) -> str:
    """A table as CSV: floats in the shortest form that reads back the same, NaN as an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    columns: Sequence[list[Any]] = [table[name].tolist() for name in table.columns]
    for row in zip(*columns, strict=True):
        # csv writes floats with repr, which is exact; only NaN needs a word
        writer.writerow("" if isinstance(cell, float) and cell != cell else cell for cell in row)
    return text.getvalue()


def slug(name: str) -> str:
    """A name from outside as part of a file name: letters, digits, ``._-`` only."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "unnamed"
