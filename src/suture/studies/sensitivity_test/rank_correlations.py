"""Does a measure order deletions as the probe does: rank correlations over the ranks of a site."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from suture.numbers import get_measure

if TYPE_CHECKING:
    import pandas as pd

CORRELATION_COLUMNS = ("network", "site", "measure", "spearman", "kendall", "ranks", "reason")
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
