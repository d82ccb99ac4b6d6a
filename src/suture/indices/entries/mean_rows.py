"""Differences of statistics of mean rows: magnitude and concentricity (Wang et al. 2020)."""

from __future__ import annotations

import math

from suture.indices.definition import Needs, define_index, require
from suture.indices.transformations import expand_invariances
from suture.numbers import Pair, Side, UnitRowSums


@define_index("magnitude", "difference of magnitudes", expand_invariances("orthogonal"), least=1,
              formula="| |mean x| - |mean y| |", source="Wang et al. 2020", cost="p + q", larger=False,
              form="inverse", span=(0.0, math.inf), judged=False)
def magnitude(pair: Pair) -> float:
    """Difference of the lengths of the mean rows (Wang et al. 2020). No upper limit."""
    m = pair.moments
    return abs(float(m.x.mean.norm()) - float(m.y.mean.norm()))


@define_index("concentricity", "difference of concentricities", expand_invariances("scaling", "orthogonal"),
              formula="| mean cos(x, mean x) - mean cos(y, mean y) |", source="Wang et al. 2020",
              needs=Needs.UNITS, cost="p + q", larger=False, form="negative",
              span=(0.0, 2.0), judged=False)
def concentricity(pair: Pair) -> float:
    """Difference of the mean cosine similarities of rows with their mean (Wang et al. 2020)."""
    require(pair.unit is not None, "cosines with the mean compare examples, and the rows of these matrices "
                                   "are positions: ask for @pool")
    sides = zip(("source", "target"), pair.unit or (), (pair.moments.x, pair.moments.y), strict=True)
    x, y = (_compute_concentricity(*side) for side in sides)
    return abs(x - y)


def _compute_concentricity(name: str, unit: UnitRowSums, side: Side) -> float:
    size = float(side.mean.norm())
    require(size > 1e-12 * math.sqrt(float(side.gram.trace()) / side.n),
            f"the mean row of the {name} is zero: no row has an angle with it")
    require(not unit.zeros, f"rows of the {name} are zero: they have no angle with the mean row")
    return float(unit.total @ side.mean) / (unit.n * size)
