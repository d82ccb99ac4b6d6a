"""Moments of cut rows at unit length, from the coordinates of the rows alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from suture.numbers import Cross, Moments, Side, UnitRowSums, standardise_rows
from suture.studies.probes.principal_components import Basis

_ROUNDING = 64 * torch.finfo(torch.float64).eps
"""Squared length, relative to those of a row's parts, that is rounding: 1e-7 of the row."""


@dataclass(frozen=True, eq=False)
class UnitRows:
    """Rows (N, p) in float64, cut to components and scaled to unit length.

    A cut row is m + V z with its coordinates z, so its length and mean follow from z, and products of cut
    rows from those of z.
    """

    rows: Tensor
    basis: Basis

    @cached_property
    def _coordinates(self) -> Tensor:
        return (self.rows - self.basis.mean) @ self.basis.vectors

    @cached_property
    def _whole(self) -> tuple[Tensor, Tensor]:
        """Standardised whole rows, and 1 for each that varies, else 0."""
        rows = standardise_rows(self.rows)
        return rows, (rows != 0).any(1).double()

    @cached_property
    def whole_sums(self) -> UnitRowSums:
        """Sums of the whole rows at unit length."""
        return UnitRowSums.of(self.rows)

    def sum_cut(self, rank: int) -> UnitRowSums:
        """Return the sums of the cut rows at unit length."""
        z, v, m = self._coordinates[:, :rank], self.basis.vectors[:, :rank], self.basis.mean
        squares = m @ m + 2 * z @ (v.T @ m) + z.square().sum(1)
        varies = squares > _ROUNDING * self._find_sizes(rank)
        scale = torch.where(varies, squares.clamp(min=0).rsqrt(), 0.0)
        return UnitRowSums(len(z), m * scale.sum() + v @ (z.T @ scale), int((~varies).sum()))

    def _find_sizes(self, rank: int) -> Tensor:
        """Return the sum of the squared lengths (N,) of the mean and of each row about it."""
        return self.basis.mean.square().sum() + self._coordinates[:, :rank].square().sum(1)

    def compute_standard(self, rank: int) -> Moments:
        """Return the moments of the cut and the whole rows after `standardise_rows`."""
        z, v, m = self._coordinates[:, :rank], self.basis.vectors[:, :rank], self.basis.mean
        average, centred, rest = v.mean(0), v - v.mean(0), m - m.mean()
        squares = (rest @ rest + 2 * z @ (centred.T @ rest) + z.square().sum(1)
                   - len(m) * (z @ average).square())
        varies = squares > _ROUNDING * self._find_sizes(rank)
        scale = torch.where(varies, squares.clamp(min=0).rsqrt(), 0.0)
        w = torch.cat([z, torch.ones_like(z[:, :1])], 1) * scale[:, None]
        b, (y, y_varies), x_varies = torch.cat([centred, rest[:, None]], 1), self._whole, varies.double()
        zero = torch.zeros_like(m)
        total, of_y = b @ w.sum(0), y.sum(0)
        # Squared lengths are 1 or 0, so that sums of higher order are sums of rows.
        sides = (Side(len(z), zero, total, b @ (w.T @ w) @ b.T, total, x_varies.sum()),
                 Side(len(z), zero, of_y, self._whole_gram, of_y, y_varies.sum()))
        cross = Cross(b @ (w.T @ y), b @ (w.T @ y_varies), y.T @ x_varies, x_varies @ y_varies)
        return Moments(*sides, cross).centre()

    @cached_property
    def _whole_gram(self) -> Tensor:
        return self._whole[0].T @ self._whole[0]
