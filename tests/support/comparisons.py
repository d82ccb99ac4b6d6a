"""Comparisons of a single cell."""

from __future__ import annotations

import numpy as np
import pandas as pd

from suture.results import Comparison
from suture.results.table import COLUMNS


def one_cell(value=0.5, n=10, reason="", **fields):
    table = pd.DataFrame([["a", "b", "cka", value, np.nan, np.nan, n, "larger", reason]],
                         columns=COLUMNS[:-1])
    return Comparison(**{"source": "A", "target": "B", "sources": ("a",), "targets": ("b",),
                         "same_network": False, "same_architecture": False, "table": table, "arrays": {},
                         "meta": {}, **fields})
