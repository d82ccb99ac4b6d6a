"""The sanity battery over a population: own layers, corresponding layers, depth, order of arguments."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product

import numpy as np

from suture.indices import INDICES
from suture.numbers import Floats, Ints, get_base_name, get_measure
from suture.studies.measure_tests.battery.violations import Place, Violations, find_violations, relate
from suture.studies.measure_tests.network_statistics import (
    FEWEST,
    LEVEL,
    average_known,
    bound,
    break_ties,
    compare_with_null,
    decide,
    draw_orders,
    find_correlation_power,
    find_share_power,
    leave_each_out,
)
from suture.studies.measure_tests.population_cells import PopulationCells
from suture.studies.measure_tests.record import TestOutcome

SELF, BY_TARGET, BY_SOURCE = "self", "correspondence", "correspondence by source"
DEPTH, DEPTH_ORDER, ARGUMENTS = "depth", "depth violations", "argument order"
_RELEVANT_DEPTH = 0.5
_FLIP = 1e-9


def missing(test: str, cells: PopulationCells, unit: str, chance: float, reason: str) -> TestOutcome:
    """Return the outcome of a test that a measure cannot take, with the reason."""
    nan = math.nan
    return TestOutcome(test, cells.measure, nan, nan, nan, nan, nan, cells.n, unit, chance, None,
                       f"Not tested: {reason}.", reason)


def check_self(cells: PopulationCells, seed: int = 0) -> TestOutcome:
    """Check that each layer is most similar to itself, among the layers of its network."""
    violations = find_violations(cells, relate(cells, _list_own(cells, [(k, k) for k in range(cells.n)])))
    return _judge_nearest(SELF, cells, cells.own, violations, seed, "of its own network")


def check_correspondence(cells: PopulationCells, by: str = BY_TARGET, seed: int = 0) -> TestOutcome:
    """Check that the corresponding layer of another network is the most similar one, in one direction."""
    if cells.n < 2:
        return missing(by, cells, "share", 1 / cells.depth, "it needs several networks, got 1")
    others = cells.others if by == BY_TARGET else cells.others.transpose(0, 1, 3, 2)
    pairs = [(i, j) for i, j in product(range(cells.n), repeat=2) if i != j and (i, j) in cells.comparisons]
    violations = find_violations(cells, relate(cells, _list_own(cells, pairs, by)))
    side = "source" if by == BY_TARGET else "target"
    return _judge_nearest(by, cells, others, violations, seed, f"among {side} layers")


def _list_own(cells: PopulationCells, pairs: list[tuple[int, int]], by: str = BY_TARGET
              ) -> Iterator[tuple[Place, list[Place]]]:
    layers = range(cells.depth)
    for (i, j), t in product(pairs, layers):
        yield (i, j, t, t), [(i, j, s, t) if by == BY_TARGET else (i, j, t, s) for s in layers if s != t]


def _judge_nearest(test: str, cells: PopulationCells, blocks: Floats, violations: Violations, seed: int,
                   among: str) -> TestOutcome:
    """Judge how often the row of a column's own layer is its largest; blocks are (networks..., L, L)."""
    chance = 1 / cells.depth
    if cells.depth < 2 or not violations.relations:
        return missing(test, cells, "share", chance,
                       "a single layer has no other" if cells.depth < 2 else "no layer has values to compare")
    nearest, ranks = _rank_rows(blocks)
    hits = np.diagonal(nearest, axis1=-2, axis2=-1)
    value = float(average_known(hits, None))
    low, high, reason = bound(value, leave_each_out(cells.n, lambda kept: _average(hits, kept)), cells.depth)
    both = break_ties(nearest, ranks)
    found = float(average_known(np.diagonal(both, axis1=-2, axis2=-1), None))
    p = compare_with_null(found, _permute(both, draw_orders(cells.n, cells.depth, seed)))
    own, broken = test == SELF, len(violations.counted)
    power = find_layer_power(cells, chance, cells.n if own else cells.n - 1)
    passed = False if own and broken else decide(p, power)
    if not own and passed and 2 * broken > len(violations.relations):
        passed = None  # above chance, but most layers are nearer to another one
    what = "each layer is the most similar one to itself" if own else "the corresponding layer is nearest"
    return TestOutcome(
        test, cells.measure, value, low, high, p, power, cells.n, "share", chance, passed,
        f"{cells.label}: {what} in {value:.0%} of the cases {among} (chance {chance:.0%}, p = {p:.2g} over "
        f"orders of the layers of each network); {violations.describe()}.", reason)


def find_layer_power(cells: PopulationCells, chance: float, independent: int) -> float:
    """Return the power to find a share halfway between chance and 1, of so many independent networks.

    It is 0 where even the best outcome is one of fewer than 20 orders of layers.
    """
    orders = math.factorial(cells.depth) ** independent
    return find_share_power(independent * cells.depth, chance) if 1 / orders <= LEVEL else 0.0


def _rank_rows(blocks: Floats) -> tuple[Floats, Floats]:
    """Return for each cell (..., L, L) if it is larger than all others of its column, and its centred rank.

    A tie is no hit. nan where the cell or all others are missing.
    """
    known = ~np.isnan(blocks)
    counts = known.sum(-2, keepdims=True) - 1
    below = (blocks[..., None, :, :] < blocks[..., :, None, :]).sum(-2)
    equal = (blocks[..., None, :, :] == blocks[..., :, None, :]).sum(-2) - 1
    known &= counts > 0
    return (np.where(known, below == counts, np.nan),
            np.where(known, 2 * (below + equal / 2) / np.maximum(counts, 1) - 1, np.nan))


def _average(values: Floats, kept: Ints) -> float:
    """Return the mean over some networks of values (N, L), or over their pairs of values (N, N, L)."""
    some = values[kept] if values.ndim == 2 else values[np.ix_(kept, kept)]
    return float(average_known(some, None))


def _permute(blocks: Floats, orders: Ints) -> Floats:
    """Return the mean over own cells where layers of each network are named in other orders (draws, N, L).

    Of a network with itself one side is renamed only.
    """
    _, n, depth = orders.shape
    if blocks.ndim == 3:
        return average_known(blocks[np.arange(n)[:, None], orders, np.arange(depth)], (1, 2))
    k = np.arange(n)
    moved = [average_known(blocks[k[:, None, None], k[:, None], order[:, None], order], None)
             for order in orders]
    return np.array(moved)


def check_depth(cells: PopulationCells, seed: int = 0) -> tuple[TestOutcome, TestOutcome]:
    """Check that similarity falls with the distance of two layers of a network: Spearman, and violations.

    The first is the mean over networks of the rank correlation of similarity and distance of different
    layers. The second is the share of pairs of cells of one target layer, on one side of it, of which the
    further one is more similar.
    """
    if cells.depth < 3:
        return tuple(missing(test, cells, unit, chance, f"{cells.depth} layers have no order")
                     for test, unit, chance in ((DEPTH, "Spearman", 0.0), (DEPTH_ORDER, "share", 0.5))
                     )  # type: ignore[return-value]
    return _judge_depth(cells, seed), _judge_depth_order(cells, seed)


def _judge_depth(cells: PopulationCells, seed: int) -> TestOutcome:
    orders = np.concatenate([np.tile(np.arange(cells.depth), (1, cells.n, 1)),
                             draw_orders(cells.n, cells.depth, seed)])
    each = np.stack([_correlate(block, orders[:, k]) for k, block in enumerate(cells.own)])
    if np.isnan(each[:, 0]).all():
        return missing(DEPTH, cells, "Spearman", 0.0, "no network has values that vary")
    means = average_known(each)
    value = float(means[0])
    low, high, reason = bound(value, leave_each_out(cells.n, lambda kept: float(np.mean(each[kept, 0]))),
                              cells.depth, -1.0)
    p = compare_with_null(-value, -means[1:])
    power = find_correlation_power(math.comb(cells.depth, 2), _RELEVANT_DEPTH, cells.n)
    return TestOutcome(DEPTH, cells.measure, value, low, high, p, power, cells.n, "Spearman", 0.0,
                       decide(p, power),
                       f"{cells.label}: similarity and distance of two layers have a rank correlation of "
                       f"{value:.2f}, mean of {cells.n} networks (p = {p:.2g} over orders of the layers of "
                       "each network).", reason)


def _correlate(block: Floats, orders: Ints) -> Floats:
    """Return Spearman's correlation of cells off the diagonal with the distance of layers, for each order."""
    from scipy.stats import rankdata

    rows, columns = np.nonzero(~np.eye(len(block), dtype=bool) & ~np.isnan(block))
    if len(rows) < FEWEST:
        return np.full(len(orders), np.nan)
    a = rankdata(block[rows, columns])
    b = rankdata(np.abs(orders[:, rows] - orders[:, columns]), axis=1)
    a, b = a - a.mean(), b - b.mean(1, keepdims=True)
    scale = np.sqrt((a @ a) * (b * b).sum(1))
    return np.asarray(np.where(scale > 0, b @ a, np.nan) / np.where(scale > 0, scale, 1))


def _judge_depth_order(cells: PopulationCells, seed: int) -> TestOutcome:
    layers = range(cells.depth)
    wanted = [((k, k, near, t), [(k, k, far, t)]) for k in range(cells.n) for t, near, far in
              product(layers, repeat=3) if t < near < far or far < near < t]
    found = find_violations(cells, relate(cells, wanted))
    if not found.relations:
        return missing(DEPTH_ORDER, cells, "share", 0.5, "no layer has values to compare")
    counted = set(found.counted)
    networks = np.array([r.more[0] for r in found.relations])
    broken = np.array([k in counted for k in range(len(networks))])
    value = float(broken.mean())
    low, high, reason = bound(value, leave_each_out(cells.n, lambda kept: (
        float(broken[np.isin(networks, kept)].mean()) if np.isin(networks, kept).any() else math.nan)),
        cells.depth)
    shares = _count_orders(cells.own, draw_orders(cells.n, cells.depth, seed))
    raw = len(found.broken) / len(found.relations)
    p = compare_with_null(-raw, -shares)
    return TestOutcome(DEPTH_ORDER, cells.measure, value, low, high, p, math.nan, cells.n, "share", 0.5,
                       decide(p, math.nan),
                       f"{cells.label}: of two layers on one side of a layer, the further one is more "
                       "similar "
                       f"in {value:.0%} of the cases (p = {p:.2g} over orders of the layers of each "
                       "network); "
                       f"{found.describe()}.", reason)


def _count_orders(own: Floats, orders: Ints) -> Floats:
    """Return the share of pairs of cells whose further one is more similar, for each order (draws, N, L)."""
    further = own[:, :, None] > own[:, None]  # (N, far, near, target)
    known = ~np.isnan(own[:, :, None] + own[:, None])
    found = []
    for order in orders:
        far, near, target = order[:, :, None, None], order[:, None, :, None], order[:, None, None]
        placed = known & (((target < near) & (near < far)) | ((far < near) & (near < target)))
        found.append(further[placed].mean() if placed.any() else math.nan)
    return np.array(found)


def check_argument_order(cells: PopulationCells) -> TestOutcome:
    """Check if a measure says the same of which of two layers is nearer when its arguments change places.

    The effect is the share of triples (layer, two others) whose order turns round. It is missing where the
    study has one direction of a pair only.
    """
    s, layers = cells.similarity, range(cells.depth)
    flips = list[tuple[int, int, bool]]()
    for i, j in product(range(cells.n), repeat=2):
        if not {(i, j), (j, i)} <= set(cells.comparisons):
            continue
        for t, a in product(layers, layers):
            for b in range(a + 1, cells.depth):
                one, other = s[i, j, a, t] - s[i, j, b, t], s[j, i, t, a] - s[j, i, t, b]
                if not np.isnan(one + other) and abs(one) > _FLIP and abs(other) > _FLIP:
                    flips.append((i, j, bool(one * other < 0)))
    if not flips:
        return missing(ARGUMENTS, cells, "share", math.nan, "no pair of networks has both directions")
    turned = np.array([flip for _, _, flip in flips])
    ends = np.array([(i, j) for i, j, _ in flips])
    value = float(turned.mean())

    def average(kept: Ints) -> float:
        inside = np.isin(ends, kept).all(1)
        return float(turned[inside].mean()) if inside.any() else math.nan

    low, high, reason = bound(value, leave_each_out(cells.n, average), cells.depth)
    entry = get_measure(cells.measure)
    base = get_base_name(entry.name)
    method, index = "." in base, INDICES.get(base)
    resized = not method and index is not None and bool(index.symmetric) and value > 0
    return TestOutcome(ARGUMENTS, cells.measure, value, low, high, math.nan, math.nan, cells.n, "share",
                       math.nan, None if method else value == 0,
                       f"{entry.label}: which of two layers is nearer turns round in {value:.0%} of "
                       f"{len(turned)} cases when the arguments change places"
                       + ("; stitching has a direction by design." if method else
                          "; its formula is symmetric, but maps of another size are resized to the target's."
                          if resized else "."),
                       reason or "a property of the measure has no null")
