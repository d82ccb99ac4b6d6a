"""The pooled features of representations at a site, which detectors share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from suture.representations import Kind, Masks, Shape, View, get_row_mask, to_grid


@dataclass(eq=False)
class SiteFeatures:
    """One batch of representations at a site, with pooled features.

    Attributes:
        x: (N, C, H, W), (N, H, W, C), (N, T, D), (N, D) or a map with one axis or three, from the site or
            from a stitching layer.
        shape: of one example.
        mask: (N, T) booleans, False for padding tokens; None without padding.
        logits: (N, classes) or (N, T, V) of the target network after `x`; None if no detector needs them.
    """

    x: Tensor
    shape: Shape
    mask: Masks = None
    logits: Tensor | None = None

    @cached_property
    def mean(self) -> Tensor:
        """(N, C) mean over the positions without padding, followed by the prefix tokens."""
        prefix = self.x[:, :self.shape.prefix].float().unbind(1) if self.shape.prefix else ()
        return torch.cat([self._mean, *prefix], 1)

    @cached_property
    def spread(self) -> Tensor:
        """(N, F) `mean`, followed by each channel's standard deviation over P positions (divisor P).

        Vectors and maps of one position have `mean` alone. Texts always have standard deviations, zero for
        one token.
        """
        if self.shape.kind is Kind.VECTOR or (self._rows.shape[1] == 1 and not self.shape.varies):
            return self.mean
        # Squares are taken about each example's own mean, because a mean far above the spread would cost all
        # digits.
        deviation = self._average((self._rows - self._mean[:, None]).square()).sqrt()
        return torch.cat([self.mean, deviation], 1)

    @cached_property
    def _rows(self) -> Tensor:
        """Channels (N, P, C) float32 at every position, without prefix tokens; zeros at padding."""
        rows = to_grid(self.x.float(), self.shape, self._view).flatten(1, -2)
        return rows if self._kept is None else rows.masked_fill(~self._kept[..., None], 0)

    @cached_property
    def _kept(self) -> Tensor | None:
        """(N, P) booleans, False at padding, or None."""
        kept = get_row_mask(self.shape, self._view, self.mask)
        return None if kept is None else kept.flatten(1)

    @property
    def _view(self) -> View:
        return View.GRID if self.shape.prefix else View.ALL

    @cached_property
    def _mean(self) -> Tensor:
        return self._average(self._rows)

    def _average(self, rows: Tensor) -> Tensor:
        """Return the mean (N, C) over the positions without padding."""
        if self._kept is None:
            return rows.mean(1)
        weight = self._kept[..., None].to(rows.dtype)
        total: Tensor = (rows * weight).sum(1) / weight.sum(1).clamp(min=1)
        return total


def limit_spread(spread: Tensor, least: float) -> Tensor:
    """Raise standard deviations (F,) to `least` of their root mean square; return ones if all are zero."""
    level = float(spread.square().mean().sqrt())
    return spread.clamp(min=least * level) if level > 0 else torch.ones_like(spread)
