"""The features of one batch of representations, which all detectors share."""

from __future__ import annotations

from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from suture.representations import Kind, Shape, View, get_row_mask, to_grid


class SiteFeatures:
    """One batch of representations at a site, with pooled features.

    Attributes:
        x: (N, C, H, W) or (N, H, W, C), (N, T, D) or (N, D), as the site outputs them or a stitching layer
            makes them.
        shape: of one example.
        mask: (N, T) booleans, True for unpadded tokens; None if there is no padding.
    """

    def __init__(self, x: Tensor, shape: Shape, mask: Tensor | None = None) -> None:
        self.x, self.shape, self.mask = x, shape, mask

    @cached_property
    def rows(self) -> Tensor:
        """Channels at every position, (N, P, C) float32, without prefix tokens; zeros at padding."""
        rows = to_grid(self.x.float(), self.shape, self._view).flatten(1, 2)
        return rows if self.counted is None else rows.masked_fill(~self.counted[..., None], 0)

    @cached_property
    def counted(self) -> Tensor | None:
        """(N, P) booleans, True at positions that are not padding; None if there is no padding."""
        kept = get_row_mask(self.shape, self._view, self.mask)
        return None if kept is None else kept.flatten(1)

    @cached_property
    def mean(self) -> Tensor:
        """(N, C) mean over the positions that are not padding, followed by the prefix tokens."""
        return torch.cat([self._mean, *self._prefix], 1) if self._prefix else self._mean

    @cached_property
    def spread(self) -> Tensor:
        """(N, F) `mean`, followed by the standard deviation of each channel over positions (divisor P).

        Padding is left out. A vector has one position, so its features are `mean` alone. A batch of texts of
        one token each keeps all features, with standard deviations of zero.
        """
        if self.shape.kind is Kind.VECTOR or (self.rows.shape[1] == 1 and not self.shape.varies):
            return self.mean
        return torch.cat([self.mean, self._deviation], 1)

    @property
    def _view(self) -> View:
        return View.GRID if self.shape.prefix else View.ALL

    @cached_property
    def _prefix(self) -> list[Tensor]:
        k = self.shape.prefix
        return list(self.x[:, :k].float().unbind(1)) if self.shape.kind is Kind.TOKENS and k else []

    @cached_property
    def _mean(self) -> Tensor:
        if self.counted is None:
            return self.rows.mean(1)
        weight = self.counted[..., None].to(self.rows.dtype)
        total: Tensor = (self.rows * weight).sum(1) / weight.sum(1).clamp(min=1)
        return total

    @cached_property
    def _deviation(self) -> Tensor:
        # Squares are taken about each example's own mean, because a mean far above the spread would cost all
        # digits.
        off = self.rows - self._mean[:, None]
        if self.counted is None:
            return off.square().mean(1).sqrt()
        weight = self.counted[..., None].to(off.dtype)
        found: Tensor = ((off.square() * weight).sum(1) / weight.sum(1).clamp(min=1)).sqrt()
        return found


class Detector(Protocol):
    """A detector, which scores how native representations look at a site."""

    def score(self, site_features: SiteFeatures) -> Tensor:
        """Return the scores (N,), larger = more in-distribution."""
