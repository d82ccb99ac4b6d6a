"""Nulls over permutations of the rows of one side: of linear CKA in closed form, and from draws.

The first two moments of tr(K P L P') over permutations P need of each side only the trace, the square norm
and the squared diagonal of its centred Gram matrix (Kazi-Aoual et al. 1995). A gamma distribution with these
two moments stands in for the whole null. Permutations within strata need the same of every stratum, and the
products of their scatters.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from suture.numbers.moments import Side
from suture.numbers.records import Floats

FEWEST_ROWS = 4
"""Smallest number of rows with a variance over permutations, which is divided by n - 3."""
_ROUNDING = 1e-12  # relative deviation of a mean that permutations do not change
_NORMAL = 1e7  # shape from which a gamma distribution is a normal one to six digits


class Null(ABC):
    """Distribution of a value over permutations of rows, with its `mean` and `std`."""

    mean: float
    std: float

    @abstractmethod
    def compute_p_value(self, value: float) -> float:
        """Compute the share of permutations with at least this value; 1 where permutations change nothing."""

    @abstractmethod
    def find_quantile(self, share: float) -> float:
        """Find the value below which this share of permutations lies."""

    def calibrate(self, value: float, largest: float = 1.0, level: float = 0.05) -> float:
        """Map a value to 0 at the null's 1 - `level` point and to 1 at its largest; nan if they coincide.

        Below that point it is negative. It is nan too where there is no largest value.
        """
        start = self.find_quantile(1 - level)
        return (value - start) / (largest - start) if math.inf > largest > start else math.nan

    @property
    def changes_nothing(self) -> bool:
        """True if all permutations have one value, up to rounding."""
        return self.std <= _ROUNDING * abs(self.mean)


@dataclass(frozen=True)
class PermutationNull(Null):
    """Distribution over all permutations: `mean`, `std`, and `shape` of a gamma distribution.

    The skewness is 2 / sqrt(`shape`).
    """

    mean: float
    std: float
    shape: float

    def compute_p_value(self, value: float) -> float:
        from scipy import special

        if self.changes_nothing:
            return 1.0
        far = (value - self.mean) / self.std
        if self.shape > _NORMAL:
            return float(special.ndtr(-far))
        return float(special.gammaincc(self.shape, max(0.0, self.shape + math.sqrt(self.shape) * far)))

    def find_quantile(self, share: float) -> float:
        from scipy import special

        if self.shape > _NORMAL:
            return self.mean + self.std * float(special.ndtri(share))
        centred = float(special.gammaincinv(self.shape, share)) - self.shape
        return self.mean + self.std * centred / math.sqrt(self.shape)


@dataclass(frozen=True, eq=False)
class DrawnNull(Null):
    """Distribution over drawn permutations: the `values` (m,) that they gave."""

    values: Floats

    @cached_property
    def mean(self) -> float:  # type: ignore[override]
        """Mean of the drawn values."""
        return float(self.values.mean())

    @cached_property
    def std(self) -> float:  # type: ignore[override]
        """Standard deviation of the drawn values."""
        return float(self.values.std())

    def compute_p_value(self, value: float) -> float:
        """Compute the p-value, in which the data as they are count as one permutation (Davison and Hinkley
        1997, 4.2).
        """
        least = value - _ROUNDING * abs(value)
        return float((1 + (self.values >= least).sum()) / (1 + len(self.values)))

    def find_quantile(self, share: float) -> float:
        return float(np.quantile(self.values, share, method="higher"))


@dataclass(frozen=True)
class GramSums:
    """Trace, square norm and squared diagonal of a centred Gram matrix of `n` rows, in any unit."""

    n: int
    trace: float
    norm: float
    diagonal: float

    @classmethod
    def of(cls, side: Side) -> GramSums:
        """Read the sums from those of a side about its mean with its fourth order, at a trace of 1."""
        trace = torch.trace(side.gram)
        norm = float(torch.linalg.vector_norm(side.gram) / trace)
        return cls(side.n, 1.0, norm * norm, float(side.quartic / trace / trace))

    @property
    def unbiased(self) -> float:
        """Square norm of the Gram matrix centred without bias (Székely and Rizzo 2014)."""
        n = self.n
        return self.norm - self.diagonal * (1 + 2 / (n - 2)) + self.trace * self.trace / ((n - 1) * (n - 2))

    @property
    def _spread(self) -> float:
        return (self.n - 1) * self.norm - self.trace * self.trace

    @property
    def _peaks(self) -> float:
        n = self.n
        return n * (n + 1) * self.diagonal - (n - 1) * (self.trace * self.trace + 2 * self.norm)

    def compute_mean(self, other: GramSums) -> float:
        """Compute the mean of tr(K P L P') over permutations P."""
        return self.trace * other.trace / (self.n - 1)

    def compute_variance(self, other: GramSums) -> float:
        """Compute the variance of tr(K P L P') over permutations P (Kazi-Aoual et al. 1995, theorem 1)."""
        n = self.n
        first = 2 * self._spread * other._spread / ((n - 1)**2 * (n + 1) * (n - 2))
        second = self._peaks * other._peaks / ((n + 1) * n * (n - 1) * (n - 2) * (n - 3))
        return max(first + second, 0.0)  # nan stays nan

    def compute_unbiased_variance(self, other: GramSums) -> float:
        """Compute the same variance for Gram matrices centred without bias, whose mean is zero.

        Their rows sum to zero and their diagonals are empty, so it depends on their norms alone.
        """
        n = self.n
        return 2 * self.unbiased * other.unbiased / ((n + 1) * (n - 2)) * (1 + 2 * (n - 1) / (n * (n - 3)))


@dataclass(frozen=True, eq=False)
class StrataSums:
    """Gram sums of one side in every stratum of rows, and `between` (K, K): tr(A_c A_k) of their scatters.

    The diagonal of `between` is not read.
    """

    parts: Sequence[GramSums]
    between: Tensor

    @classmethod
    def of(cls, given: Side | GramSums | StrataSums) -> StrataSums:
        """Return sums by stratum; a side is one stratum."""
        if isinstance(given, StrataSums):
            return given
        return cls([GramSums.of(given) if isinstance(given, Side) else given], torch.zeros(1, 1))

    @cached_property
    def crossed(self) -> Tensor:
        """The products between different strata, (K, K) with zeros on the diagonal."""
        return self.between - torch.diag(self.between.diagonal())

    @property
    def norm(self) -> float:
        """Square norm of the scatter of all rows about the means of their strata."""
        return sum(p.norm for p in self.parts) + float(self.crossed.sum())

    @property
    def unbiased(self) -> float:
        """The same, estimated without bias within each stratum."""
        return sum(p.unbiased for p in self.parts) + float(self.crossed.sum())

    def compute_mean(self, other: StrataSums) -> float:
        """Compute the mean of |sum_c X_c' P_c Y_c|² over permutations P_c within the strata."""
        return sum(a.compute_mean(b) for a, b in zip(self.parts, other.parts, strict=True))

    def compute_variance(self, other: StrataSums) -> float:
        """Compute the variance; products of different strata have mean zero and are uncorrelated."""
        return sum(a.compute_variance(b) for a, b in zip(self.parts, other.parts, strict=True)
                   ) + self._vary_between(other)

    def compute_unbiased_variance(self, other: StrataSums) -> float:
        """Compute the variance with Gram matrices centred without bias in each stratum."""
        return sum(a.compute_unbiased_variance(b) for a, b in zip(self.parts, other.parts, strict=True)
                   ) + self._vary_between(other)

    def _vary_between(self, other: StrataSums) -> float:
        freedom = torch.tensor([p.n - 1 for p in self.parts], dtype=torch.float64)
        return float(2 * (self.crossed * other.crossed / torch.outer(freedom, freedom)).sum())


Sums = Side | GramSums | StrataSums


def describe_cka_null(x: Sums, y: Sums) -> PermutationNull:
    """Describe the null of biased linear CKA, of at least `FEWEST_ROWS` rows in each stratum.

    Rows must be independent: permute whole examples where an example has several rows.
    """
    a, b = StrataSums.of(x), StrataSums.of(y)
    scale = math.sqrt(a.norm * b.norm)
    mean, std = a.compute_mean(b), math.sqrt(a.compute_variance(b))
    return PermutationNull(mean / scale, std / scale, (mean / std)**2 if std > 0 else math.inf)


def describe_debiased_null(x: Sums, y: Sums) -> PermutationNull:
    """Describe the null of debiased linear CKA, as `describe_cka_null` does for the biased one.

    Over permutations the value has mean zero. With one stratum its standard deviation depends on the number
    of rows alone.
    """
    a, b = StrataSums.of(x), StrataSums.of(y)
    scale = a.unbiased * b.unbiased
    std = math.sqrt(a.compute_unbiased_variance(b) / scale) if scale > 0 else math.nan
    return PermutationNull(0.0, std, describe_cka_null(a, b).shape)
