"""Moments of rows that are examples, averaged over their positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from suture.indices import FROM_MOMENTS, STITCH, Needs
from suture.numbers import NonFiniteError, Pair, UnitRowSums, merge_all, standardise_rows
from suture.representations.accumulator_settings import AccumulatorSettings
from suture.representations.aligned_moments import AlignedMoments
from suture.representations.alignment import Alignment
from suture.representations.left_out import LeftOut
from suture.representations.shapes import Kind, Shape
from suture.representations.token_masks import Masks
from suture.representations.views import View, to_grid

_MEANS_AT_ONCE = 1000
"""Number of means added at once: with few rows, an addition to the sums costs more than the products."""


class PooledMoments:
    """Moments of pooled examples, plain and with standardised rows, and sums of rows of unit length.

    `wanted` holds the ``"plain"`` and the ``"standard"`` moments, as far as the settings ask for them.
    """

    scratch = ("settings", "alignments", "_shapes")

    def __init__(self, sources: Sequence[Shape], targets: Sequence[Shape], settings: AccumulatorSettings, *,
                 same: bool = False) -> None:
        self.settings, self._shapes = settings, (list(sources), list(targets))
        how: dict[str, Any] = {"same": same, "precision": settings.precision}
        xs, ys = ([Shape(Kind.VECTOR, s.width) for s in side] for side in self._shapes)
        # Rows of two vectors are examples under either alignment.
        has_vectors = all(any(s.kind is Kind.VECTOR for s in side) for side in self._shapes)
        self.wanted: dict[str, AlignedMoments] = {}
        if settings.select_requests("pool", *FROM_MOMENTS):
            higher = bool(settings.select_requests("pool", Needs.HIGHER) or settings.select_closed("pool"))
            self.wanted["plain"] = AlignedMoments(xs, ys, **how, folds=settings.blocks, higher=higher)
        self._blocks = settings.blocks if settings.jackknife else 1
        if (settings.select_requests("pool", Needs.UNITS)
                or (has_vectors and settings.select_requests(STITCH, Needs.UNITS))):
            self.wanted["standard"] = AlignedMoments(xs, ys, **how, folds=self._blocks)
        self.alignments = {(i, j): Alignment(x, y) for i, x in enumerate(xs) for j, y in enumerate(ys)}
        self._units: dict[tuple[int, int, int], UnitRowSums] = {}
        self._waiting: list[tuple[list[Tensor], list[Tensor]]] = []

    def pool(self, side: int, tensors: Sequence[Tensor], mask: Masks) -> list[Tensor]:
        """Compute the (N, C) means over positions of the sources (side 0) or the targets (side 1)."""
        means = [to_grid(x.to(self.settings.precision), s, View.POOLED, mask)[:, 0, 0, 0]
                 for x, s in zip(tensors, self._shapes[side], strict=True)]
        for k, mean in enumerate(means):
            if not torch.isfinite(mean).all():
                raise NonFiniteError("target" if side else "source", k)
        return means

    def update(self, xs: list[Tensor], ys: list[Tensor]) -> None:
        """Queue the means of one batch, and add the queued means once there are enough of them."""
        self._waiting.append((xs, ys))
        if sum(len(x[0]) for x, _ in self._waiting) >= _MEANS_AT_ONCE:
            self.flush()

    def start_at(self, number: int) -> None:
        """Begin with an example in the middle of the data."""
        for moments in self.wanted.values():
            moments.start_at(number)

    def absorb(self, *others: PooledMoments) -> None:
        """Add the sums of other examples."""
        for part in (self, *others):
            part.flush()
        for name, moments in self.wanted.items():
            moments.absorb(*(other.wanted[name] for other in others))
        for other in others:
            for key, found in other._units.items():
                self._units[key] = self._units[key].merge(found) if key in self._units else found

    def flush(self) -> None:
        if not self._waiting:
            return
        xs, ys = ([torch.cat(site) for site in zip(*side, strict=True)]
                  for side in zip(*self._waiting, strict=True))
        self._waiting.clear()
        if "plain" in self.wanted:
            self.wanted["plain"].update(xs, ys)
        if "standard" in self.wanted:
            start = self.wanted["standard"].number
            self.wanted["standard"].update([standardise_rows(x) for x in xs],
                                           [standardise_rows(y) for y in ys])
            self._add_unit_rows((xs, ys), start)

    def _add_unit_rows(self, sides: tuple[list[Tensor], list[Tensor]], start: int) -> None:
        """Add rows of unit length to the sums of their blocks; `start` is the number of the first example."""
        for side, tensors in enumerate(sides):
            for site, x in enumerate(tensors):
                for k in range(self._blocks):
                    found = UnitRowSums.of(x[(k - start) % self._blocks::self._blocks])
                    before = self._units.get((side, site, k))
                    self._units[side, site, k] = found if before is None else before.merge(found)

    def add_unit_sums(self, pair: Pair, i: int, j: int, left: LeftOut | None = None) -> Pair:
        """Add sums of unit rows and moments of standardised rows to a cell, if the settings ask for them.

        `left` says which block is left out of them.
        """
        standard = self.wanted.get("standard")
        if standard is None:
            return pair
        held = [k for k in range(self._blocks)
                if self._units[0, i, k].n and (left is None or k != left.number)]
        source, target = (merge_all(self._units[side, site, k] for k in held)
                          for side, site in ((0, i), (1, j)))
        return replace(pair, unit=(source, target), standard=(left or standard).get_moments(i, j))
