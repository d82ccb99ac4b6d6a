"""Kept rows of a cell, from which indices of distances and of neighbours are computed."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from suture._base import SutureError
from suture.indices.definition import require
from suture.numbers import Bools, Floats, Ints

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
    _known: dict[Hashable, Any] | None = field(default=None, repr=False)
    _nearest: dict[int, tuple[Ints, Ints]] = field(default_factory=dict, repr=False)
    _origin: tuple[Rows, Ints] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, values: Any, name: str = "x") -> Rows:
        """Make rows from an array or tensor (n, p) of finite real numbers; `SutureError` calls it `name`."""
        return cls(as_matrix(name, values))

    def remembering(self) -> Rows:
        """Return the same rows, which keep all that is computed of them, for many orders; much memory."""
        made = Rows(self.values, {}, dict(self._nearest))
        names = ("constant", "squared", "ranks", "zeros", "unit", "_chords", "uniformity")
        made.__dict__.update({name: self.__dict__[name] for name in names if name in self.__dict__})
        return made

    def reorder(self, order: Ints) -> Rows:
        """Return the same rows in another order; what `remembering` rows know is carried over."""
        return Rows(self.values[order], {}, _origin=(self, order))

    def find(self, key: Hashable, compute: Callable[[Rows], Any]) -> Any:
        """Return what no order of the rows changes; `compute` finds it, once where rows are `remembering`."""
        if self._origin is not None:
            return self._origin[0].find(key, compute)
        if self._known is None:
            return compute(self)
        if key not in self._known:
            self._known[key] = compute(self)
        return self._known[key]

    def find_by_row(self, key: Hashable, compute: Callable[[Rows], NDArray[Any]]) -> NDArray[Any]:
        """Return something of every row, (n, ...), as `find` does; it is moved with the rows."""
        found = np.asarray(self.find(key, compute))
        return found if self._origin is None else np.asarray(found[self._origin[1]])

    def find_pairs(self, key: Hashable, compute: Callable[[Rows], Floats]) -> Floats:
        """Return something of every pair of rows, (n (n - 1) / 2,), as `find` does; pairs are moved too."""
        from scipy.spatial.distance import squareform

        if self._origin is None:
            return np.asarray(self.find(key, compute))
        whole = self.find((key, "whole"), lambda rows: squareform(rows.find_pairs(key, compute)))
        order = self._origin[1]
        return np.asarray(squareform(whole[np.ix_(order, order)], checks=False))

    @cached_property
    def constant(self) -> bool:
        """True if all rows are equal, up to float64 rounding."""
        return bool(self.find("constant", _are_equal))

    @cached_property
    def squared(self) -> Floats:
        """Squared Euclidean distances (n (n - 1) / 2,) of all pairs, in the order of scipy's `pdist`.

        They are computed from differences, so equal rows are at distance zero and equal differences tie. The
        unit of distance is a power of two near the largest number: this is exact, and squares do not
        overflow.
        """
        return self.find_pairs("squared", _compute_scaled_distances)

    @cached_property
    def ranks(self) -> Floats:
        """Ranks (n (n - 1) / 2,) of the distances from 1, ties averaged."""
        from scipy.stats import rankdata

        return self.find_pairs("ranks", lambda rows: np.asarray(rankdata(rows.squared)))

    @cached_property
    def zeros(self) -> int:
        """Number of zero rows, which have no cosine."""
        return int(self.find("zeros", lambda rows: (~rows.values.any(1)).sum()))

    @cached_property
    def unit(self) -> Floats:
        """Rows at unit length, (n, p); defined only where no row is zero."""
        return self.find_by_row("unit", _scale_to_unit)

    @cached_property
    def _chords(self) -> Floats:
        return self.find_pairs("chords", lambda rows: _compute_squared_distances(rows.unit))

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
        if k not in self._nearest:
            self._nearest[k] = self._sort_nearest(k) if self._origin is None else self._move_nearest(k)
        return self._nearest[k]

    def _spread_chords(self) -> Floats:
        from scipy.spatial.distance import squareform

        chords = squareform(self._chords)
        np.fill_diagonal(chords, np.inf)
        return np.asarray(chords)

    def _sort_nearest(self, k: int) -> tuple[Ints, Ints]:
        chords = self._spread_chords()
        order = np.argsort(chords, axis=1, kind="stable")[:, :k + 1]
        found = np.sqrt(np.take_along_axis(chords, order, 1))
        return order[:, :k].copy(), (found[:, k:] - found[:, :k] <= _TIE).sum(1)

    def _move_nearest(self, k: int) -> tuple[Ints, Ints]:
        """Number the nearest rows anew; among equally near ones the rule for ties may choose others."""
        assert self._origin is not None
        origin, order = self._origin
        nearest, alike = origin.find_nearest(k)
        found = np.argsort(order)[nearest[order]]
        tied = np.flatnonzero(self.find_by_row(("tied", k), lambda of: _find_tied(of._spread_chords(), k)))
        if len(tied):
            chords = origin.find("chords of pairs", Rows._spread_chords)[np.ix_(order[tied], order)]
            found[tied] = np.argsort(chords, axis=1, kind="stable")[:, :k]
        return found, alike[order]

    def compute_cosines(self, others: Ints) -> Floats:
        """Compute the cosine similarity (n, m) of every row with the rows numbered in `others` (n, m)."""
        return np.stack([np.einsum("ij,ij->i", self.unit, self.unit[column]) for column in others.T], axis=1)


def _are_equal(rows: Rows) -> bool:
    values = rows.values
    away = np.abs(values - values[0]).max(initial=0.0)
    return bool(away <= _ROUNDING * np.abs(values).max(initial=0.0))


def _scale_to_unit(rows: Rows) -> Floats:
    scaled = rows.values / np.abs(rows.values).max(1, keepdims=True)
    return np.asarray(scaled / np.linalg.norm(scaled, axis=1, keepdims=True))


def _find_tied(chords: Floats, k: int) -> Bools:
    """Return True for rows of distances (n, n) of whose k + 1 smallest two are equal."""
    smallest = np.sort(np.partition(chords, k, axis=1)[:, :k + 1], axis=1)
    return np.asarray((np.diff(smallest, axis=1) == 0).any(1))


def _compute_scaled_distances(rows: Rows) -> Floats:
    _, exponent = np.frexp(np.abs(rows.values).max(initial=0.0))
    return _compute_squared_distances(np.ldexp(rows.values, -exponent))


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

    def remembering(self) -> Sample:
        """Return the same rows, which keep what is computed of them, for many orders of the target's."""
        return Sample(self.x.remembering(), self.y.remembering())

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
