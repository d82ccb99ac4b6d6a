"""Gram matrices of examples, and HSIC from them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from suture.indices.definition import LEAST_EXAMPLES

# Features in one block. It keeps the centred copy small and the sums of float32 products short.
_COLUMNS_AT_ONCE = 8192


def split_columns(rows: Tensor) -> tuple[Tensor, ...]:
    """Split the columns into blocks, as views, to be used one after the other."""
    return torch.split(rows, _COLUMNS_AT_ONCE, 1)


def count_working_bytes(rows: int, width: int, precision: torch.dtype) -> int:
    """Count the bytes that `Gram.of` uses beside its result.

    They hold one centred block, and its product in both precisions.
    """
    return precision.itemsize * rows * min(_COLUMNS_AT_ONCE, width) + (precision.itemsize + 8) * rows**2


@dataclass(frozen=True)
class Hsic:
    """HSIC of one cell, up to a factor.

    Attributes:
        xy: of source and target.
        xx, yy: of each with itself.
        floor_x, floor_y: unbiased `xx` and `yy` that rounding alone can give; values up to it hold no signal.
    """

    xy: float
    xx: float
    yy: float
    floor_x: float = 0.0
    floor_y: float = 0.0


@dataclass(frozen=True)
class Kernels:
    """Numbers that CKA of one cell needs of the Gram matrices of its flattened examples.

    Attributes:
        n: number of examples.
        constant: the sides ("source", "target") that are the same for all of them.
        biased, unbiased: HSIC, of all examples at once or summed over minibatches. The unbiased one is nan
            for fewer than `LEAST_EXAMPLES`.
    """

    n: int
    constant: tuple[str, ...]
    biased: Hsic
    unbiased: Hsic


@dataclass(frozen=True)
class Gram:
    """Gram matrix of one site's examples about their mean, in float64.

    Attributes:
        matrix: (n, n), rows and columns sum to zero.
        diagonal: (n,).
        rounding: size of the errors of its elements.
    """

    matrix: Tensor
    diagonal: Tensor
    rounding: float

    @classmethod
    def of(cls, rows: Tensor) -> Gram:
        """Compute the Gram matrix of rows (n, features)."""
        n = len(rows)
        total = torch.zeros(n, n, dtype=torch.float64)
        for part in split_columns(rows):
            centred = part - part.mean(0)
            total += (centred @ centred.T).cpu().double()
        # Removes what the rounding of the mean left.
        total -= total.mean(0)
        total -= total.mean(1, keepdim=True)
        diagonal = total.diagonal().clone()
        return cls(total, diagonal, 4 * torch.finfo(rows.dtype).eps * float(diagonal.mean()))


def _compute_both(pairs: Iterable[tuple[Gram, Gram]], n: int) -> Tensor:
    """Compute tr(KHLH) and the unbiased HSIC (Song et al. 2012) of each of m pairs, (2, m).

    Rows of the Gram matrices sum to zero. So without the diagonals k and l the row sums are -k and -l. The
    unbiased estimator then needs only tr(KHLH), sum k, sum l and sum kl.
    """
    sums = [(a.matrix.flatten() @ b.matrix.flatten(), a.diagonal @ b.diagonal,
             a.diagonal.sum() * b.diagonal.sum()) for a, b in pairs]
    products, joint, traces = torch.tensor(sums, dtype=torch.float64).T
    if n < LEAST_EXAMPLES:
        return torch.stack([products, torch.full_like(products, math.nan)])
    return torch.stack([products, (products - joint + traces / ((n - 1) * (n - 2)) - 2 * joint / (n - 2))
                        / (n * (n - 3))])


def compute_hsic(xs: Sequence[Gram], ys: Sequence[Gram]) -> Tensor:
    """Compute HSIC of S sources and T targets, (2, 5, S, T).

    First come the biased numbers (times (n - 1)²), then the unbiased ones; each has the fields of `Hsic`.
    """
    n = len(xs[0].diagonal)
    cross = _compute_both(product(xs, ys), n).view(2, len(xs), len(ys))
    own_x, own_y = (_compute_both(zip(side, side, strict=True), n) for side in (xs, ys))
    scale = n / (n - 3) if n >= LEAST_EXAMPLES else math.nan
    floor_x, floor_y = (scale * torch.tensor([g.rounding for g in side], dtype=torch.float64).square()
                        for side in (xs, ys))
    parts = cross, own_x[:, :, None], own_y[:, None], floor_x[:, None], floor_y
    return torch.stack([part.expand_as(cross) for part in parts], 1)
