"""Gram matrices of examples, and HSIC from them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from suture.indices.definition import LEAST_EXAMPLES

# Features in one block: this keeps the centred copy small and the sums of float32 products short.
_COLUMNS_AT_ONCE = 8192


def split_columns(rows: Tensor) -> tuple[Tensor, ...]:
    """Split the columns into blocks, as views."""
    return torch.split(rows, _COLUMNS_AT_ONCE, 1)


def count_working_bytes(rows: int, width: int, precision: torch.dtype) -> int:
    """Count the bytes of `compute_gram` without its result: a centred block and two copies of its product."""
    return precision.itemsize * rows * min(_COLUMNS_AT_ONCE, width) + (precision.itemsize + 8) * rows**2


@dataclass(frozen=True)
class Hsic:
    """HSIC of one cell, up to a factor: of source and target (`xy`), and of each with itself (`xx`, `yy`).

    Unbiased `xx` and `yy` up to `floor_x` and `floor_y` may be rounding alone.
    """

    xy: float
    xx: float
    yy: float
    floor_x: float = 0.0
    floor_y: float = 0.0


@dataclass(frozen=True)
class Kernels:
    """HSIC of the flattened examples of one cell, from which CKA is computed.

    Attributes:
        n: number of examples.
        constant: the sides ("source", "target") that do not vary.
        biased, unbiased: HSIC of all examples at once or summed over minibatches. `unbiased` is nan for fewer
            than `LEAST_EXAMPLES`.
    """

    n: int
    constant: tuple[str, ...]
    biased: Hsic
    unbiased: Hsic


def compute_gram(rows: Tensor) -> Tensor:
    """Compute the centred Gram matrix (n, n) of rows (n, features), in float64; its rows sum to zero."""
    total = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for part in split_columns(rows):
        centred = part - part.mean(0)
        total += (centred @ centred.T).cpu().double()
    # Removes what the rounding of the mean left.
    total -= total.mean(0)
    return total - total.mean(1, keepdim=True)


def _compute_both(pairs: Iterable[tuple[Tensor, Tensor]], n: int) -> Tensor:
    """Compute tr(KHLH) and the unbiased HSIC (Song et al. 2012) of each of m pairs, (2, m).

    Rows of the Gram matrices sum to zero, so without the diagonals k and l they sum to -k and -l. The
    unbiased estimator then needs only tr(KHLH), sum k, sum l and sum kl.
    """
    sums = []
    for a, b in pairs:
        k, m = a.diagonal().clone(), b.diagonal().clone()
        sums.append((a.flatten() @ b.flatten(), k @ m, k.sum() * m.sum()))
    products, joint, traces = torch.tensor(sums, dtype=torch.float64).T
    if n < LEAST_EXAMPLES:
        return torch.stack([products, torch.full_like(products, math.nan)])
    return torch.stack([products, (products - joint + traces / ((n - 1) * (n - 2)) - 2 * joint / (n - 2))
                        / (n * (n - 3))])


def compute_hsic(xs: Sequence[Tensor], ys: Sequence[Tensor], precision: torch.dtype) -> Tensor:
    """Compute HSIC of S sources and T targets from the Gram matrices of the same examples, (2, 5, S, T).

    The first axis is biased (times (n - 1)²) and unbiased HSIC, the second the fields of `Hsic`. `precision`
    is the dtype of the products, which sets the size of rounding.
    """
    n = len(xs[0])
    cross = _compute_both(product(xs, ys), n).view(2, len(xs), len(ys))
    own_x, own_y = (_compute_both(zip(side, side, strict=True), n) for side in (xs, ys))
    scale, eps = n / (n - 3) if n >= LEAST_EXAMPLES else math.nan, torch.finfo(precision).eps
    floor_x, floor_y = (scale * (4 * eps * torch.stack([g.diagonal().clone().mean() for g in side])).square()
                        for side in (xs, ys))
    parts = cross, own_x[:, :, None], own_y[:, None], floor_x[:, None], floor_y
    return torch.stack([part.expand_as(cross) for part in parts], 1)
