"""Indices between the cut and the whole representation of a site, at every rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from suture.compare import Setup
from suture.data import Batch
from suture.indices import (
    FOLDS,
    FROM_MOMENTS,
    STITCH,
    WITHIN,
    Needs,
    Request,
    Sample,
    Value,
    compute_indices,
    prepare_within,
)
from suture.numbers import Ints, Moments, Pair, Reservoir
from suture.representations import Accumulators, AccumulatorSettings
from suture.studies.probes.principal_components import Basis, cut_representation, find_batch_basis
from suture.studies.sensitivity_test.cut_moments import CutMoments
from suture.studies.sensitivity_test.unit_rows import UnitRows

PROJECTED = frozenset({Needs.MOMENTS, Needs.BLOCKS})
"""What the moments of a cut representation follow for from those of the whole one."""


@dataclass(frozen=True)
class Routes:
    """Requests by the way in which they are computed.

    Attributes:
        projected: from the moments of the whole representation.
        pooled: from the means over positions, which are kept for every example.
        passed: from a further pass over cut representations.
    """

    projected: Sequence[Request]
    pooled: Sequence[Request]
    passed: Sequence[Request]

    @classmethod
    def of(cls, requests: Sequence[Request], batchwise: bool) -> Routes:
        """Sort requests; components of each batch leave the further pass alone."""
        if batchwise:
            return cls((), (), requests)
        projected = [r for r in requests if r.alignment == STITCH and r.index.needs in PROJECTED]
        pooled = [r for r in requests if r.alignment in ("pool", WITHIN)]
        return cls(projected, pooled, [r for r in requests if r not in projected and r not in pooled])

    @property
    def folds(self) -> int:
        """Number of parts of the data whose sums are kept apart."""
        return FOLDS if any(r.index.needs is Needs.BLOCKS for r in self.projected) else 1


def compute_projected(requests: Sequence[Request], moments: CutMoments, rank: int) -> dict[str, Value]:
    """Compute indices of the matrices that a stitching layer maps."""
    data: dict[str, Any] = {STITCH: dict.fromkeys(FROM_MOMENTS, moments.get_pair(rank))}
    return compute_indices(requests, data) if requests else {}


class PooledIndices:
    """Indices of means over positions at one site, with the class of each example for those within classes.

    Args:
        rows: (N, p) means.
        most: number of rows for indices that need a sample of them, drawn with `seed`.
    """

    def __init__(self, requests: Sequence[Request], rows: Tensor, labels: Tensor | None, basis: Basis,
                 most: int, seed: int) -> None:
        self.requests, self._rows, self._basis = requests, rows.double(), basis
        self._asked = [r for r in requests if r.alignment == "pool"]
        self._needs = {r.index.needs for r in self._asked}
        self._labels, self._most, self._seed = labels, most, seed

    @cached_property
    def _moments(self) -> CutMoments:
        count = FOLDS if Needs.BLOCKS in self._needs else 1
        parts = (self._rows[k::count] for k in range(min(count, len(self._rows))))
        return CutMoments([Moments.of(x, x).x for x in parts], self._basis, torch.float64)

    @cached_property
    def _centred(self) -> Tensor:
        """Coordinates (N, p) of the components about the mean."""
        return (self._rows - self._rows.mean(0)) @ self._basis.vectors

    @cached_property
    def _units(self) -> UnitRows:
        return UnitRows(self._rows, self._basis)

    def compute(self, rank: int) -> dict[str, Value]:
        """Compute the indices at a rank."""
        data: dict[str, Any] = {"pool": {}}
        if self._needs & FROM_MOMENTS:
            data["pool"] |= dict.fromkeys(FROM_MOMENTS, self._make_pair(rank))
        if Needs.ROWS in self._needs:
            data["pool"][Needs.ROWS] = Sample.of(*self._sample(rank)[:2])
        if len(self._asked) < len(self.requests):
            data[WITHIN] = prepare_within(*self._sample(rank), None, 0, self._seed)[0]
        return compute_indices(self.requests, data)

    def _make_pair(self, rank: int) -> Pair:
        pair = self._moments.get_pair(rank)
        if Needs.HIGHER in self._needs:
            pair = replace(pair, moments=self._add_higher(pair.moments, rank))
        if Needs.UNITS not in self._needs:
            return pair
        return replace(pair, unit=(self._units.sum_cut(rank), self._units.whole_sums),
                       standard=self._units.compute_standard(rank))

    def _add_higher(self, moments: Moments, rank: int) -> Moments:
        """Add the sums of third and fourth order; squared norms of cut rows are those of few coordinates."""
        z, v = self._centred, self._basis.vectors
        whole, cut = z.square().sum(1), z[:, :rank].square().sum(1)
        third = torch.stack([cut, whole]) @ z
        of_cut = third[:, :rank] @ v[:, :rank].T
        of_whole = third @ v.T
        cross = replace(moments.cross, x_yy=of_cut[1], xx_y=of_whole[0], xx_yy=cut @ whole)
        return replace(moments, x=replace(moments.x, cubic=of_cut[0], quartic=cut @ cut), cross=cross,
                       y=replace(moments.y, cubic=of_whole[1], quartic=whole @ whole))

    def _sample(self, rank: int) -> tuple[Tensor, Tensor, Ints | None]:
        """Return the cut and whole rows that a comparison keeps of as many examples, and their classes."""
        reservoir = Reservoir(self._most, self._seed)
        reservoir.offer(len(self._rows))
        whole = self._rows[reservoir.numbers]
        labels = None if self._labels is None else self._labels[reservoir.numbers].numpy()
        return self._basis.cut(whole, rank), whole, labels


class PassedIndices:
    """Accumulators of cut against whole representations, one of each site, filled in a pass.

    Args:
        ranks: of each site.
        bases: of each site; None for the components of each batch.
    """

    def __init__(self, setup: Setup, requests: Sequence[Request], ranks: Sequence[tuple[int, ...]],
                 bases: Sequence[Basis] | None, fits_layers: bool = False) -> None:
        self.setup, self.ranks, self.bases = setup, ranks, bases
        settings = setup.settings.accumulator_settings
        how = AccumulatorSettings(requests, 0, settings.folds, settings.sample, settings.seed,
                                  settings.precision, fits_layers)
        self.accumulators = [Accumulators([shape] * len(of), [shape], how, setup.settings.alignment)
                             for shape, of in zip(setup.source.shapes, ranks, strict=True)]

    def add(self, piece: Batch, xs: list[Tensor]) -> None:
        """Add a piece of a batch."""
        masks = self.setup.source.find_masks(piece.source)
        for j, (x, shape) in enumerate(zip(xs, self.setup.source.shapes, strict=True)):
            basis = find_batch_basis(x, shape, masks) if self.bases is None else self.bases[j]
            cut = [cut_representation(x, shape, basis, r) for r in self.ranks[j]]
            self.accumulators[j].update(cut, [x], masks, masks, piece.labels)

    def compute(self, j: int) -> list[dict[str, Value]]:
        """Compute the indices of a site, rank by rank."""
        cells = [(k, 0) for k in range(len(self.ranks[j]))]
        found = self.accumulators[j].compute_all_values(cells)
        return [found[c] for c in cells]

