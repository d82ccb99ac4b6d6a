"""The cells of one comparison as one number, and the layers of two networks matched to each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import numpy as np

from suture._base import SutureError, make_unknown_error
from suture.indices import INDICES
from suture.numbers import METRIC_FORMS, Bools, Floats, get_base_name, get_measure
from suture.results import Comparison, match_depths, pair_sites, take_cells

if TYPE_CHECKING:
    import pandas as pd

Reduce = Literal["diagonal", "best", "transport"]


@dataclass(frozen=True)
class Reduced:
    """One number for all cells of a comparison.

    Attributes:
        value: NaN if no cell remains.
        distance: the same of the distances of the cells, for measures that are metrics; else NaN.
        symmetric: True if both are those of the other direction too.
        cells, left_out: numbers of cells that it rests on, and that are missing or marked in their place.
        why: reason or mark of the first that is left out.
    """

    value: float
    distance: float
    symmetric: bool
    cells: int
    left_out: int
    why: str


def reduce_layers(made: Comparison, measure: str, reduce: str, order: bool = False) -> Reduced:
    """Make one number of all cells of a comparison, without those that are missing or marked."""
    if reduce not in _WEIGHTS:
        raise make_unknown_error("way to reduce cells", reduce, _WEIGHTS)
    values, similar = read_cells(made, measure)
    weights, known = _WEIGHTS[reduce](made, similar, order), ~np.isnan(values)
    # Only corresponding layers are chosen without a look at the values.
    lost = ~known & ((weights > 0) if reduce == "diagonal" else True)
    form = METRIC_FORMS.get(get_measure(measure).metric)
    distances = np.array([[np.nan if form is None or np.isnan(v) else form(v) for v in row]
                          for row in values])
    entry = INDICES.get(get_base_name(measure))
    return Reduced(_average(values, weights * known), _average(distances, weights * known),
                   bool(entry is not None and entry.symmetric), int((weights * known > 0).sum()),
                   int(lost.sum()), _find_cause(made, measure, lost))


def _average(values: Floats, weights: Floats) -> float:
    total = float(weights.sum())
    return float((weights * np.where(weights > 0, values, 0)).sum()) / total if total else np.nan


def _find_cause(made: Comparison, measure: str, lost: Bools) -> str:
    if not lost.any():
        return ""
    first = tuple(np.argwhere(lost)[0])
    return str(take_cells(made, measure, "reason")[first] or take_cells(made, measure, "mark")[first])


def read_cells(made: Comparison, measure: str) -> tuple[Floats, Floats]:
    """Return values (S, T) as they are, and as similarities; NaN where a cell is missing or marked."""
    values = np.where(take_cells(made, measure, "mark") != "", np.nan, take_cells(made, measure))
    common = get_measure(measure).common
    return values, np.vectorize(lambda v: v if np.isnan(v) else common(v), otypes=[float])(values)


def match_layers(made: Comparison, measure: str, order: bool = False) -> pd.DataFrame:
    """Return the plan (S, T) of the best match between the layers of a comparison, which sums to one.

    Without `order` it is an optimal transport: each layer of the deeper network has an equal share, and each
    of the other at least such a one. With `order`, matched layers never go back (dynamic time warping).

    Raises:
        SutureError: no cell has a value without a mark.
    """
    import pandas as pd

    _, similar = read_cells(made, measure)
    if np.isnan(similar).all():
        raise SutureError(f"no cell of {measure} has a value without a mark; choose another measure")
    return pd.DataFrame(_match(made, similar, order), index=pd.Index(made.sources, name="source"),
                        columns=pd.Index(made.targets, name="target"))


def _weigh_diagonal(made: Comparison, similar: Floats, order: bool) -> Floats:
    """Weigh corresponding layers equally, the same in both directions.

    In order of depth each layer of the deeper network has a partner, so that none is left out.
    """
    weights = np.zeros(similar.shape)
    how, pairs = pair_sites(made)
    s, t = similar.shape
    if how == "name":
        cells = list(pairs.items())
    elif t >= s:
        cells = list(match_depths(s, t).items())
    else:
        cells = [(j, i) for i, j in match_depths(t, s).items()]
    for j, i in cells:
        weights[i, j] = 1.0
    return weights


def _weigh_best(made: Comparison, similar: Floats, order: bool) -> Floats:
    """Weigh the most similar partner of every layer of either side; both sides count the same."""
    weights = np.zeros(similar.shape)
    ranked = np.where(np.isnan(similar), -np.inf, similar)
    for side, whole in ((0, ranked), (1, ranked.T)):
        for j in range(whole.shape[1]):
            i = int(np.argmax(whole[:, j]))
            if np.isfinite(whole[i, j]):
                weights[(i, j) if side == 0 else (j, i)] += 1 / whole.shape[1]
    return weights


def _match(made: Comparison, similar: Floats, order: bool) -> Floats:
    known = np.isnan(similar)
    if known.all():
        return np.zeros(similar.shape)
    filled = np.where(known, np.nanmin(similar) - 1, similar)
    return _align(filled) if order else _transport(filled)


_WEIGHTS: Mapping[str, Callable[[Comparison, Floats, bool], Floats]] = MappingProxyType(
    {"diagonal": _weigh_diagonal, "best": _weigh_best, "transport": _match})


def _transport(gain: Floats) -> Floats:
    """Return the plan P >= 0 that maximises sum P_ij gain_ij, each layer of the deeper side sharing equally.

    A layer of the other side gets at least such a share, and more where several layers do what it does.
    """
    from scipy.optimize import linprog
    from scipy.sparse import eye, kron

    s, t = gain.shape
    if s > t:
        return _transport(gain.T).T
    rows, columns = kron(eye(s), np.ones((1, t))).toarray(), kron(np.ones((1, s)), eye(t)).toarray()
    found = linprog(-gain.ravel(), A_ub=-rows, b_ub=np.full(s, -1 / t), A_eq=columns, b_eq=np.full(t, 1 / t),
                    method="highs-ds")
    if found.x is None:
        raise SutureError(f"no optimal transport between {s} and {t} layers: {found.message}")
    plan: Floats = np.clip(found.x, 0, None).reshape(s, t)
    return plan


def _align(gain: Floats) -> Floats:
    """Return the plan of dynamic time warping (Sakoe and Chiba 1978): a path over cells that never goes back.

    It begins with both first layers, ends with both last ones, leaves out no layer, and has the least sum of
    distances from the largest gain. Its cells share the plan equally.
    """
    cost = gain.max() - gain
    s, t = cost.shape
    total = np.full((s + 1, t + 1), np.inf)
    total[0, 0] = 0.0
    for i in range(s):
        for j in range(t):
            total[i + 1, j + 1] = cost[i, j] + min(total[i, j], total[i, j + 1], total[i + 1, j])
    path = [(s - 1, t - 1)]
    while path[-1] != (0, 0):
        i, j = path[-1]
        path.append(min(((i - 1, j - 1), (i - 1, j), (i, j - 1)), key=lambda at: total[at[0] + 1, at[1] + 1]))
    plan = np.zeros((s, t))
    plan[tuple(zip(*path, strict=True))] = 1 / len(path)
    return plan
