"""What the sensitivity test says about each measure, in one form for all tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from suture.numbers import Floats, estimate_batch_mean
from suture.results import LEVEL
from suture.studies.measure_tests.network_statistics import (
    FEWEST,
    bound,
    decide,
    find_mean_power,
    flip_signs,
    leave_each_out,
)
from suture.studies.measure_tests.record import TestOutcome
from suture.studies.sensitivity_test.seed_spread import LEVELS

if TYPE_CHECKING:
    import pandas as pd

RELEVANT = 0.5
"""Rank correlation that the test calls relevant."""
HALF, RELEVANT_SHARE = 0.5, 0.25
"""Share of the curves that a measure with no order to the probe notices, and what above it is relevant."""


def list_outcomes(detection: pd.DataFrame, correlations: pd.DataFrame) -> list[TestOutcome]:
    """Return the outcomes of every measure: what it notices, and its rank correlations with the probe."""
    found = []
    for measure in detection["measure"].unique():
        mine = detection[detection["measure"] == measure]
        found += [_describe_noticing(measure, level, mine[mine["threshold"] == level]) for level in LEVELS]
        of = correlations[correlations["measure"] == measure]
        found += [_describe_correlation(measure, kind, of) for kind in ("spearman", "kendall")]
    return found


def _average(table: pd.DataFrame, column: str) -> Floats:
    """Return the mean over the sites of each network that has any value."""
    known = table.dropna(subset=[column]).astype({column: float})
    return np.array(known.groupby("network", sort=False)[column].mean(), dtype=float)


def _describe_noticing(measure: str, level: str, table: pd.DataFrame) -> TestOutcome:
    test, values = f"sensitivity ({level})", _average(table, "noticed")
    if not len(values):
        reasons: Sequence[str] = [r for r in table["reason"] if r] or ["no curve"]
        return _make_missing(test, measure, "share", HALF, reasons[0])
    share, curves = float(values.mean()), int(table["noticed"].notna().sum())
    low, high, reason = bound(share, _leave_out(values), curves // len(values))
    p = flip_signs(values - HALF)
    passed = True if p <= LEVEL else False if flip_signs(HALF - values) <= LEVEL else None
    power = find_mean_power(values, RELEVANT_SHARE, LEVEL)
    interval = _show(low, high, ".0%")
    sentence = (f"In {share:.0%} of {curves} curves{interval} {measure} exceeds the {level} of "
                f"the distances between seeds no later than the probe changes, p = {p:.2g} against half of "
                f"them over {len(values)} networks; curves whose probe stays are left out.")
    return TestOutcome(test, measure, share, low, high, p, power, len(values), "share", HALF, passed,
                       sentence, reason or _explain_few(values))


def _describe_correlation(measure: str, kind: str, table: pd.DataFrame) -> TestOutcome:
    name = {"spearman": "Spearman", "kendall": "Kendall"}[kind]
    test, values = f"sensitivity ({name})", _average(table, kind)
    if not len(values):
        reasons = [r for r in table["reason"] if r] or ["no curve"]
        return _make_missing(test, measure, name, 0.0, reasons[0])
    effect, (low, high, reason) = float(values.mean()), _find_interval(values)
    p, power = flip_signs(values), find_mean_power(values, RELEVANT, LEVEL)
    sentence = (f"Over the ranks of a site, {name}'s correlation of {measure} with the change of the probe "
                f"is {effect:.2f}{_show(low, high, '.2f')}, p = {p:.2g} over signs of {len(values)} "
                "networks; every measure that falls with the rank has some of it.")
    return TestOutcome(test, measure, effect, low, high, p, power, len(values), name, 0.0,
                       decide(p, power), sentence, reason or _explain_few(values))


def _find_interval(values: Floats) -> tuple[float, float, str]:
    """Return Student's t interval of a mean correlation over networks, or the reason why there is none."""
    if len(values) < FEWEST:
        return math.nan, math.nan, f"{len(values)} networks: an interval needs {FEWEST}"
    e = estimate_batch_mean(values)
    return max(-1.0, e.low), min(1.0, e.high), ""


def _leave_out(values: Floats) -> Floats:
    """Return the mean over networks without each of them."""
    return leave_each_out(len(values), lambda rest: float(values[rest].mean()) if len(rest) else math.nan)


def _make_missing(test: str, measure: str, unit: str, chance: float, reason: str) -> TestOutcome:
    nan = math.nan
    return TestOutcome(test, measure, nan, nan, nan, nan, nan, 0, unit, chance, None,
                       f"{test} of {measure} is not known: {reason}.", reason)


def _explain_few(values: Floats) -> str:
    """Return why so many networks decide nothing; "" if they can."""
    least = 0.5**len(values)
    return f"{len(values)} networks allow no p below {least:.2g}" if least > LEVEL else ""


def _show(low: float, high: float, form: str) -> str:
    return "" if math.isnan(low) else f" ({low:{form}} to {high:{form}})"
