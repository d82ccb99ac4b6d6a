"""Does a measure order deletions as the probe does: rank correlations, with the network as the unit."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from suture._base import expect
from suture.numbers import Floats, get_measure

if TYPE_CHECKING:
    import pandas as pd

CORRELATION_COLUMNS = ("network", "site", "measure", "spearman", "kendall", "ranks", "reason")
_EXACT = 12
"""Largest number of networks whose signs are all tried."""
_DRAWS = 4095
_ROUNDING = 1e-6
"""Range of a curve, relative to its values, that products in float32 make of one value."""


def tabulate_correlations(curves: pd.DataFrame, probes: pd.DataFrame) -> pd.DataFrame:
    """Return Spearman's rho and Kendall's tau-b of distance and change of the probe over the ranks of a site.

    The distance is that of the cut from the whole representation by a measure, the change that of the probe's
    test accuracy, without its sign.
    """
    import pandas as pd

    change = {key: dict(zip(of["rank"], of["change"].abs(), strict=True))
              for key, of in probes.groupby(["network", "site"], sort=False)}
    rows = [_correlate(key, of, change[key[:2]])
            for key, of in curves.groupby(["network", "site", "measure"], sort=False)]
    return pd.DataFrame(rows, columns=list(CORRELATION_COLUMNS))


def _correlate(key: Any, curve: pd.DataFrame, change: dict[int, float]) -> dict[str, Any]:
    from scipy import stats

    common, known = get_measure(key[2]).common, curve[curve["value"].notna() & (curve["mark"] == "")]
    x = np.array([-common(v) for v in known["value"]])
    y = np.array([change[r] for r in known["rank"]])
    row: dict[str, Any] = dict(zip(("network", "site", "measure"), key, strict=True)) | {
        "spearman": math.nan, "kendall": math.nan, "ranks": len(x), "reason": ""}
    if len(x) < 3:
        return row | {"reason": f"{len(x)} ranks have a value: a rank correlation needs 3"}
    for what, of in (("the measure", x), ("the probe", y)):
        if np.ptp(of) <= _ROUNDING * np.abs(of).max():
            return row | {"reason": f"{what} is the same at all ranks"}
    return row | {"spearman": float(stats.spearmanr(x, y).statistic),
                  "kendall": float(stats.kendalltau(x, y, variant="b").statistic)}


def flip_signs(values: Floats, seed: int = 0) -> float:
    """Return the one-sided p value of a mean above 0 when the sign of each network's value is a coin toss.

    All signs are tried for up to twelve networks, else they are drawn. The smallest p is 1 / 2^n.
    """
    n = len(values)
    expect(n > 0, "at least one value", n)
    if n <= _EXACT:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=n)))
    else:
        drawn = np.random.default_rng(seed).choice((1.0, -1.0), (_DRAWS, n))
        signs = np.vstack([np.ones(n), drawn])
    means = signs @ values
    return float((means >= means[0] - 1e-12 * np.abs(values).sum()).mean())


def find_power(values: Floats, relevant: float, level: float) -> float:
    """Return the chance that a mean of `relevant` is found with the spread of these values (one-sided t).

    It is 0 if so few values allow no p below the level.
    """
    from scipy import stats

    n = len(values)
    if n < 2 or 0.5**n > level:
        return 0.0
    spread = float(np.std(values, ddof=1))
    if spread == 0:
        return 1.0
    critical = stats.t.ppf(1 - level, n - 1)
    return float(stats.nct.sf(critical, n - 1, relevant * math.sqrt(n) / spread))
