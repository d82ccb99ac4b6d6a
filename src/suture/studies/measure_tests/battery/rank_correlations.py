"""Rank correlations of many weighted samples at once."""

from __future__ import annotations

import numpy as np

from suture.numbers import Floats, Ints

_MOST = 1_000_000
"""Numbers of one array of pairs of points, 8 MB."""


def correlate_ranks(x: Floats, y: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Return Spearman's rho and Kendall's tau-b of samples (D, N), each point counted `weights` times.

    Ties share the mean of their ranks. nan where either side does not vary.
    """
    signs = [np.sign(of[:, :, None] - of[:, None, :]) for of in (x, y)]
    ranks = [np.einsum("dij,dj->di", (sign + 1) / 2, weights) for sign in signs]
    total = weights.sum(1, keepdims=True)
    a, b = (r - (weights * r).sum(1, keepdims=True) / total for r in ranks)
    rho = _divide((weights * a * b).sum(1), (weights * a**2).sum(1) * (weights * b**2).sum(1))
    both = weights[:, :, None] * weights[:, None, :]
    tau = _divide((both * signs[0] * signs[1]).sum((1, 2)),
                  (both * signs[0] ** 2).sum((1, 2)) * (both * signs[1] ** 2).sum((1, 2)))
    return rho, tau


def _divide(top: Floats, square: Floats) -> Floats:
    scale = np.sqrt(square)
    return np.asarray(np.where(scale > 1e-12, top, np.nan) / np.where(scale > 1e-12, scale, 1))


def correlate_with_best(distance: Floats, function: Floats, orders: Ints, weights: Floats
                        ) -> tuple[Floats, Floats]:
    """Return rho and tau of Ding's statistic for samples of networks.

    The reference is the network of the largest `function`. Its distances to all networks, itself included,
    are correlated with the differences of their function, as in the published code.

    Args:
        distance: (N, N) of one layer.
        function: (N,) what each network is able to do.
        orders: (D, N) whose function each network is given; the natural order for none.
        weights: (D, N) how often each network counts. The reference counts once.
    """
    given = function[orders]
    best = np.where(weights > 0, given, -np.inf).argmax(1)
    draws = np.arange(len(orders))
    once = weights.copy()
    once[draws, best] = 1
    x, y = distance[best], np.abs(given - given[draws, best][:, None])
    step = max(1, _MOST // function.size**2)
    parts = [correlate_ranks(*(of[k:k + step] for of in (x, y, once))) for k in range(0, len(x), step)]
    return np.concatenate([rho for rho, _ in parts]), np.concatenate([tau for _, tau in parts])


def separate_pairs(scores: Floats, positive: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Return the AUROC and the average precision of finding the positive among scores (P,).

    Args:
        positive: (D, P), 1 for a positive one, else 0.
        weights: (D, P), how often each counts.

    Returns:
        AUROC (D,), of ties half; average precision (D,), where equal scores are found together. nan without
        positive or without negative ones.
    """
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.nan) != 0)
    found, rest = (np.add.reduceat((weights * of)[:, order], starts, axis=1)
                   for of in (positive, 1 - positive))
    hits, misses = found.cumsum(1), rest.cumsum(1)
    total, others = hits[:, -1], misses[:, -1]
    known = (total > 0) & (others > 0)
    scale = np.where(known, total * others, 1)
    area = (found * (others[:, None] - misses + rest / 2)).sum(1) / scale
    seen = hits + misses
    precision = (found * hits / np.where(seen > 0, seen, 1)).sum(1) / np.where(total > 0, total, 1)
    return np.where(known, area, np.nan), np.where(known, precision, np.nan)
