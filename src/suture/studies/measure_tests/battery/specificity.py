"""Specificity: is a layer nearer to itself in another network than to other layers?"""

from __future__ import annotations

import math

import numpy as np

from suture.numbers import Floats, Ints, auroc
from suture.studies.measure_tests.battery.layer_tests import find_layer_power, missing
from suture.studies.measure_tests.network_statistics import (
    average_known,
    bound,
    compare_with_null,
    decide,
    draw_orders,
    leave_each_out,
)
from suture.studies.measure_tests.population_cells import PopulationCells
from suture.studies.measure_tests.record import TestOutcome

SPECIFICITY, GAPS = "specificity", "layer gaps within seed spread"


def check_specificity(cells: PopulationCells, seed: int = 0) -> TestOutcome:
    """Check that the same layer of two networks is nearer than different layers of them.

    Source: Ding, Denain and Steinhardt 2021 (specificity). The effect is the probability that the same layer
    of two networks is more similar than two different layers of two networks.
    """
    if cells.n < 2 or cells.depth < 2:
        return missing(SPECIFICITY, cells, "AUROC", 0.5,
                       f"it needs several networks and layers, got {cells.n} and {cells.depth}")
    others = cells.others
    value = _separate(others)
    if math.isnan(value):
        return missing(SPECIFICITY, cells, "AUROC", 0.5, "no pair of networks has values to compare")
    low, high, reason = bound(value, leave_each_out(
        cells.n, lambda kept: _separate(others[np.ix_(kept, kept)])), cells.depth)
    p = compare_with_null(value, _permute(others, draw_orders(cells.n, cells.depth, seed)))
    power = find_layer_power(cells, 0.5, cells.n - 1)
    return TestOutcome(SPECIFICITY, cells.measure, value, low, high, p, power, cells.n, "AUROC", 0.5,
                       decide(p, power),
                       f"{cells.label}: the same layer of two networks is nearer than two different layers "
                       "in "
                       f"{value:.0%} of the cases (chance 50%, p = {p:.2g} over orders of the layers of each "
                       "network).", reason)


def _separate(blocks: Floats) -> float:
    """Return the AUROC of corresponding layers among all, (..., L, L); nan without values."""
    own = np.diagonal(blocks, axis1=-2, axis2=-1).ravel()
    rest = blocks[..., ~np.eye(blocks.shape[-1], dtype=bool)].ravel()
    own, rest = own[~np.isnan(own)], rest[~np.isnan(rest)]
    return auroc(own, rest) if len(own) and len(rest) else math.nan


def _permute(blocks: Floats, orders: Ints) -> Floats:
    """Return the AUROC where the layers of each network are named in other orders (draws, N, L)."""
    from scipy.stats import rankdata

    known = ~np.isnan(blocks)
    ranks = np.zeros(blocks.shape)
    ranks[known] = rankdata(blocks[known])
    total, k, found = int(known.sum()), np.arange(len(blocks)), []
    for order in orders:
        places = k[:, None, None], k[:, None], order[:, None], order
        m = int(known[places].sum())
        found.append((ranks[places].sum() - m * (m + 1) / 2) / (m * (total - m))
                     if 0 < m < total else math.nan)
    return np.array(found)


def check_layer_gaps(cells: PopulationCells) -> TestOutcome:
    """Count the gaps between two layers of a network that are smaller than the spread over networks.

    The spread of a layer is the median similarity to the same layer of other networks; a gap that is more
    similar than that cannot be told from another seed. 0 is best.
    """
    if cells.n < 2 or cells.depth < 2:
        return missing(GAPS, cells, "share", math.nan,
                       f"it needs several networks and layers, got {cells.n} and {cells.depth}")
    corresponding = cells.corresponding
    have = (~np.isnan(corresponding)).any(1)
    spread = np.where(have, _take_median(corresponding), np.nan)
    apart = ~np.eye(cells.depth, dtype=bool)
    known = apart & ~np.isnan(cells.own) & ~np.isnan(spread)[:, :, None]
    within = np.where(known, cells.own > spread[:, :, None], np.nan)
    if not known.any():
        return missing(GAPS, cells, "share", math.nan, "no layer has values to compare")
    value = float(average_known(within, None))
    left_out = leave_each_out(cells.n, lambda kept: float(average_known(within[kept], None)))
    low, high, reason = bound(value, left_out, cells.depth)
    return TestOutcome(GAPS, cells.measure, value, low, high, math.nan, math.nan, cells.n, "share", math.nan,
                       None if math.isnan(high) else True if high < 0.5 else False if low > 0.5 else None,
                       f"{cells.label}: {value:.0%} of the gaps between two layers of a network are smaller "
                       "than "
                       "the median distance of the same layer to other networks (0 is best).",
                       reason or "the two kinds of distance have no common null")


def _take_median(corresponding: Floats) -> Floats:
    """Return the median (N, L) over the second axis; -inf where all are missing."""
    filled = np.where(np.isnan(corresponding).all(1, keepdims=True), -np.inf, corresponding)
    return np.asarray(np.nanmedian(filled, axis=1))
