"""Rows at unit length, and their sums."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from suture.numbers.moments import to_double


@dataclass(frozen=True)
class UnitRowSums:
    """Sums of `n` rows at unit length: `total` (p,) of x / |x| in float64, and the number of zero rows."""

    n: int
    total: Tensor
    zeros: int

    @classmethod
    def of(cls, x: Tensor) -> UnitRowSums:
        """Compute the sums of the unit rows of a matrix (n, p)."""
        norms = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        units = to_double(torch.where(norms > 0, x / norms, 0.0))
        return cls(len(x), units.sum(0), int((norms == 0).sum()))

    def merge(self, other: UnitRowSums) -> UnitRowSums:
        """Return the sums of the rows of both."""
        return UnitRowSums(self.n + other.n, self.total + other.total, self.zeros + other.zeros)


def standardise_rows(x: Tensor) -> Tensor:
    """Scale the rows of `x` (n, p) to mean 0 and length 1; rows that vary by rounding only become zeros."""
    mean = x.mean(1, keepdim=True)
    rest = x - mean
    floor = 8 * torch.finfo(x.dtype).eps * mean.abs() * x.shape[1] ** 0.5
    norms = torch.linalg.vector_norm(rest, dim=1, keepdim=True)
    return torch.where(norms > floor, rest / norms, 0.0)
