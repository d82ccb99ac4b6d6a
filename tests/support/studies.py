"""Studies that were never run, from values alone."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from suture import Study
from tests.support.comparisons import of_values

Pair = tuple[str, str]


def of_pairs(values: Mapping[Pair, Any], about: Mapping[str, Sequence[Any]] | None = None,
             failures: Mapping[Pair, str] | None = None, measure: str = "cka", **meta: Any) -> Study:
    """A study of the values (S, T), or a number, of each pair; NaN is a missing cell."""
    lost = failures or {}
    names = list(dict.fromkeys(name for pair in (*values, *lost) for name in pair))
    made: Any = {pair: of_values(measure, np.atleast_2d(cells)) for pair, cells in values.items()}
    words = pd.DataFrame(about or {}, index=pd.Index(names, name="network"))
    return Study(tuple(names), words, made, lost, {"notes": [], **meta})


def on_a_line(places: Mapping[str, float], **more: Any) -> Study:
    """A study of networks whose similarity falls with their distance on a line, each with itself too."""
    pairs = itertools.combinations_with_replacement(places, 2)
    return of_pairs({(a, b): 1 - abs(places[a] - places[b]) / 20 for a, b in pairs}, **more)
