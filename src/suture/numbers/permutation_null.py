"""Null of linear CKA and of RV in closed form: all permutations of the rows of one side, from moments.

The first two moments of tr(K P L P') over permutations P need of each side only the trace, the square norm
and the squared diagonal of its centred Gram matrix (Kazi-Aoual et al. 1995). A gamma distribution with these
two moments stands in for the whole null.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from suture.numbers.moments import Side

FEWEST_ROWS = 4
"""Smallest number of rows with a variance over permutations, which is divided by n - 3."""
_ROUNDING = 1e-12  # relative deviation of a mean that permutations do not change


@dataclass(frozen=True)
class PermutationNull:
    """Distribution of a value over permutations of rows: `mean`, `std`, and `shape` of a gamma distribution.

    The skewness is 2 / sqrt(`shape`).
    """

    mean: float
    std: float
    shape: float

    def compute_p_value(self, value: float) -> float:
        """Compute the share of permutations with at least this value; 1 where permutations change nothing."""
        from scipy import stats

        if self.std <= _ROUNDING * abs(self.mean):
            return 1.0
        return float(stats.gamma.sf(self._standardise(value), self.shape))

    def find_quantile(self, share: float) -> float:
        """Find the value below which this share of permutations lies."""
        from scipy import stats

        centred = float(stats.gamma.ppf(share, self.shape)) - self.shape
        return self.mean + self.std * centred / math.sqrt(self.shape)

    def calibrate(self, value: float, largest: float = 1.0, level: float = 0.05) -> float:
        """Map a value to 0 at the null's 1 - `level` point and to 1 at its largest; nan if they coincide.

        Below that point it is negative.
        """
        start = self.find_quantile(1 - level)
        return (value - start) / (largest - start) if largest > start else math.nan

    def _standardise(self, value: float) -> float:
        return self.shape + math.sqrt(self.shape) * (value - self.mean) / self.std


@dataclass(frozen=True)
class _Gram:
    """Trace, square norm and squared diagonal of a centred Gram matrix of `n` rows."""

    n: int
    trace: float
    norm: float
    diagonal: float

    @classmethod
    def of(cls, side: Side) -> _Gram:
        trace, norm = torch.trace(side.gram), side.gram.square().sum()
        return cls(side.n, float(trace), float(norm), float(side.quartic))

    @property
    def _spread(self) -> float:
        return (self.n - 1) * self.norm - self.trace**2

    @property
    def _peaks(self) -> float:
        n = self.n
        return n * (n + 1) * self.diagonal - (n - 1) * (self.trace**2 + 2 * self.norm)

    def compute_variance(self, other: _Gram) -> float:
        """Compute the variance of tr(K P L P') over permutations P (Kazi-Aoual et al. 1995, theorem 1)."""
        n = self.n
        first = 2 * self._spread * other._spread / ((n - 1)**2 * (n + 1) * (n - 2))
        second = self._peaks * other._peaks / ((n + 1) * n * (n - 1) * (n - 2) * (n - 3))
        return max(0.0, first + second)


def describe_cka_null(x: Side, y: Side) -> PermutationNull:
    """Describe the null of biased linear CKA, of sides with at least `FEWEST_ROWS` rows, about their means.

    Rows must be independent: permute whole examples where an example has several rows.
    """
    a, b = _Gram.of(x), _Gram.of(y)
    scale = math.sqrt(a.norm * b.norm)
    mean, std = a.trace * b.trace / (a.n - 1), math.sqrt(a.compute_variance(b))
    return PermutationNull(mean / scale, std / scale, (mean / std)**2 if std > 0 else math.inf)


def describe_debiased_null(x: Side, y: Side) -> PermutationNull:
    """Describe the null of debiased linear CKA, as `describe_cka_null` does for the biased one.

    The Gram matrices centred without bias have rows that sum to zero and no diagonal. Over permutations the
    value therefore has mean zero, and a standard deviation that depends on the number of rows alone.
    """
    n = x.n
    variance = 2 / ((n + 1) * (n - 2)) * (1 + 2 * (n - 1) / (n * (n - 3)))
    return PermutationNull(0.0, math.sqrt(variance), describe_cka_null(x, y).shape)
