"""Difference between two cells of a comparison, with a test against chance."""

from __future__ import annotations

from suture._base import SutureError, expect, make_unknown_error
from suture.numbers import Difference, Record, build_record, estimate_difference
from suture.results.measured import Measured


def compute_difference(measured: Measured, a: tuple[str, str], b: tuple[str, str], measure: str,
                       other: str | None = None) -> Difference:
    """Compute how much one cell's value exceeds another's; see `Comparison.difference`."""
    other = measure if other is None else other
    expect(measure.rpartition(".")[2] == other.rpartition(".")[2], "one measure of two methods",
           f"{measure!r} and {other!r}")
    one, two = _build_cell_record(measured, a, measure), _build_cell_record(measured, b, other)
    return estimate_difference(one, two, int(measured.meta.get("seed") or 0))


def _build_cell_record(measured: Measured, cell: tuple[str, str], measure: str) -> Record:
    expect(not isinstance(cell, str) and len(cell) == 2, "a cell (source site, target site)", repr(cell))
    for kind, name, names in zip(("source", "target"), cell, (measured.sources, measured.targets),
                                 strict=True):
        if name not in names:
            raise make_unknown_error(f"{kind} site", name, names)
    i, j = measured.sources.index(cell[0]), measured.targets.index(cell[1])
    record = build_record(measured.arrays, measure, i, j)
    reason = str(measured.matrix(measure, "reason").iloc[i, j])
    if reason:
        raise SutureError(f"{measure} of {cell[0]!r} into {cell[1]!r} has no value: {reason}")
    return record
