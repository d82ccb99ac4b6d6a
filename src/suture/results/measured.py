"""The record of what was measured between two networks: its table, its matrices, and the table as text."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from suture._base import SutureError, checked, expect, make_unknown_error, show_value
from suture.numbers import get_measure, sort_measures

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["source", "target", "measure", "value", "low", "high", "n", "direction", "reason", "mark"]
_NUMERIC = ("value", "low", "high", "n")
NAMES = ("source", "target", "sources", "targets", "same_network", "same_architecture")
"""Fields of `Measured` that name networks and sites, or say how the networks correspond."""
_FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""First signs, also in full width, of a cell that spreadsheets compute."""
_ABSENT: Mapping[str, Any] = {"value": np.nan, "low": np.nan, "high": np.nan, "n": np.nan,
                              "reason": "not computed", "mark": ""}
"""Columns that a matrix can show, with their content for a cell that is not in the table."""


@dataclass(frozen=True, eq=False)
class Measured:
    """Measures of all cells, with arrays and settings; `Comparison` describes the fields."""

    source: str
    target: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    same_network: bool
    same_architecture: bool
    table: pd.DataFrame
    arrays: dict[str, npt.NDArray[Any]]
    meta: dict[str, Any]

    def __post_init__(self) -> None:
        _check_types(self)
        for kind, names in (("source", self.sources), ("target", self.targets)):
            expect(len(set(names)) == len(names), f"every {kind} site once", str(list(names)))
        object.__setattr__(self, "sources", tuple(self.sources))
        object.__setattr__(self, "targets", tuple(self.targets))
        object.__setattr__(self, "table", _tidy_table(self.table))
        _check_cells(self.table, self.sources, self.targets)
        _check_arrays(self.arrays)
        try:
            object.__setattr__(self, "meta", json.loads(json.dumps(self.meta)))
        except (TypeError, ValueError) as error:
            raise SutureError(f"expected meta that JSON can hold, got: {error}") from error

    @property
    def corresponds(self) -> bool:
        """True if a source and a target site of the same name are the same layer."""
        return self.same_network or self.same_architecture

    @property
    def measures(self) -> list[str]:
        """Names of the measures in the table, in the order of `suture.numbers.sort_measures`."""
        return list(self._rows)

    @cached_property
    def _rows(self) -> dict[str, npt.NDArray[np.intp]]:
        column = self.table["measure"].to_numpy()
        return {name: np.flatnonzero(column == name) for name in sort_measures(column)}

    @cached_property
    def _columns(self) -> dict[str, npt.NDArray[Any]]:
        """Each row's place in the flattened matrix (sources, targets), and columns that were asked for."""
        # Lists: pandas takes ten times as long to look up a few names, and a study has thousands of tables.
        rows, columns = ({name: k for k, name in enumerate(names)} for names in (self.sources, self.targets))
        places = [rows[s] * len(columns) + columns[t] for s, t in
                  zip(self.table["source"].tolist(), self.table["target"].tolist(), strict=True)]
        return {"place": np.array(places, np.intp)}

    @cached_property
    def _labels(self) -> tuple[pd.Index[str], pd.Index[str]]:
        """Names of the sites as the axes of a matrix."""
        import pandas as pd

        return pd.Index(self.sources, name="source"), pd.Index(self.targets, name="target")

    @checked
    def matrix(self, measure: str, what: str = "value") -> pd.DataFrame:
        """Return one measure as a matrix; rows are source sites, columns target sites.

        Args:
            measure: a name of `measures`.
            what: ``"value"``, ``"low"``, ``"high"``, ``"n"``, ``"reason"`` or ``"mark"``.

        Raises:
            SutureError: no such measure in this comparison, or no such `what`.
        """
        return label_cells(self, take_cells(self, measure, what))

    @checked
    def marks(self, measure: str) -> pd.DataFrame:
        """Return the reasons not to trust each cell, as texts; rows are source sites, columns target sites.

        A text has one or several causes, ``cause: numbers; cause: numbers``; it is empty if all is well.
        Marks of task loss matching are explained at `suture.stitching.convergence.find_unconverged`.

        Raises:
            SutureError: no such measure in this comparison.
        """
        return self.matrix(measure, "mark")

    @checked
    def null(self, measure: str) -> pd.DataFrame:
        """Return what an index says by chance: its values where the rows of one side are permuted.

        Args:
            measure: an index among `measures`.

        Returns:
            One row for each cell: ``source``, ``target``, ``value`` (of the kept examples, where the null is
            drawn), ``null_mean``, ``null_std``, ``p``, ``p_holm`` (adjusted for all cells), ``p_max``
            (against the largest of all cells in each permutation; the smallest of the column tests if some
            layer is similar; nan without permutations), ``calibrated`` (0 at the null's 95 % point, 1 at the
            measure's best), ``n`` rows, ``method``, and ``reason`` for a missing null.

        Raises:
            SutureError: no such measure, or no index.
        """
        # Here, because it tabulates a `Measured`.
        from suture.results.inference.nulls import tabulate_nulls

        return tabulate_nulls(self, measure)

    def equals(self, other: Measured) -> bool:
        """Return True if all fields are exactly equal: names, order, dtypes, and numbers (NaN equals NaN)."""
        return isinstance(other, Measured) and describe_fields(self) == describe_fields(other) and all(
            (one.dtype, one.shape, one.tobytes()) == (two.dtype, two.shape, two.tobytes())
            for one, two in zip(self.arrays.values(), other.arrays.values(), strict=True))


def describe_emptiness(measured: Measured) -> str:
    """Say that no cell has a value, with the most frequent reason; empty if one has."""
    table = measured.table
    reasons = table["reason"][table["reason"] != ""]
    why = f": {reasons.mode()[0]}" if len(reasons) else ""
    return "" if table["value"].notna().any() else f"No cell has a value{why}."


def _check_types(measured: Measured) -> None:
    """Check the types of the fields, which may come from a file that somebody has changed."""
    for name in ("source", "target"):
        expect(isinstance(getattr(measured, name), str), f"the name of a network as {name}",
               getattr(measured, name))
        sites = getattr(measured, f"{name}s")
        expect(isinstance(sites, tuple | list) and all(isinstance(s, str) for s in sites),
               f"names of sites as {name}s", show_value(sites))
    for name in ("same_network", "same_architecture"):
        expect(isinstance(getattr(measured, name), bool), f"True or False as {name}",
               show_value(getattr(measured, name)))
    expect(hasattr(measured.table, "columns"), "a table of pandas as table", measured.table)
    for name in ("arrays", "meta"):
        expect(isinstance(getattr(measured, name), Mapping), f"a dictionary as {name}",
               getattr(measured, name))


def take_cells(measured: Measured, measure: str, what: str = "value") -> npt.NDArray[Any]:
    """Take the cells of `Measured.matrix` without their labels, in a fraction of the time."""
    if measure not in measured._rows:
        raise make_unknown_error("measure", measure, measured.measures)
    if what not in _ABSENT:
        raise make_unknown_error("column", what, _ABSENT)
    rows, shape = measured._rows[measure], (len(measured.sources), len(measured.targets))
    if what not in measured._columns:
        measured._columns[what] = measured.table[what].to_numpy()
    found, absent = measured._columns[what][rows], _ABSENT[what]
    cells = (np.empty(shape, found.dtype) if len(rows) == shape[0] * shape[1] else
             np.full(shape, absent, np.result_type(found.dtype, type(absent))))
    cells.flat[measured._columns["place"][rows]] = found
    return cells


def label_cells(measured: Measured, cells: npt.NDArray[Any]) -> pd.DataFrame:
    """Label an array (sources, targets) with the names of the sites."""
    import pandas as pd

    # Copies share the names of the sites; who renames the axis of one matrix does not rename the others'.
    rows, columns = (names.copy() for names in measured._labels)
    return pd.DataFrame(cells, index=rows, columns=columns)


def _tidy_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with a plain index and one dtype per column."""
    import pandas as pd

    expect(list(table.columns) == COLUMNS, f"the columns {COLUMNS}", str(list(table.columns)))
    columns: dict[str, Any] = {}
    for name in COLUMNS:
        if name not in _NUMERIC:
            texts = table[name].tolist()
            expect(all(isinstance(cell, str) for cell in texts), f"strings in the column {name!r}")
            columns[name] = pd.array(texts, dtype="str")
            continue
        try:
            numbers = table[name].to_numpy().astype(np.float64)
        except (TypeError, ValueError) as error:
            raise SutureError(f"expected numbers in the column {name!r}: {error}") from error
        whole = name == "n" and np.isfinite(numbers).all() and (numbers == np.floor(numbers)).all()
        columns[name] = numbers.astype(np.int64) if whole else numbers
    return pd.DataFrame(columns)


def _check_cells(table: pd.DataFrame, sources: tuple[str, ...], targets: tuple[str, ...]) -> None:
    """Check that every row has a known cell and measure, occurs once, and has a value or a reason."""
    # Lists, because a column of texts costs more to look at in pandas, and there are a few hundred rows.
    cells = {name: table[name].tolist() for name in ("source", "target", "measure")}
    for column, names in (("source", sources), ("target", targets)):
        strange = set(cells[column]) - set(names)
        if strange:
            raise make_unknown_error(f"{column} in the table", min(strange), names)
    for name in dict.fromkeys(cells["measure"]):
        get_measure(name)
    keys = list(zip(*cells.values(), strict=True))
    missing = np.isnan(table["value"].to_numpy())
    explained = np.array([reason != "" for reason in table["reason"].tolist()], bool)
    first = {key: row for row, key in reversed(list(enumerate(keys)))}
    repeated = np.array([first[key] != row for row, key in enumerate(keys)], bool)
    for rows, wanted in ((repeated, "one row per cell and measure"),
                         (missing & ~explained, "a reason for every missing value"),
                         (~missing & explained, "no reason where there is a value")):
        if rows.any():
            source, target, measure = keys[int(rows.argmax())]
            raise SutureError(f"expected {wanted}, which {measure!r} of {source!r} into {target!r} breaks")


def _check_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Check that all arrays are NumPy arrays of dtypes that can be saved."""
    for name, array in arrays.items():
        found = array.dtype if isinstance(array, np.ndarray) else None
        expect(found is not None and found.kind in "biuf" and found.itemsize <= 8,
               f"a NumPy array of booleans, integers or floats as {name!r}",
               type(array).__name__ if found is None else found.name)


def describe_fields(measured: Measured) -> dict[str, Any]:
    """Describe all fields exactly as JSON, with the arrays by name only; the table is CSV."""
    # Meta is JSON within JSON, because it may hold NaN and the order of its keys matters.
    return {name: getattr(measured, name) for name in NAMES} | {
        "table": format_csv(measured.table), "meta": json.dumps(measured.meta),
        "arrays": list(measured.arrays)}


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


def format_people_csv(table: pd.DataFrame) -> bytes:
    """Format a table as CSV for people, in UTF-8: no program takes a text in it for a formula.

    A text that begins like one (OWASP, "CSV Injection") gets an apostrophe before it. `load` reads another.
    """
    texts = [name for name in table.columns if name not in _NUMERIC]
    return format_csv(table.assign(**{
        name: [f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA_SIGNS) else cell
               for cell in table[name]]
        for name in texts})).encode(errors="replace")


def parse_table(text: str) -> pd.DataFrame:
    """Parse the table that `format_csv` wrote."""
    import pandas as pd

    header, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    table = pd.DataFrame(rows, columns=header, dtype=object)
    return table.assign(**{name: [float(cell) if cell else np.nan for cell in table[name]]
                           for name in _NUMERIC})
