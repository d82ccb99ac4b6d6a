"""How far apart corresponding layers of independently trained networks are by each measure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from suture.numbers import get_measure
from suture.studies.network_study.inference import FEWEST

if TYPE_CHECKING:
    import pandas as pd

    from suture.studies.network_study.result import Study

SPREAD_COLUMNS = ("site", "measure", "median", "far", "networks", "pairs", "reason")
LEVELS = ("median", "95 %")
"""The distances between seeds that a deletion must exceed, by the columns ``median`` and ``far``."""
_FAR = 0.05
"""Share of the pairs that are farther apart than ``far``."""


def tabulate_spread(study: Study | None, sites: Sequence[str], measures: Sequence[str]) -> pd.DataFrame:
    """Return the median over pairs of different networks, and the value that 95 % of them are nearer than.

    Cells that are missing or marked are left out. The 95 % need three networks.
    """
    import pandas as pd

    rows = [_describe_spread(study, site, measure) for site in sites for measure in measures]
    return pd.DataFrame(rows, columns=list(SPREAD_COLUMNS))


def _describe_spread(study: Study | None, site: str, measure: str) -> dict[str, Any]:
    row: dict[str, Any] = {"site": site, "measure": measure, "median": math.nan, "far": math.nan,
                           "networks": 0, "pairs": 0, "reason": ""}
    if study is None:
        return row | {"reason": "one network has no distance from another seed; give several"}
    values, names = _read_values(study, site, measure)
    row |= {"networks": len(names), "pairs": len(values)}
    if not len(values):
        alone = not any(a != b and site in of.sources and site in of.targets
                        for (a, b), of in study.comparisons.items())
        return row | {"reason": "no two networks have a layer of this name; give networks of one design"
                      if alone else "no two networks have a value without a mark at this site"}
    nearer = get_measure(measure).larger_is_more_similar
    row["median"] = float(np.median(values))
    if len(names) < FEWEST:
        return row | {"reason": f"{len(names)} networks: 95 % of their distances need {FEWEST}"}
    row["far"] = float(np.quantile(values, _FAR if nearer else 1 - _FAR))
    return row


def _read_values(study: Study, site: str, measure: str) -> tuple[list[float], set[str]]:
    """Return the values of a measure between one site of different networks, and the networks."""
    values, names = list[float](), set[str]()
    for a, b in study.pairs:
        made = study.comparison(a, b)
        if a == b or site not in made.sources or site not in made.targets or measure not in made.measures:
            continue
        at = made.sources.index(site), made.targets.index(site)
        value = float(made.matrix(measure).to_numpy()[at])
        if not (made.marks(measure).to_numpy()[at] or math.isnan(value)):
            values.append(value)
            names |= {a, b}
    return values, names
