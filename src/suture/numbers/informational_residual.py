"""The informational residual: what a stitched representation lacks of the target's, within classes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from suture._base import expect
from suture.numbers.intervals import (
    FEW_DRAWS,
    Estimate,
    draw_counts,
    estimate_ratios,
    make_missing_estimate,
)

NULL_POINT = 1.6448536269514722
"""The normal distribution's 95 % point."""
_CONSTANT = 1e-12
FEWEST_PERMUTATIONS = 1000
"""Smallest number of permutations of a null: p-values below 0.001 take as many."""


@dataclass(frozen=True)
class InformationalResidual:
    """Share of the target's variance within classes that a stitched representation does not hold.

    Attributes:
        free: 1 - max(0, r)², r the correlation of S - S_c and T - T_c over all rows and channels: 0 where
            they are proportional, 1 where S shares nothing but the class. Free of offsets and of scale.
        strict: sum |S - T|² / sum |T - T_c|²: 1 where S is no better than the class mean T_c. No upper
            limit.
        null: the 5 % point of `free` when examples are permuted within classes; nan where there are fewer
            than `FEWEST_PERMUTATIONS`, or all permutations are equal.
        p: p-value of a `free` as small under these permutations; nan likewise.
    """

    free: Estimate
    strict: Estimate
    null: float = math.nan
    p: float = math.nan


def find_class_places(classes: Tensor, known: Tensor) -> Tensor:
    """Return the place of each class (n,) among the known ones (K,), each of them once; -1 for all others."""
    numbers = torch.arange(1, len(known) + 1, device=known.device)
    places: Tensor = ((classes[:, None] == known) * numbers).sum(1) - 1
    return places


def estimate_informational_residual(stitched: Tensor, native: Tensor, stitched_means: Tensor,
                                    native_means: Tensor, places: Tensor,
                                    seed: int = 0) -> InformationalResidual:
    """Estimate the informational residual of one cell, paired by example.

    The class means come from other examples. The null is that of all permutations of examples within classes:
    mean and variance of the sum of <S_e, T_e> in closed form (Hoeffding 1951), and a normal distribution.

    Args:
        stitched, native: S and T, (n, ...), equal shapes.
        stitched_means, native_means: (K, ...) means of K classes.
        places: (n,) place of each example's class among the K (`find_class_places`); examples without a mean
            of their class, -1, are left out.
        seed: of the bootstrap over examples.
    """
    expect(stitched.shape == native.shape and len(native) == len(places),
           f"representations of {len(places)} examples", f"{tuple(stitched.shape)} and {tuple(native.shape)}")
    has = places >= 0
    n, classes = int(has.sum()), places[has].to(native.device)
    s, t = (x.flatten(1)[has].double() for x in (stitched, native))
    own, other = (x - means.flatten(1).double()[classes]
                  for x, means in ((t, native_means), (s, stitched_means)))
    squares, theirs = own.square().sum(1), other.square().sum(1)
    spread = float((t - t.mean(0)).square().sum())
    if not n or float(squares.sum()) <= _CONSTANT * max(spread, _CONSTANT):
        missing = make_missing_estimate("the target's representation is constant within classes" if n
                                        else "no example has a class whose mean is known")
        return InformationalResidual(missing, missing)
    strict = estimate_ratios((s - t).square().sum(1)[None].cpu().numpy(), squares.cpu().numpy(), seed)[0]
    products = other @ own.T
    norm = math.sqrt(float(squares.sum() * theirs.sum()))
    if norm <= _CONSTANT * float(squares.sum()):
        return InformationalResidual(Estimate(1.0, 1.0, 1.0), strict, 1.0, 1.0)
    mean, deviation = _describe_permutations(products, classes)
    total = float(products.diagonal().sum())
    sums = torch.stack([products.diagonal(), theirs, squares]).cpu().numpy()
    drawn = draw_counts(n, seed, FEW_DRAWS) @ sums.T
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = 1 - np.clip(drawn[:, 0] / np.sqrt(drawn[:, 1] * drawn[:, 2]), 0, 1)**2
    low, high = (float(end) for end in np.nanpercentile(shares, [2.5, 97.5]))
    value = _to_share(total / norm)
    p = null = math.nan
    counts = torch.unique(classes, return_counts=True)[1]
    enough = float(torch.lgamma(counts.double() + 1).sum()) >= math.log(FEWEST_PERMUTATIONS)
    if enough and deviation <= _CONSTANT * norm:
        p, null = 1.0, value  # every permutation gives the same sum
    elif enough:
        p = 0.5 * math.erfc((total - mean) / deviation / math.sqrt(2))
        null = _to_share((mean + NULL_POINT * deviation) / norm)
    return InformationalResidual(Estimate(value, min(low, value), max(high, value)), strict, null, p)


def _to_share(correlation: float) -> float:
    return 1 - min(1.0, max(0.0, correlation))**2


def _describe_permutations(products: Tensor, classes: Tensor) -> tuple[float, float]:
    """Return mean and standard deviation of sum K[e, pi(e)] over permutations pi within classes."""
    mean = variance = 0.0
    for c in torch.unique(classes):
        rows = (classes == c).nonzero()[:, 0]
        k, m = products[rows][:, rows], len(rows)
        mean += float(k.sum()) / m
        if m > 1:
            centred = k - k.mean(0) - k.mean(1, keepdim=True) + k.mean()
            variance += float(centred.square().sum()) / (m - 1)
    return mean, math.sqrt(variance)
