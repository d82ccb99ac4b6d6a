"""Tables as text."""

from __future__ import annotations

import numpy as np
import pandas as pd

from suture.results.table import format_csv


def test_csv_text_is_exact():
    table = pd.DataFrame({"a": [0.1 + 0.2, np.nan], "b": ["x,y", "q\"\n\r"], "n": [1, 2]})
    assert format_csv(table) == 'a,b,n\n0.30000000000000004,"x,y",1\n,"q""\n\r",2\n'
