"""Mean and standard deviation of a site's channels, for the standardisation in energy detectors."""

from __future__ import annotations

import torch
from torch import Tensor

from suture.ood.detectors.energy_detector import LEAST_CHANNEL_STD, EnergyDetector
from suture.representations import Shape, View, get_row_mask, to_grid


class ChannelMoments:
    """Mean and standard deviation of channels, updated batch by batch.

    The float64 sums are about the mean of the first batch.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape, self.rows = shape, 0
        self._shift = torch.zeros(shape.width)
        self._sum = self._squares = torch.zeros(shape.width, dtype=torch.float64)

    def update(self, x: Tensor, mask: Tensor | None) -> None:
        """Add one batch; of texts only the tokens that `mask` keeps."""
        grid, kept = to_grid(x.float(), self.shape, View.ALL), get_row_mask(self.shape, View.ALL, mask)
        rows = grid.flatten(0, 2) if kept is None else grid[kept]
        if not len(rows):
            return
        if not self.rows:
            self._shift = rows.mean(0)
        centred = rows - self._shift
        self._sum = self._sum + centred.sum(0).cpu().double()
        self._squares = self._squares + centred.square().sum(0).cpu().double()
        self.rows += len(rows)

    def set_buffers(self, detector: EnergyDetector) -> None:
        """Set the buffers of a detector, to NaN if no row was added."""
        mean = self._sum / self.rows
        std = (self._squares / self.rows - mean.square()).clamp(min=0).sqrt()
        typical = float(std.square().mean().sqrt())
        detector.mean.copy_(mean + self._shift.cpu().double())
        detector.std.copy_(std.clamp(min=LEAST_CHANNEL_STD * typical) if typical > 0
                           else torch.ones_like(std))
