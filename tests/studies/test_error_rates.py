"""Error rates: the rule that they are counted under is the one that suture judges by."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from suture.numbers import Estimate
from suture.results import (
    LABELS_ONLY,
    NOT_SHOWN,
    SIMILAR,
    UNPROVEN,
    CellEvidence,
    Criterion,
    judge_cell,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rates() -> Any:
    spec = importlib.util.spec_from_file_location("rates", ROOT / "checks" / "error_rates_report.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "rates", module)
        spec.loader.exec_module(module)
    return module


def find_verdict(row: dict[str, Any]) -> str:
    """Return the verdict that suture itself gives to a cell with these numbers."""
    def read(name: str, unit: float = 1) -> Estimate:
        value, low, high = (row[f"{name}{end}"] / unit for end in ("", "_low", "_high"))
        return Estimate(value, low, high, "not measured" if math.isnan(value) else "")

    mark = row["mark"] if isinstance(row["mark"], str) else ""
    found = CellEvidence(read("works"), read("distance", row["outer"]), read("free"), row["p"], mark)
    word = judge_cell(found, Criterion("relative_accuracy", 0.8, row["trivial"]))[0]
    return SIMILAR if row["native"] and word in (UNPROVEN, NOT_SHOWN, LABELS_ONLY) else word


def test_rates_are_counted_under_the_rule_of_suture(rates: Any) -> None:
    table: pd.DataFrame = rates.read(ROOT / "docs" / "controls-cells.csv.gz")
    got = rates.judge_table(table, rates.Rule())
    wanted = pd.Series([find_verdict(row) for row in table.to_dict("records")], table.index)
    assert len(table) > 1000
    assert got.equals(wanted), table[got != wanted]
