"""Gram matrices of examples, and HSIC from them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

LEAST_EXAMPLES = 4
"""Smallest number of examples for the unbiased estimator of HSIC: it divides by n - 3."""
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
    """HSIC of one cell, summed over minibatches or of the kept examples.

    Attributes:
        xy: of source and target.
        xx, yy: of each with itself.
        floor_x, floor_y: unbiased `xx` and `yy` that rounding alone can give; values up to it hold no signal.
    """

    xy: float
    xx: float
    yy: float
    floor_x: float
    floor_y: float

    @property
    def alignment(self) -> float:
        """CKA from this HSIC: xy / sqrt(xx yy)."""
        return self.xy / math.sqrt(self.xx * self.yy)

    @property
    def flat(self) -> tuple[str, ...]:
        """The sides without signal."""
        sides = (("source", self.xx, self.floor_x), ("target", self.yy, self.floor_y))
        return tuple(name for name, own, floor in sides if own <= floor)


@dataclass(frozen=True)
class Kernels:
    """Numbers that CKA of one cell needs of the Gram matrices of its flattened examples.

    Attributes:
        n: number of examples seen.
        constant: the sides ("source", "target") that are the same for all examples.
        batch: examples in a minibatch; minibatch CKA depends on it.
        minibatches: number of minibatches used; the last one may be smaller.
        left_out: examples in a last minibatch that is too small for the unbiased estimator.
        minibatch: unbiased HSIC summed over minibatches.
        kept: number of first examples with full Gram matrices.
        kept_constant: the sides that are the same for all kept examples.
        biased, unbiased: HSIC of the kept examples, up to a factor; nan where they are too few.
    """

    n: int
    constant: tuple[str, ...]
    batch: int
    minibatches: int
    left_out: int
    minibatch: Hsic
    kept: int
    kept_constant: tuple[str, ...]
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


@dataclass(frozen=True)
class HsicTable:
    """HSIC of every cell (S, T), of each source and each target with itself, and their floors."""

    xy: Tensor
    xx: Tensor
    yy: Tensor
    floor_x: Tensor
    floor_y: Tensor

    @classmethod
    def from_value(cls, sources: int, targets: int, value: float = 0.0) -> HsicTable:
        """Make a table with one value everywhere."""
        shapes = (sources, targets), (sources,), (targets,), (sources,), (targets,)
        return cls(*(torch.full(shape, value, dtype=torch.float64) for shape in shapes))

    def __add__(self, other: HsicTable) -> HsicTable:
        return HsicTable(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def get_hsic(self, i: int, j: int) -> Hsic:
        """Return the HSIC of one cell."""
        return Hsic(*(float(t)
                      for t in (self.xy[i, j], self.xx[i], self.yy[j], self.floor_x[i], self.floor_y[j])))


def _compute_hsic(pairs: Iterable[tuple[Gram, Gram]], n: int) -> tuple[Tensor, Tensor]:
    """Compute tr(KHLH) and the unbiased HSIC (Song et al. 2012) of each pair.

    The unbiased one is nan for n below 4. Rows of the Gram matrices sum to zero. So without the diagonals k
    and l the row sums are -k and -l. The estimator then needs only tr(KHLH), sum k, sum l and sum kl.
    """
    sums = [(a.matrix.flatten() @ b.matrix.flatten(), a.diagonal @ b.diagonal,
             a.diagonal.sum() * b.diagonal.sum()) for a, b in pairs]
    products, joint, traces = torch.tensor(sums, dtype=torch.float64).T
    if n < LEAST_EXAMPLES:
        return products, torch.full_like(products, math.nan)
    return products, (products - joint + traces / ((n - 1) * (n - 2)) - 2 * joint / (n - 2)) / (n * (n - 3))


def compute_tables(xs: list[Gram], ys: list[Gram]) -> tuple[HsicTable, HsicTable]:
    """Compute biased (times (n - 1)²) and unbiased HSIC of every cell."""
    n = len(xs[0].diagonal)
    cross, own_x, own_y = (_compute_hsic(pairs, n) for pairs in (product(xs, ys), zip(xs, xs, strict=True),
                                                                 zip(ys, ys, strict=True)))
    scale = n / (n - 3) if n >= LEAST_EXAMPLES else math.nan
    floors = [scale * torch.tensor([g.rounding for g in side], dtype=torch.float64).square()
              for side in (xs, ys)]
    first, second = (HsicTable(cross[k].view(len(xs), len(ys)), own_x[k], own_y[k], *floors)
                     for k in range(2))
    return first, second
