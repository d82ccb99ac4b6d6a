"""Spectra of scatter matrices, and pairs: what direct matching and the indices are functions of."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from suture.numbers.factorisations import eigh, svd, svdvals
from suture.numbers.moments import MomentBlock, Moments, Side, UnitRowSums
from suture.numbers.nulls.permutation_null import GramSums

Key = tuple[Hashable, ...]


@dataclass(frozen=True)
class Spectrum:
    """Eigendecomposition of a scatter matrix (sum, not mean) of `width` p, cut to its numerical rank r.

    `values` (r,) are the eigenvalues kept, largest first, and `vectors` (p, r) their eigenvectors.
    """

    values: Tensor
    vectors: Tensor
    width: int

    @property
    def rank(self) -> int:
        """Number of directions kept; 0 for a constant matrix."""
        return len(self.values)

    @property
    def condition(self) -> float:
        """Largest over smallest eigenvalue kept; nan for a constant matrix."""
        return float(self.values[0] / self.values[-1]) if self.rank else float("nan")

    def add_ridge(self, moments: Moments, strength: float) -> Tensor:
        """Add `strength` times the mean eigenvalue of the source of `moments` to the eigenvalues, (r,)."""
        return self.values + strength * torch.trace(moments.sxx) / self.width

    @classmethod
    def of(cls, side: Side, precision: torch.dtype = torch.float64) -> Spectrum:
        """Compute the spectrum of a scatter about the mean, without directions that are rounding."""
        values, vectors = eigh(side.gram)
        values, vectors = values.flip(0), vectors.flip(1)
        floor = max(float(_compute_rounding(side, precision).max()),
                    compute_rank_cut(len(values), side.n, precision) * max(float(values[0]), 0.0))
        rank = int((values > floor).sum())
        return cls(values[:rank], vectors[:, :rank], len(values))


def compute_rank_cut(width: int, n: int, precision: torch.dtype) -> float:
    """Return the relative size below which an eigenvalue of the scatter of `n` rows is rounding.

    In float64 it is max(width, n) eps, as in `numpy.linalg.matrix_rank`. Products in float32 are accumulated
    blockwise, so their error stays below 4 eps of the largest eigenvalue (benchmarks/precision.py).
    """
    eps = torch.finfo(precision).eps
    return max(width, n) * eps if precision == torch.float64 else 4 * eps


def _compute_rounding(side: Side, precision: torch.dtype) -> Tensor:
    """Compute the scatter (p,) that rounding alone gives to constant columns: n (4 eps |mean|)²."""
    return side.n * (4 * torch.finfo(precision).eps * side.mean.abs()).square()


def _decide_constant(side: Side, precision: torch.dtype) -> bool | None:
    """Return True if the spectrum has rank 0, None where only the spectrum tells.

    The largest eigenvalue lies between the largest diagonal element and the trace.
    """
    floor = float(_compute_rounding(side, precision).max())
    least, most = float(side.gram.diagonal().max()), float(side.gram.trace())
    return False if least > floor else True if most <= floor else None


def find_varying_columns(side: Side, precision: torch.dtype = torch.float64) -> Tensor:
    """Return a mask (p,) of the columns that vary by more than the rounding of a constant."""
    return side.gram.diagonal() > _compute_rounding(side, precision)


def solve_least_squares(x: Spectrum, moments: Moments, strength: float = 0.0) -> Tensor:
    """Compute the weight (q, p) of the affine map with the least squared error plus a ridge penalty.

    `x` is the spectrum of the source's scatter; the penalty is `strength` times its mean eigenvalue.
    """
    return (x.vectors @ (x.vectors.T @ moments.sxy / x.add_ridge(moments, strength)[:, None])).T


def compute_squared_error(weight: Tensor, bias: Tensor, moments: Moments) -> Tensor:
    """Compute sum |W x + b - y|² over the rows of `moments`."""
    m = moments
    weight, bias = weight.to(m.sxx), bias.to(m.sxx)
    off = weight @ m.x.mean + bias - m.y.mean
    return (weight * (weight @ m.sxx - 2 * m.sxy.T)).sum() + torch.trace(m.syy) + m.n * off @ off


class Spectra:
    """Sides and their spectra by key, each computed when it is first asked for, so that cells share them.

    A key holds side, number and rows of a site, then what is left out of the rows. Several threads may ask. A
    spectrum that cannot be computed raises its error for each that asks.
    """

    def __init__(self) -> None:
        self._found: dict[Key, Any] = {}
        self._locks: dict[Key, Lock] = {}

    def find(self, key: Key, side: Side, precision: torch.dtype) -> Spectrum:
        """Return the spectrum of `key`, which is that of `side` if it is not known yet."""
        found: Spectrum = self._find(("spectrum", *key), lambda: Spectrum.of(side, precision))
        return found

    def find_side(self, key: Key, parts: Sequence[Side]) -> Side:
        """Return the side of `key`, which merges `parts` if it is not known yet."""
        found: Side = self._find(("side", *key), lambda: parts[0].merge(*parts[1:]))
        return found

    def _find(self, key: Key, compute: Callable[[], Any]) -> Any:
        with self._locks.setdefault(key, Lock()):
            if key not in self._found:
                self._found[key] = compute()
            return self._found[key]


@dataclass(frozen=True)
class Pair:
    """Moments of one cell with the spectra of both sides. Every index from moments is a function of it.

    Attributes:
        moments: about the means.
        unit, standard: see `MomentBlock`.
        blocks: moments of disjoint blocks of examples, if they were kept apart.
        share: share of the rows that are independent. It is below 1 where an alignment repeats or
            interpolates the source's positions.
        spectra, keys: spectra that are shared with other cells, if any, and the keys of source and target.
        turned: the pair with source and target in each other's place, whose factorisations are shared.
    """

    moments: Moments
    unit: tuple[UnitRowSums, UnitRowSums] | None = None
    standard: Moments | None = None
    blocks: tuple[MomentBlock, ...] = ()
    share: float = 1.0
    spectra: Spectra | None = None
    keys: tuple[Key, Key] = (("source",), ("target",))
    turned: Pair | None = None

    @classmethod
    def of(cls, moments: Moments) -> Pair:
        """Make the pair of `moments`."""
        return cls.of_block(MomentBlock(moments))

    @classmethod
    def of_block(cls, block: MomentBlock, blocks: Sequence[MomentBlock] = ()) -> Pair:
        """Make the pair of all that a block holds; `blocks` are its parts, if they are kept apart."""
        return cls(block.moments, block.unit, block.standard, tuple(blocks))

    def leave_out(self, number: int, rest: MomentBlock, blocks: Sequence[MomentBlock] = ()) -> Pair:
        """Make the pair without block `number`: of `rest`, all other blocks, of which `blocks` are parts."""
        x, y = self.keys
        return replace(self, moments=rest.moments, unit=rest.unit, standard=rest.standard,
                       blocks=tuple(blocks), keys=((*x, number), (*y, number)))

    def turn(self) -> Pair:
        """Return the pair with source and target in each other's place; the two share factorisations."""
        found = MomentBlock(self.moments, self.unit, self.standard).turn()
        return replace(self, moments=found.moments, unit=found.unit, standard=found.standard,
                       blocks=tuple(b.turn() for b in self.blocks), keys=self.keys[::-1], turned=self)

    @cached_property
    def x(self) -> Spectrum:
        """Spectrum of the scatter of the source."""
        return self._find_spectrum(self.keys[0], self.moments.x)

    @cached_property
    def y(self) -> Spectrum:
        """Spectrum of the scatter of the target."""
        return self._find_spectrum(self.keys[1], self.moments.y)

    def find_outside(self, fold: int, rest: Moments) -> Spectrum:
        """Return the spectrum of the source outside of a fold; `rest` are the moments there."""
        return self._find_spectrum((*self.keys[0], "outside", fold), rest.x)

    def _find_spectrum(self, key: Key, side: Side) -> Spectrum:
        precision = self.moments.precision
        spectra = Spectra() if self.spectra is None else self.spectra
        return spectra.find(key, side, precision)

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.moments.n

    @property
    def independent(self) -> int:
        """Number of independent rows: those of the source before an alignment makes more of them."""
        return round(self.n * self.share)

    @property
    def freedom(self) -> int:
        """Number of independent rows less one for the mean, at least 1."""
        return max(1, self.independent - 1)

    @property
    def participation(self) -> tuple[float, float]:
        """Participation ratios of source and target: effective numbers of directions."""
        m = self.moments
        x, y = (float(torch.trace(s) / torch.linalg.vector_norm(s)) for s in (m.sxx, m.syy))
        return x * x, y * y

    @property
    def is_own(self) -> bool:
        """True if source and target are the same matrix."""
        return self.keys[0] == self.keys[1]

    @cached_property
    def constant(self) -> tuple[str, ...]:
        """The sides ("source", "target") that do not vary."""
        m = self.moments
        known = {"x": _decide_constant(m.x, m.precision), "y": _decide_constant(m.y, m.precision)}
        return tuple(name for name, side in (("source", "x"), ("target", "y"))
                     if (getattr(self, side).rank == 0 if known[side] is None else known[side]))

    @property
    def grams(self) -> tuple[GramSums, GramSums]:
        """Sums of the Gram matrices of both sides, for closed nulls; nan without sums of fourth order."""
        return GramSums.of(self.moments.x), GramSums.of(self.moments.y)

    @property
    def scale(self) -> float:
        """Product of the Frobenius norms of the centred matrices."""
        m = self.moments
        return math.sqrt(float(torch.trace(m.sxx)) * float(torch.trace(m.syy)))

    @cached_property
    def loadings(self) -> Tensor:
        """Cross scatter (rank x, q) of the source's principal directions with the target's columns."""
        return self.x.vectors.T @ self.moments.sxy

    @cached_property
    def rotated(self) -> Tensor:
        """Cross scatter (rank x, rank y) of the principal directions of the two sides."""
        if self.turned is not None:
            return self.turned.rotated.T
        return self.loadings @ self.y.vectors

    @cached_property
    def canonical(self) -> tuple[Tensor, Tensor, Tensor]:
        """Canonical correlations: (U, correlations, V'), with U and V in whitened coordinates."""
        if self.turned is not None:
            u, s, vh = self.turned.canonical
            return vh.T, s, u.T
        if self.is_own:  # a near-identity, on which LAPACK may not converge
            same = torch.eye(self.x.rank, dtype=self.x.values.dtype)
            return same, same.diagonal(), same
        white = self.rotated / torch.outer(self.x.values.sqrt(), self.y.values.sqrt())
        return svd(white)

    @cached_property
    def weights(self) -> tuple[Tensor, Tensor]:
        """Sums over the columns x_j of source and target of |<h, x_j>|, for each canonical variate h."""
        if self.turned is not None:
            return self.turned.weights[::-1]
        u, _, vh = self.canonical
        x, y = ((side.vectors @ (side.values.sqrt()[:, None] * directions)).abs().sum(0)
                for side, directions in ((self.x, u), (self.y, vh.T)))
        return x, y

    @cached_property
    def nuclear(self) -> float:
        """Nuclear norm of the cross scatter: the largest trace that a rotation of one side can reach."""
        if self.turned is not None:
            return self.turned.nuclear
        if self.is_own:
            return float(torch.trace(self.moments.sxx))
        return float(svdvals(self.moments.sxy).sum())

    @cached_property
    def correlations(self) -> Tensor:
        """Pearson correlations (p, q) between the columns; 0 for a column that does not vary."""
        m = self.moments
        found = m.sxy / torch.outer(m.sxx.diagonal(), m.syy.diagonal()).sqrt()
        return torch.where(torch.outer(find_varying_columns(m.x, m.precision),
                                       find_varying_columns(m.y, m.precision)), found, 0.0)
