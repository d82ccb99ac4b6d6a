"""Correlations between single columns (units), matched one to one or each with its best partner."""

from __future__ import annotations

from suture.indices.definition import define_index
from suture.indices.transformations import expand_invariances
from suture.numbers import Pair

_UNITS = expand_invariances("translation", "permutation", "diagonal")


@define_index("correlation_hard", "correlation matching (one to one)", _UNITS, source="Li et al. 2015",
              formula="max over matchings m of the mean of corr(x_i, y_m(i))", least=3, span=(-1.0, 1.0),
              cost="pq min(p, q), by assignment", smooth=False)
def correlation_hard(pair: Pair) -> float:
    """Mean correlation of the best one-to-one matching of columns; a column that does not vary has
    correlation 0 (Li et al. 2015).
    """
    from scipy.optimize import linear_sum_assignment

    r = pair.correlations
    rows, columns = linear_sum_assignment(r.cpu().numpy(), maximize=True)
    return float(r[rows, columns].mean())


@define_index("correlation_soft", "correlation matching (best partner)", _UNITS, source="Li et al. 2015",
              formula="mean over i of max over j of corr(x_i, y_j)", least=3, span=(-1.0, 1.0),
              symmetric=False)
def correlation_soft(pair: Pair) -> float:
    """Mean over source columns of the largest correlation with a target column; a column that does not vary
    has correlation 0 (Li et al. 2015).
    """
    return float(pair.correlations.amax(1).mean())
