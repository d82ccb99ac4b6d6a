"""Do distances follow what networks are able to do? Ding's statistic, and tests 1 and 2 of ReSi."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np

from suture.numbers import Floats, Ints
from suture.studies.measure_tests.battery.layer_tests import missing
from suture.studies.measure_tests.battery.rank_correlations import correlate_with_best
from suture.studies.measure_tests.network_statistics import (
    DRAWS,
    FEWEST,
    attenuate,
    average_known,
    compare_with_null,
    decide,
    find_correlation_power,
)
from suture.studies.measure_tests.population_cells import PopulationCells
from suture.studies.measure_tests.record import TestOutcome
from suture.studies.network_study.inference import NetworkPairs, correlate_pairs

FUNCTION, FUNCTION_KENDALL = "function", "function (Kendall)"
ACCURACIES = "accuracy difference"
OUTPUTS, DIVERGENCES = "disagreement", "output divergence"
RELEVANT = 0.5
"""Rank correlation that the power is for, large by Cohen (1988)."""
NO_POWER = "accuracies are closer than their binomial error"


def check_function(cells: PopulationCells, function: Floats, reliability: float, seed: int = 0
                   ) -> tuple[TestOutcome, TestOutcome]:
    """Check that networks further from the best one are able to do less like it (Ding et al. 2021).

    For each layer the reference A* is the network of the largest function F there. d(A*, A_i) is correlated
    with |F(A*) - F(A_i)| over all networks, A* included, as in the published code, and the mean is taken over
    layers. Distances of both directions are averaged. The published p, the mean over layers of one-sided
    p-values of independent points, is no p-value of anything; p is over permutations of the networks, which
    are the same at all layers, with the reference chosen anew.

    Args:
        function: (N, L), such as the accuracy of each network, or of a probe at each layer.
        reliability: share of the variance of the function that is not noise; nan if unknown.
    """
    both = np.stack([cells.similarity, cells.similarity.transpose(1, 0, 3, 2)])
    at = np.diagonal(both, axis1=3, axis2=4)  # (2, N, N, L)
    known = ~np.isnan(at)
    distance = -np.where(known.any(0), np.where(known, at, 0).sum(0) / np.maximum(known.sum(0), 1), np.nan)
    layers = [k for k in range(cells.depth) if not np.isnan(distance[..., k]).any()
              and not np.isnan(function[:, k]).any()]
    if cells.n < 4 or not layers:
        why = (f"it needs 4 networks, got {cells.n}" if cells.n < 4 else
               "no layer has values and a function of all networks, each with itself")
        return tuple(missing(test, cells, unit, 0.0, why) for test, unit in
                     ((FUNCTION, "Spearman"), (FUNCTION_KENDALL, "Kendall")))  # type: ignore[return-value]
    orders = _list_orders(cells.n, seed)
    each = np.ones((1, cells.n))
    drawn = _draw_weights(cells.n, seed)
    found, null, resampled = (np.stack([np.stack(correlate_with_best(
        distance[..., k], function[:, k], o, w)) for k in layers])
        for o, w in ((orders[:1], each), (orders, np.broadcast_to(each, orders.shape)),
                     (np.broadcast_to(np.arange(cells.n), drawn.shape), drawn)))
    power = find_correlation_power(cells.n - 1, attenuate(RELEVANT, reliability)
                                   if not math.isnan(reliability) else RELEVANT)
    naive = _compute_published_p(distance, function, layers)
    return tuple(_describe(cells, number, found, null, resampled, power, naive[number], reliability)
                 for number in (0, 1))  # type: ignore[return-value]


def _list_orders(n: int, seed: int) -> Ints:
    """Return permutations of the networks, the natural order first: all of them if they are few."""
    if math.factorial(n) <= DRAWS:
        return np.array(list(permutations(range(n))), dtype=np.int64)
    rng = np.random.default_rng(seed)
    return np.stack([np.arange(n), *(rng.permutation(n) for _ in range(DRAWS - 1))])


def _draw_weights(n: int, seed: int) -> Floats:
    """Draw how often each network counts, at least `FEWEST` different ones."""
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=DRAWS).astype(np.float64)
    return np.asarray(drawn[(drawn > 0).sum(1) >= FEWEST])


def _compute_published_p(distance: Floats, function: Floats, layers: list[int]) -> tuple[float, float]:
    """Return the mean over layers of one-sided p-values, as the published code has them."""
    from scipy import stats

    found = []
    for k in layers:
        best = int(function[:, k].argmax())
        x, y = distance[best, :, k], np.abs(function[:, k] - function[best, k])
        if len(set(x)) > 1 and len(set(y)) > 1:
            pair = stats.spearmanr(x, y), stats.kendalltau(x, y)
            found.append([of.pvalue / 2 if of.statistic > 0 else 1 - of.pvalue / 2 for of in pair])
    both = np.mean(found, axis=0) if found else (math.nan, math.nan)
    return float(both[0]), float(both[1])


def _describe(cells: PopulationCells, number: int, found: Floats, null: Floats, resampled: Floats,
              power: float, naive: float, reliability: float) -> TestOutcome:
    test, unit = ((FUNCTION, "Spearman"), (FUNCTION_KENDALL, "Kendall"))[number]
    values = found[:, number, 0]
    if np.isnan(values).any():
        return missing(test, cells, unit, 0.0, "distances or functions are all alike at some layer")
    value, by_chance = float(values.mean()), average_known(null[:, number])
    p = compare_with_null(value, by_chance, whole=True)  # the natural order is among them
    drawn = average_known(resampled[:, number])
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    chance = float(average_known(by_chance, None))
    weak = not math.isnan(reliability) and reliability <= 0
    return TestOutcome(test, cells.measure, value, float(low), float(high), p, power, cells.n, unit, chance,
                       decide(p, power),
                       f"{cells.label}: distance from the best network and difference in function have "
                       f"{unit}'s "
                       f"correlation {value:.2f} (by chance {chance:.2f}, because the reference is among the "
                       f"points; p = {p:.2g} over permutations of {cells.n} networks; the published p is "
                       f"{naive:.2g}).", NO_POWER if weak else "")


def check_differences(cells: PopulationCells, test: str, differences: Floats, power: float, seed: int = 0
                      ) -> TestOutcome:
    """Check that pairs of networks that differ more are further apart at the last layer (ReSi 1 and 2).

    Source: Klabunde et al. 2024, tests 1 (accuracy) and 2 (outputs).

    Args:
        differences: (N, N) of the networks, such as of their accuracies.
    """
    pairs = _take_last_layer(cells)
    if pairs.used < FEWEST or len(pairs.a) < FEWEST:
        return missing(test, cells, "Spearman", 0.0,
                       f"it needs {FEWEST} networks with values at the last layer, got {pairs.used}")
    rho, low, high, p = correlate_pairs(pairs, differences, seed)
    if math.isnan(rho):
        return missing(test, cells, "Spearman", 0.0, "all pairs of networks are alike")
    found = decide(p, power)
    return TestOutcome(test, cells.measure, rho, low, high, p, power, cells.n, "Spearman", 0.0,
                       False if found and rho < 0 else found,
                       f"{cells.label}: distance at {cells.layers[-1]} and {test} of two networks have "
                       "Spearman's "
                       f"correlation {rho:.2f} (two-sided p = {p:.2g} over permutations of {pairs.used} "
                       "networks).", "" if not math.isnan(low) else f"{pairs.used} networks are too few")


def _take_last_layer(cells: PopulationCells) -> NetworkPairs:
    """Return the distance of each pair of networks at the last layer."""
    import pandas as pd

    return NetworkPairs.of(pd.DataFrame(-cells.corresponding[..., -1]))
