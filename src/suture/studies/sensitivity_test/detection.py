"""The smallest deletion that a measure notices, against the smallest that changes the probe."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from suture.numbers import get_measure
from suture.results import LEVEL
from suture.studies.sensitivity_test.seed_spread import LEVELS

if TYPE_CHECKING:
    import pandas as pd

DETECTION_COLUMNS = ("network", "site", "width", "measure", "threshold", "rank", "deleted", "probe_rank",
                     "probe_deleted", "noticed", "reason")


def tabulate_detection(curves: pd.DataFrame, probes: pd.DataFrame, spread: pd.DataFrame) -> pd.DataFrame:
    """Return for each network, site and measure the largest rank that exceeds the distances between seeds.

    Columns ``rank`` and ``deleted`` are of the smallest deletion by which the value is farther from the whole
    representation than the median, or than 95 %, of the distances between seeds; ``probe_rank`` and
    ``probe_deleted`` of the smallest that changes the probe (McNemar, Holm, 5 %). ``noticed`` is True if the
    measure does so no later than the probe, None where nothing is known: also where the whole representation
    is not nearer to itself than other networks are, as a network that is stitched may be better than it was.
    """
    import pandas as pd

    known: dict[Any, Any] = {(r.site, r.measure): r for r in spread.itertuples()}
    changed: dict[Any, float] = {key: _find_changed(of)
                                 for key, of in probes.groupby(["network", "site"], sort=False)}
    groups: Any = curves.groupby(["network", "site", "measure"], sort=False)
    rows = [_describe(key, of, level, known[key[1:]], changed[key[:2]])
            for key, of in groups for level in LEVELS]
    return pd.DataFrame(rows, columns=list(DETECTION_COLUMNS))


def _find_changed(probes: pd.DataFrame) -> float:
    """Return the largest rank at which the probe differs from that of the whole width; 0 for none."""
    changed = probes.loc[probes["p_holm"] < LEVEL, "rank"]
    return float(changed.max()) if len(changed) else 0.0


def _describe(key: Any, curve: pd.DataFrame, level: str, spread: Any, probe_rank: float) -> dict[str, Any]:
    measure, width = key[2], int(curve["width"].iloc[0])
    threshold = spread.median if level == LEVELS[0] else spread.far
    row: dict[str, Any] = dict(zip(("network", "site", "measure"), key, strict=True)) | {
        "width": width, "threshold": level, "rank": math.nan, "deleted": math.nan,
        "probe_rank": probe_rank or math.nan, "probe_deleted": width - probe_rank if probe_rank else math.nan,
        "noticed": None, "reason": ""}
    cut = curve[(curve["rank"] < width) & curve["value"].notna() & (curve["mark"] == "")]
    if math.isnan(threshold):
        return row | {"reason": spread.reason}
    if not len(cut):
        lost = curve["reason"].iloc[-1] or curve["mark"].iloc[-1]
        return row | {"reason": lost or "no rank below the width"}
    common = get_measure(measure).common
    whole = curve[curve["rank"] == width]["value"]
    if not all(common(v) > common(threshold) for v in whole):
        return row | {"reason": "other networks are as near as the whole representation itself"}
    far = cut.loc[[common(v) < common(threshold) for v in cut["value"]], "rank"]
    rank = int(far.max()) if len(far) else 0
    row |= {"rank": rank or math.nan, "deleted": width - rank if rank else math.nan}
    if not probe_rank:
        return row | {"reason": "no deletion changes the probe"}
    return row | {"noticed": rank >= probe_rank, "reason": "" if rank else "no deletion exceeds the seeds"}
