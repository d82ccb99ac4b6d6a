"""Tests if one layer is more similar to a layer than another, beyond noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from suture._base import SutureError
from suture.numbers import (
    RECORDS,
    Floats,
    Measure,
    build_record,
    estimate_difference,
    mcnemar,
    name_runs,
)
from suture.results.measured import Measured

SIGNIFICANCE_LEVEL = 0.05
CellPlace = tuple[int, int]
"""Source site and target site of a cell."""
HITS = {quantity: arrays[0] for quantity, arrays in RECORDS.items() if arrays[0] in ("correct", "agree")}
"""Quantities that count hits, with the array of the hits."""


@dataclass(frozen=True)
class Contest:
    """Contest of a layer's own (or corresponding) partner with the most similar other one, the rival.

    Positions are along the axes of the matrix; `margin` is by how much the rival is more similar, `lost` says
    that this exceeds rounding, and `others` counts the other partners with a value. `marked` says that the
    outcome rests on marked cells: those of the layer and of every more similar partner, or, where the layer
    itself is the most similar one, of any partner.
    """

    layer: int
    own: int
    rival: int
    margin: float
    lost: bool
    others: int
    marked: bool


@dataclass(frozen=True)
class NoiseTest:
    """A test of two cells by their results per example, by its `name`, against the `noise` that it knows.

    `compute` returns the p value of two cells (source site, target site).
    """

    name: str
    noise: str
    compute: Callable[[CellPlace, CellPlace], float]


def choose_test(entry: Measure, shape: tuple[int, ...], measured: Measured) -> NoiseTest | None:
    """Return the test of a functional measure that counts hits per example, or None."""
    method, _, quantity = entry.name.partition(".")
    name, arrays = f"{method}.{HITS.get(quantity, '')}", measured.arrays
    if not entry.functional or name not in arrays:
        return None
    outcomes = arrays[name]
    if outcomes.ndim != 3 or outcomes.shape[:2] != shape:
        raise SutureError(f"expected array {name!r} of shape (sources, targets, examples) = "
                          f"({shape[0]}, {shape[1]}, N), got {outcomes.shape}")
    if name_runs(entry.name) in arrays:
        return NoiseTest("t over examples and initialisations", "noise of the test set and initialisations",
                     lambda a, b: estimate_difference(build_record(arrays, entry.name, *a),
                                                      build_record(arrays, entry.name, *b)).p)
    return NoiseTest("McNemar" if outcomes.dtype == np.bool_ else "Wilcoxon over texts", "test-set noise",
                 lambda a, b: compute_p_value(outcomes[a], outcomes[b]))


def compute_p_value(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """Compute the p value of equal (N,) outcomes in two cells: hits, or numbers of tokens."""
    from scipy import stats

    if one.dtype == np.bool_:
        return mcnemar(one, other)
    return float(stats.wilcoxon(one, other).pvalue) if (one != other).any() else 1.0


def find_chance_of_rivals(contest: Contest, values: Floats, test: NoiseTest) -> float:
    """Return the smallest p value of the rivals of a lost contest, times the number of others (Bonferroni).

    Larger `values` are more similar, and those of marked cells NaN.
    """
    column = values[:, contest.layer]
    smallest = min(test.compute((contest.own, contest.layer), (i, contest.layer))
                   for i in range(len(column)) if column[i] > column[contest.own])
    return min(1.0, smallest * contest.others)


def count_beyond_noise(lost: Sequence[Contest], values: Floats, test: NoiseTest) -> int:
    """Count the lost contests that survive Holm's (1979) procedure; larger `values` are more similar."""
    chances = [find_chance_of_rivals(contest, values, test) for contest in lost]
    for done, chance in enumerate(sorted(chances)):
        if not chance * (len(chances) - done) < SIGNIFICANCE_LEVEL:
            return done
    return len(chances)
