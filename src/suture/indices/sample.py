"""A kept sample of rows, from which indices of distances and of neighbours are computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from suture._base import SutureError
from suture.indices.definition import require
from suture.numbers import Floats, Ints

# Relative size of rounding, the same as for constant columns in `suture.numbers.spectra`.
_ROUNDING = 4 * np.finfo(np.float64).eps
_TIE = 16 * _ROUNDING  # larger, because a distance of rows at unit length sums over columns


def as_matrix(name: str, given: Any) -> Floats:
    """Convert a numpy array or a tensor of any real type to a matrix in float64.

    Raises:
        SutureError: no matrix, no rows, no real numbers, or NaN or inf in it. The message names it `name`.
    """
    if isinstance(given, Tensor):
        given = given.detach().cpu()
        given = (given if given.is_complex() else given.to(torch.float64)).numpy()
    try:
        values = np.asarray(given)
    except ValueError as error:
        raise SutureError(f"expected {name} to be a matrix with rows, got rows of different lengths; pass "
                          "(n, columns)") from error
    if values.ndim != 2 or len(values) == 0:
        raise SutureError(f"expected {name} to be a matrix with rows, got shape {values.shape}; "
                          "pass (n, columns)")
    if values.dtype.kind not in "fiub":
        raise SutureError(f"expected real numbers in matrix {name}, got {values.dtype}; pass a float type")
    values = np.ascontiguousarray(values, dtype=np.float64)
    if not np.isfinite(values).all():
        raise SutureError(f"expected finite numbers, got NaN or inf in matrix {name}; drop those rows")
    return values


@dataclass(frozen=True)
class NearestRows:
    """The nearest rows of every row by cosine similarity.

    Attributes:
        order: (n, k) numbers of the nearest rows, nearest first, without the row itself. Ties go to the lower
            number.
        tied: (n,) number of them that are no nearer than the next row would be, up to rounding. The rule for
            ties chose these.
    """

    order: Ints
    tied: Ints


@dataclass(frozen=True, eq=False)
class Rows:
    """One matrix with the quantities that indices need, each computed once.

    Build it once per site and share it among cells. At 2,000 rows `squared` and `ranks` hold 16 MB each;
    everything else is small.

    Attributes:
        values: (n, p) in float64. Make it with `Rows.of`.
    """

    values: Floats
    _nearest: dict[int, NearestRows] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, values: Any, name: str = "x") -> Rows:
        """Make rows from a matrix (n, p), numpy or tensor, of any real type; errors call it `name`.

        Raises:
            SutureError: as `as_matrix`.
        """
        return cls(as_matrix(name, values))

    @cached_property
    def constant(self) -> bool:
        """True if all rows are equal, up to float64 rounding."""
        away = np.abs(self.values - self.values[0]).max(initial=0.0)
        return bool(away <= _ROUNDING * np.abs(self.values).max(initial=0.0))

    @cached_property
    def squared(self) -> Floats:
        """Squared Euclidean distances (n (n - 1) / 2,) of all pairs, in the order of scipy's `pdist`.

        They are computed from differences. So equal rows are at distance zero, and equal differences tie,
        whatever the mean. The unit is a power of two near the largest number. This is exact and keeps squares
        from overflowing.
        """
        _, exponent = np.frexp(np.abs(self.values).max(initial=0.0))
        return _compute_squared_distances(np.ldexp(self.values, -exponent))

    @cached_property
    def ranks(self) -> Floats:
        """Ranks (n (n - 1) / 2,) of the distances from 1, ties averaged."""
        from scipy.stats import rankdata

        return np.asarray(rankdata(self.squared))

    @cached_property
    def zeros(self) -> int:
        """Number of rows that are zero; they have no cosine."""
        return int((~self.values.any(1)).sum())

    @cached_property
    def unit(self) -> Floats:
        """Rows at unit length, (n, p); defined only where no row is zero."""
        scaled = self.values / np.abs(self.values).max(1, keepdims=True)
        return np.asarray(scaled / np.linalg.norm(scaled, axis=1, keepdims=True))

    @cached_property
    def uniformity(self) -> float:
        """Logarithm of the mean, over pairs of different rows at unit length, of exp(-2 |x_i - x_j|²)."""
        return float(np.log(np.exp(-2 * _compute_squared_distances(self.unit)).mean()))

    def find_nearest(self, k: int) -> NearestRows:
        """Find the `k` nearest rows of every row by cosine similarity, for k < n - 1.

        They are ordered by 2 - 2 cosine, which is exact where the cosine is near one.
        """
        from scipy.spatial.distance import squareform

        if k not in self._nearest:
            chords = squareform(_compute_squared_distances(self.unit))
            np.fill_diagonal(chords, np.inf)
            order = np.argsort(chords, axis=1, kind="stable")[:, :k + 1]
            found = np.sqrt(np.take_along_axis(chords, order, 1))
            tied = (found[:, k:] - found[:, :k] <= _TIE).sum(1)
            self._nearest[k] = NearestRows(order[:, :k].copy(), tied)
        return self._nearest[k]

    def compute_cosines(self, others: Ints) -> Floats:
        """Compute the cosine similarity (n, m) of every row with the rows numbered in `others` (n, m)."""
        return np.stack([np.einsum("ij,ij->i", self.unit, self.unit[column]) for column in others.T], axis=1)


def _compute_squared_distances(values: Floats) -> Floats:
    from scipy.spatial.distance import pdist

    return np.asarray(pdist(values, "sqeuclidean"))


@dataclass(frozen=True, eq=False)
class Sample:
    """Rows of one cell.

    Attributes:
        x, y: source (n, p) and target (n, q), with the same rows. Make it with `Sample.of`.
    """

    x: Rows
    y: Rows

    @classmethod
    def of(cls, x: Any, y: Any) -> Sample:
        """Make a sample from two matrices (n, p) and (n, q), in float64.

        Each is a numpy array or tensor of any real type, or `Rows`.

        Raises:
            SutureError: not two matrices with the same, non-zero number of rows, or NaN or inf in one of
                them.
        """
        x, y = (m if isinstance(m, Rows) else Rows.of(m, name) for name, m in (("x", x), ("y", y)))
        if len(x.values) != len(y.values):
            raise SutureError(f"expected two matrices with the same rows, got shapes {x.values.shape} and "
                              f"{y.values.shape}; pass (n, p) and (n, q)")
        return cls(x, y)

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.x.values)

    @property
    def sides(self) -> tuple[tuple[str, Rows], ...]:
        """Both sides with their names in reasons."""
        return ("source", self.x), ("target", self.y)

    @property
    def constant(self) -> tuple[str, ...]:
        """Sides on which all rows are equal."""
        return tuple(name for name, side in self.sides if side.constant)

    def require_sides(self, holds: Callable[[Rows], object], reason: str) -> None:
        """Leave the value of an index missing where a condition does not hold for a side, with its name."""
        found = [name for name, side in self.sides if not holds(side)]
        require(not found, f"{' and '.join(found)}: {reason}")
