"""Kept rows of a cell, from which indices of distances and of neighbours are computed."""

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
    """Convert an array or tensor of finite real numbers to a float64 matrix; errors call it `name`."""
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


@dataclass(frozen=True, eq=False)
class Rows:
    """One float64 matrix (n, p) with the quantities that indices need, each computed once.

    Make it once per site with `Rows.of` and share it: at 2,000 rows `squared` and `ranks` hold 16 MB each.
    """

    values: Floats
    _nearest: dict[int, tuple[Ints, Ints]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, values: Any, name: str = "x") -> Rows:
        """Make rows from an array or tensor (n, p) of finite real numbers; `SutureError` calls it `name`."""
        return cls(as_matrix(name, values))

    def reorder(self, order: Ints) -> Rows:
        """Return the same rows in another order; what is known of distances is carried over, ties are not."""
        from scipy.spatial.distance import squareform

        known: dict[str, Any] = {name: self.__dict__[name] for name in ("constant", "zeros", "uniformity")
                                 if name in self.__dict__}
        for name in ("squared", "ranks", "_chords"):
            if name in self.__dict__:
                whole = squareform(self.__dict__[name])
                known[name] = squareform(whole[np.ix_(order, order)], checks=False)
        made = Rows(self.values[order])
        made.__dict__.update(known, **({"unit": self.unit[order]} if "unit" in self.__dict__ else {}))
        return made

    @cached_property
    def constant(self) -> bool:
        """True if all rows are equal, up to float64 rounding."""
        away = np.abs(self.values - self.values[0]).max(initial=0.0)
        return bool(away <= _ROUNDING * np.abs(self.values).max(initial=0.0))

    @cached_property
    def squared(self) -> Floats:
        """Squared Euclidean distances (n (n - 1) / 2,) of all pairs, in the order of scipy's `pdist`.

        They are computed from differences, so equal rows are at distance zero and equal differences tie. The
        unit of distance is a power of two near the largest number: this is exact, and squares do not
        overflow.
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
        """Number of zero rows, which have no cosine."""
        return int((~self.values.any(1)).sum())

    @cached_property
    def unit(self) -> Floats:
        """Rows at unit length, (n, p); defined only where no row is zero."""
        scaled = self.values / np.abs(self.values).max(1, keepdims=True)
        return np.asarray(scaled / np.linalg.norm(scaled, axis=1, keepdims=True))

    @cached_property
    def _chords(self) -> Floats:
        return _compute_squared_distances(self.unit)

    @cached_property
    def uniformity(self) -> float:
        """Logarithm of the mean, over pairs of different rows at unit length, of exp(-2 |x_i - x_j|²)."""
        return float(np.log(np.exp(-2 * self._chords).mean()))

    def find_nearest(self, k: int) -> tuple[Ints, Ints]:
        """Find the `k` nearest other rows of every row by cosine similarity, (n, k), for k < n - 1.

        The nearest row comes first; ties go to the lower row number. Also return how many of the `k`, (n,),
        are no nearer than the next row, up to rounding: the rule for ties chose these. Rows are ordered by 2
        - 2 cosine, which is exact where the cosine is near one.
        """
        from scipy.spatial.distance import squareform

        if k not in self._nearest:
            chords = squareform(self._chords)
            np.fill_diagonal(chords, np.inf)
            order = np.argsort(chords, axis=1, kind="stable")[:, :k + 1]
            found = np.sqrt(np.take_along_axis(chords, order, 1))
            self._nearest[k] = order[:, :k].copy(), (found[:, k:] - found[:, :k] <= _TIE).sum(1)
        return self._nearest[k]

    def compute_cosines(self, others: Ints) -> Floats:
        """Compute the cosine similarity (n, m) of every row with the rows numbered in `others` (n, m)."""
        return np.stack([np.einsum("ij,ij->i", self.unit, self.unit[column]) for column in others.T], axis=1)


def _compute_squared_distances(values: Floats) -> Floats:
    from scipy.spatial.distance import pdist

    return np.asarray(pdist(values, "sqeuclidean"))


@dataclass(frozen=True, eq=False)
class Sample:
    """Rows of one cell, source `x` (n, p) and target `y` (n, q), made by `Sample.of`."""

    x: Rows
    y: Rows

    @classmethod
    def of(cls, x: Any, y: Any) -> Sample:
        """Make a sample from two matrices (n, p) and (n, q), each an array, a tensor or `Rows`.

        Raises:
            SutureError: no rows, different numbers of rows, NaN or inf.
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
    def independent(self) -> int:
        """The same number, as rows are drawn."""
        return self.n

    @property
    def sides(self) -> tuple[tuple[str, Rows], ...]:
        """Both sides by name."""
        return ("source", self.x), ("target", self.y)

    @property
    def constant(self) -> tuple[str, ...]:
        """Names of the sides on which all rows are equal."""
        return tuple(name for name, side in self.sides if side.constant)

    def require_sides(self, holds: Callable[[Rows], object], reason: str) -> None:
        """Make the value of an index missing unless a condition holds for both sides."""
        found = [name for name, side in self.sides if not holds(side)]
        require(not found, f"{' and '.join(found)}: {reason}")
