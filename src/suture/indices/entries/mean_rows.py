"""Differences of statistics of mean rows: magnitude and concentricity (Wang et al. 2020)."""

from __future__ import annotations

import math

from suture.indices.definition import Needs, define_index
from suture.indices.transformations import expand_invariances
from suture.numbers import Pair, Side, UnitRowSums


@define_index("magnitude", "difference of magnitudes", expand_invariances("orthogonal"), least=1,
              formula="| |mean x| - |mean y| |", source="Wang et al. 2020", cost="p + q", larger=False,
              form="inverse", span=(0.0, math.inf), judged=False)
def magnitude(pair: Pair) -> float:
    """Difference of the lengths of the mean rows (Wang et al. 2020). No upper limit."""
    m = pair.moments
    return abs(float(m.x.mean.norm()) - float(m.y.mean.norm()))


def explain_no_mean(pair: Pair) -> str:
    """Return the reason why rows have no cosines with their mean, or an empty string.

    These cosines need examples as rows, no row of zeros, and a mean that is not zero.
    """
    if pair.unit is None:
        return ("cosines with the mean compare examples, and the rows of these matrices are "
                "positions: ask for @pool")
    m = pair.moments
    for name, side, unit in (("source", m.x, pair.unit[0]), ("target", m.y, pair.unit[1])):
        size = float(side.mean.norm())
        if size <= 1e-12 * math.sqrt(float(side.gram.trace()) / side.n):
            return f"the mean row of the {name} is zero: no row has an angle with it"
        if unit.zeros:
            return f"rows of the {name} are zero: they have no angle with the mean row"
    return ""


@define_index("concentricity", "difference of concentricities", expand_invariances("scaling", "orthogonal"),
              formula="| mean cos(x, mean x) - mean cos(y, mean y) |", source="Wang et al. 2020",
              needs=Needs.UNITS, undefined=explain_no_mean, cost="p + q", larger=False, form="negative",
              span=(0.0, 2.0), judged=False)
def concentricity(pair: Pair) -> float:
    """Difference of the mean cosine similarities of rows with their mean (Wang et al. 2020)."""
    assert pair.unit is not None
    m = pair.moments
    return abs(_compute_concentricity(pair.unit[0], m.x) - _compute_concentricity(pair.unit[1], m.y))


def _compute_concentricity(unit: UnitRowSums, side: Side) -> float:
    return float(unit.total @ side.mean) / (unit.n * float(side.mean.norm()))
