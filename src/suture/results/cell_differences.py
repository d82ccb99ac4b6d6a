"""Difference between two cells of a comparison, with a test against chance."""

from __future__ import annotations

from suture._base import SutureError, make_unknown_error
from suture.numbers import Difference, Record, build_record, estimate_difference
from suture.results.report.compared import ComparisonLike


def compute_difference(comparison: ComparisonLike, a: tuple[str, str], b: tuple[str, str], measure: str,
                       other: str | None = None) -> Difference:
    """Compute how much one cell's value exceeds another's; see `Comparison.difference`."""
    names = (measure, measure if other is None else other)
    if names[0].rpartition(".")[2] != names[1].rpartition(".")[2]:
        raise SutureError(f"expected one measure of two methods, got {names[0]!r} and {names[1]!r}")
    one, two = (_build_cell_record(comparison, cell, name) for cell, name in zip((a, b), names, strict=True))
    return estimate_difference(one, two, int(comparison.meta.get("seed") or 0))


def _build_cell_record(comparison: ComparisonLike, cell: tuple[str, str], measure: str) -> Record:
    if isinstance(cell, str) or len(cell) != 2:
        raise SutureError(f"expected a cell (source site, target site), got {cell!r}")
    for kind, name, names in (("source", cell[0], comparison.sources),
                              ("target", cell[1], comparison.targets)):
        if name not in names:
            raise make_unknown_error(f"{kind} site", name, names)
    i, j = comparison.sources.index(cell[0]), comparison.targets.index(cell[1])
    record = build_record(comparison.arrays, measure, i, j)
    reason = str(comparison.matrix(measure, "reason").iloc[i, j])
    if reason:
        raise SutureError(f"{measure} of {cell[0]!r} into {cell[1]!r} has no value: {reason}")
    return record
