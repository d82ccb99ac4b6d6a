"""Table and arrays of a comparison: bringing them to one form, checking, comparing and reading them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from suture._base import SutureError, make_unknown_error
from suture.numbers import MEASURES, get_measure, make_index_measure, register_measure

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["source", "target", "measure", "value", "low", "high", "n", "direction", "reason", "mark"]
_TEXT_COLUMNS = ("source", "target", "measure", "direction", "reason", "mark")
FLOAT_COLUMNS = ("value", "low", "high")
_DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16",
           "float32", "float64")


def tidy_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with a plain index and one dtype per column.

    Raises:
        SutureError: other columns, or a cell of the wrong kind.
    """
    import pandas as pd

    if list(table.columns) == COLUMNS[:-1]:  # a file without marks, which older versions wrote
        table = table.assign(mark="")
    if list(table.columns) != COLUMNS:
        raise SutureError(f"expected the columns {COLUMNS}, got {list(table.columns)}")
    columns: dict[str, pd.Series[Any]] = {}
    for name in COLUMNS:
        cells = table[name].tolist()
        if name in _TEXT_COLUMNS:
            wrong = [cell for cell in cells if not isinstance(cell, str)]
            if wrong:
                raise SutureError(f"expected strings in the column {name!r}, got {wrong[0]!r}")
            columns[name] = pd.Series(cells, dtype="str")
            continue
        try:
            numbers = np.array([np.nan if cell is None else cell for cell in cells], dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise SutureError(f"expected numbers in the column {name!r}: {error}") from error
        whole = name == "n" and np.isfinite(numbers).all() and (numbers == np.floor(numbers)).all()
        columns[name] = pd.Series(numbers.astype(np.int64) if whole else numbers)
    return pd.DataFrame(columns)


def check_cells(table: pd.DataFrame, sources: tuple[str, ...], targets: tuple[str, ...]) -> None:
    """Check that every row belongs to a known cell and measure, occurs once, and has a value or a reason.

    Raises:
        SutureError: a row does not.
    """
    for column, names in (("source", sources), ("target", targets)):
        strange = set(table[column]) - set(names)
        if strange:
            raise make_unknown_error(f"{column} in the table", min(strange), names)
    for name in table["measure"].unique():
        get_measure(name)
    keys = table[["source", "target", "measure"]]
    for rows, expected in (
        (keys.duplicated(), "one row per cell and measure"),
        (table["value"].isna() & (table["reason"] == ""), "a reason for every missing value"),
        (table["value"].notna() & (table["reason"] != ""), "no reason where there is a value"),
    ):
        if rows.any():
            source, target, measure = keys[rows].iloc[0]
            raise SutureError(f"expected {expected}, got otherwise for {measure!r} of {source!r} into "
                              f"{target!r}")


def check_arrays(arrays: dict[str, npt.NDArray[Any]]) -> None:
    """Check that all arrays are NumPy arrays of dtypes that can be saved.

    Raises:
        SutureError: one is not.
    """
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.name not in _DTYPES:
            got = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            raise SutureError(f"expected a NumPy array of booleans, integers or floats as {name!r}, "
                              f"got {got}")


def is_same_array(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    """Return True where two arrays agree in dtype, shape and every bit."""
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def format_csv(table: pd.DataFrame) -> str:
    """Format a table as CSV: floats in the shortest form that reads back the same, NaN as an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    columns: Sequence[list[Any]] = [table[name].tolist() for name in table.columns]
    for row in zip(*columns, strict=True):
        # csv writes floats with repr, which is exact. Only NaN needs its own form.
        writer.writerow("" if isinstance(cell, float) and cell != cell else cell for cell in row)
    return text.getvalue()


def parse_table(text: str) -> pd.DataFrame:
    """Parse the table that `format_csv` wrote."""
    import pandas as pd

    header, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    numeric = {i for i, name in enumerate(header) if name in (*FLOAT_COLUMNS, "n")}
    cells = [[(float(c) if c else np.nan) if i in numeric else c for i, c in enumerate(row)] for row in rows]
    return pd.DataFrame(cells, columns=header)


def register_own(meta: Mapping[str, Any]) -> None:
    """Register the user's own indices of a saved comparison.

    Raises:
        SutureError: the entry is no list of measures, or one has the name of another measure.
    """
    for entry in _list_own_measures(meta):
        name = entry.get("name")
        numbers = all(isinstance(entry.get(k), int | float) for k in ("low", "high"))
        words = all(isinstance(entry.get(k), str) for k in ("name", "label", "about"))
        if not (numbers and words and isinstance(entry.get("larger"), bool) and str(name).isidentifier()):
            raise SutureError(f"expected measures of the user's own, got {entry!r}")
        known = MEASURES.get(str(name))
        if known is None or known.own:
            register_measure(make_index_measure(**entry, own=True))


def _list_own_measures(meta: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    found = meta.get("own_measures", [])
    if not isinstance(found, list) or not all(isinstance(e, dict) for e in found):
        raise SutureError(f"expected a list of the user's own measures, got {found!r}")
    return found
