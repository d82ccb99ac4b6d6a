"""Correlations between single columns (units), matched one to one or each with its best partner."""

from __future__ import annotations

from suture.indices.definition import DIAGONAL, PERMUTATION, TRANSLATION, Index, expand_invariances
from suture.numbers import Pair, make_index_measure


def correlation_hard(pair: Pair) -> float:
    """Compute the mean correlation of the best one-to-one matching of columns (Li et al. 2015)."""
    from scipy.optimize import linear_sum_assignment

    r = pair.correlations
    rows, columns = linear_sum_assignment(r.cpu().numpy(), maximize=True)
    return float(r[rows, columns].mean())


def correlation_soft(pair: Pair) -> float:
    """Compute the mean over source columns of the best correlation with a target column (Li et al. 2015)."""
    return float(pair.correlations.amax(1).mean())


_OWN_UNITS = expand_invariances(TRANSLATION, PERMUTATION, DIAGONAL)
_CONSTANT = "a column that does not vary has correlation 0"
ENTRIES = (
    Index(make_index_measure("correlation_hard", "correlation matching (one to one)",
                             f"Mean correlation of the best one-to-one matching of columns; {_CONSTANT} (Li "
                             "et al. 2015).", span=(-1.0, 1.0)),
          correlation_hard, "max over matchings m of the mean of corr(x_i, y_m(i))", "Li et al. 2015",
          _OWN_UNITS, _OWN_UNITS, least=3, cost="pq min(p, q), by assignment", smooth=False),
    Index(make_index_measure("correlation_soft", "correlation matching (best partner)",
                             "Mean over source columns of the largest correlation with a target column; "
                             f"{_CONSTANT} (Li et al. 2015).", span=(-1.0, 1.0)), correlation_soft,
          "mean over i of max over j of corr(x_i, y_j)", "Li et al. 2015", _OWN_UNITS, _OWN_UNITS, least=3),
)
