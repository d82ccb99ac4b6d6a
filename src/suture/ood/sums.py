"""Sums of rows about a shift, in total and by class."""

from __future__ import annotations

import torch
from torch import Tensor


class ShiftedSums:
    """Sums of rows by class, about the mean of the first batch: a mean far above the spread costs no digits.

    Products are float32, their sums float64 on the CPU.

    Args:
        pairs: sum the products of all pairs of features. Default: their squares alone.

    Attributes:
        counts: (K,) number of rows of each class, in order of appearance.
    """

    def __init__(self, pairs: bool = False) -> None:
        self._pairs = pairs
        self._numbers: dict[int, int] = {}
        self.counts = torch.zeros(0, dtype=torch.float64)
        self._shift = self._totals = self._products = torch.zeros(0, dtype=torch.float64)

    @torch.no_grad()
    def update(self, rows: Tensor, labels: Tensor | None = None) -> None:
        """Add rows (N, F), and their class numbers (N,), any integers; None: one class for all."""
        if not len(rows):
            return
        if not len(self.counts):
            self._shift = rows.mean(0)
            self._totals = torch.zeros(0, rows.shape[1], dtype=torch.float64)
            self._products = torch.zeros(rows.shape[1:] * (2 if self._pairs else 1), dtype=torch.float64)
        centred = rows - self._shift
        products = centred.T @ centred if self._pairs else centred.square().sum(0)
        self._products += products.cpu().double()
        found = [0] if labels is None else labels.tolist()
        classes = torch.tensor([self._numbers.setdefault(c, len(self._numbers)) for c in found])
        more = len(self._numbers) - len(self.counts)
        self.counts = torch.cat([self.counts, self.counts.new_zeros(more)])
        self._totals = torch.cat([self._totals, self._totals.new_zeros(more, rows.shape[1])])
        each = len(rows) / len(classes)
        self.counts.index_add_(0, classes, self.counts.new_full(classes.shape, each))
        totals = centred.sum(0, keepdim=True) if labels is None else centred
        self._totals.index_add_(0, classes, totals.cpu().double())

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(self.counts.sum())

    def compute_within(self) -> tuple[Tensor, Tensor]:
        """Return the means (K, F) of the classes, and the mean scatter about them, (F, F) or (F,)."""
        return self._describe(self._totals, self.counts[:, None])

    def compute_overall(self) -> tuple[Tensor, Tensor]:
        """Return the mean (1, F) of all rows, and the mean scatter about it."""
        return self._describe(self._totals.sum(0, keepdim=True), self.counts.sum().view(1, 1))

    def _describe(self, totals: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        means = totals / counts
        explained = totals.T @ means if self._pairs else (totals * means).sum(0)
        return means + self._shift.cpu().double(), (self._products - explained) / self.n


def limit_spread(spread: Tensor, least: float) -> Tensor:
    """Raise standard deviations (F,) to `least` of their root mean square; return ones if all are zero."""
    level = float(spread.square().mean().sqrt())
    return spread.clamp(min=least * level) if level > 0 else torch.ones_like(spread)
