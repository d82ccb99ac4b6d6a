"""The table and the arrays of a comparison: normal form, checks, and the table as text."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from suture._base import SutureError, expect, make_unknown_error
from suture.numbers import MEASURES, get_measure, make_index_measure, register_measure

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["source", "target", "measure", "value", "low", "high", "n", "direction", "reason", "mark"]
_NUMERIC = ("value", "low", "high", "n")
_DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16",
           "float32", "float64")


def tidy_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with a plain index and one dtype per column."""
    import pandas as pd

    if list(table.columns) == COLUMNS[:-1]:  # written by older versions
        table = table.assign(mark="")
    expect(list(table.columns) == COLUMNS, f"the columns {COLUMNS}", str(list(table.columns)))
    columns: dict[str, pd.Series[Any]] = {}
    for name, column in table.reset_index(drop=True).items():
        if name not in _NUMERIC:
            expect(all(isinstance(cell, str) for cell in column), f"strings in the column {name!r}")
            columns[str(name)] = column.astype("str")
            continue
        try:
            numbers = column.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise SutureError(f"expected numbers in the column {name!r}: {error}") from error
        whole = name == "n" and np.isfinite(numbers).all() and (numbers == np.floor(numbers)).all()
        columns[str(name)] = numbers.astype(np.int64) if whole else numbers
    return pd.DataFrame(columns)


def check_cells(table: pd.DataFrame, sources: tuple[str, ...], targets: tuple[str, ...]) -> None:
    """Check that every row has a known cell and measure, occurs once, and has a value or a reason."""
    for column, names in (("source", sources), ("target", targets)):
        strange = set(table[column]) - set(names)
        if strange:
            raise make_unknown_error(f"{column} in the table", min(strange), names)
    for name in table["measure"].unique():
        get_measure(name)
    keys = table[["source", "target", "measure"]]
    missing, explained = table["value"].isna(), table["reason"] != ""
    for rows, wanted in ((keys.duplicated(), "one row per cell and measure"),
                         (missing & ~explained, "a reason for every missing value"),
                         (~missing & explained, "no reason where there is a value")):
        if rows.any():
            source, target, measure = keys[rows].iloc[0]
            raise SutureError(f"expected {wanted}, which {measure!r} of {source!r} into {target!r} breaks")


def check_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Check that all arrays are NumPy arrays of dtypes that can be saved."""
    for name, array in arrays.items():
        dtype = array.dtype.name if isinstance(array, np.ndarray) else type(array).__name__
        if not isinstance(array, np.ndarray) or dtype not in _DTYPES:
            raise SutureError(f"expected a NumPy array of booleans, integers or floats as {name!r}, "
                              f"got {dtype}")


def format_csv(table: pd.DataFrame) -> str:
    """Format a table as CSV: exact floats in their shortest form, NaN as an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    columns: list[list[Any]] = [table[name].tolist() for name in table.columns]
    for row in zip(*columns, strict=True):
        # csv writes floats with repr, which is exact.
        writer.writerow("" if isinstance(cell, float) and cell != cell else cell for cell in row)
    return text.getvalue()


def parse_table(text: str) -> pd.DataFrame:
    """Parse the table that `format_csv` wrote."""
    import pandas as pd

    header, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    table = pd.DataFrame(rows, columns=header, dtype=object)
    return table.assign(**{name: [float(cell) if cell else np.nan for cell in table[name]]
                           for name in _NUMERIC})


def register_own(meta: Mapping[str, Any]) -> None:
    """Register the measures of a saved comparison that are the user's own indices."""
    for entry in meta.get("own_measures", []):
        known = MEASURES.get(entry["name"])
        if known is None or known.own:
            register_measure(make_index_measure(**entry, own=True))
