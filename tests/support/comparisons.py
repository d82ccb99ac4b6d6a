"""Comparisons of a single cell."""

from __future__ import annotations

import numpy as np
import pandas as pd

from suture.results import Comparison
from suture.results.measured import COLUMNS, Measured


def one_cell(value=0.5, n=10, reason="", **fields):
    table = pd.DataFrame([["a", "b", "cka", value, np.nan, np.nan, n, "larger", reason, ""]],
                         columns=COLUMNS)
    return Comparison(**{"source": "A", "target": "B", "sources": ("a",), "targets": ("b",),
                         "same_network": False, "same_architecture": False, "table": table, "arrays": {},
                         "meta": {}, **fields})


def of_values(name, values, marks=None, sources=None, targets=None, arrays=None, **kinds):
    """A record with one measure of every cell; NaN is a missing value."""
    values = np.asarray(values, dtype=float)
    sources = sources or [f"l{i}" for i in range(values.shape[0])]
    targets = targets or [f"l{j}" for j in range(values.shape[1])]
    rows = [(s, t, name, values[i, j], np.nan, np.nan, 1, "larger", "why" if np.isnan(values[i, j]) else "",
             "" if marks is None else marks[i][j])
            for i, s in enumerate(sources) for j, t in enumerate(targets)]
    kinds = {"same_network": True, "same_architecture": True} | kinds
    return Measured("A", "B", tuple(sources), tuple(targets), table=pd.DataFrame(rows, columns=COLUMNS),
                    arrays=arrays or {}, meta={}, **kinds)
