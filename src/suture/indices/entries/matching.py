"""Soft matching of single units: the best transport between the columns of two widths."""

from __future__ import annotations

import math

import numpy as np
import torch

from suture.indices.definition import Argument, define_index, expand_invariances, require
from suture.numbers import Floats, Pair, find_assignment, find_varying_columns

_TUNING = expand_invariances("translation", "scaling", "permutation", "diagonal")
_COST = "m³, m the least common multiple of p and q"
_LARGEST = 4096
_SHARE = Argument("share", 0.5, 0.01, 1.0,
                  "Share of the units that are matched, those that correlate best. 1: all, as "
                  "`soft_matching`.")


def _correlate_units(pair: Pair) -> Floats:
    """Correlate the columns that vary, (p, q), each repeated until both sides have as many.

    An optimal plan of transport with uniform margins is then an assignment (Birkhoff 1946).
    """
    m = pair.moments
    kept = (find_varying_columns(side, m.precision) for side in (m.x, m.y))
    found = np.asarray(pair.correlations[next(kept)][:, next(kept)].cpu().numpy())
    p, q = found.shape
    size = math.lcm(p, q)
    require(size <= _LARGEST, f"{p} and {q} units that vary have the least common multiple {size}: too "
                              f"many to match (at most {_LARGEST})")
    return found.repeat(size // p, 0).repeat(size // q, 1)


def _match(gain: Floats, count: int) -> float:
    """Sum the gain (m, m) of the best `count` pairs, each row and column in one of them at most."""
    size = len(gain)
    if count == 0:
        return 0.0
    # A row or column without a partner is assigned to an added one, which no added one may take.
    whole = np.pad(gain, (0, size - count))
    whole[size:, size:] = -2.0 * size
    rows, columns = find_assignment(torch.from_numpy(whole))
    return float(whole[rows.numpy(), columns.numpy()].sum())


@define_index("soft_matching", "soft matching", _TUNING, formula="max_P Σ P_ij r_ij, r_ij the correlation of "
              "columns i and j, P ≥ 0 with row sums 1/p and column sums 1/q",
              source="Khosla and Williams 2024, correlation score; the code of Kapoor et al. 2026, SoftMatch",
              cost=_COST, smooth=False, span=(-1.0, 1.0), null=None)
def soft_matching(pair: Pair) -> float:
    """Mean correlation of units under the best soft matching of the two sides, which may differ in width
    (Khosla and Williams 2024). Columns that do not vary are left out.
    """
    gain = _correlate_units(pair)
    return _match(gain, len(gain)) / len(gain)


@define_index("soft_matching_partial", "soft matching (partial)", _TUNING, argument=_SHARE,
              formula="max_P Σ P_ij r_ij / s, P ≥ 0 with row sums up to 1/p, column sums up to 1/q, total s",
              source="Kapoor, Williams and Khosla 2026 (arXiv 2602.19331); their score is 1 - s (1 - this)",
              cost=_COST, smooth=False, span=(-1.0, 1.0), null=None)
def soft_matching_partial(pair: Pair, share: float) -> float:
    """Mean correlation of the half of the units, or the given share, that match best (Kapoor et al. 2026).
    """
    gain = _correlate_units(pair)
    mass = share * len(gain)
    # The largest gain is linear between whole numbers of pairs, as all corners of the plans are assignments.
    low, high = math.floor(mass), math.ceil(mass)
    found = _match(gain, low)
    if high > low:
        found += (mass - low) * (_match(gain, high) - found)
    return found / mass
