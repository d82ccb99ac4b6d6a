"""Indices between the cut and the whole representation of a site, at every rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

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
from suture.numbers import Ints, MomentBlock, Pair, Reservoir
from suture.representations import Accumulators, AccumulatorSettings
from suture.studies.probes.principal_components import Basis, cut_representation, find_batch_basis
from suture.studies.sensitivity_test.cut_moments import CutMoments, cut_rows

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

    def __init__(self, requests: Sequence[Request], rows: Tensor, labels: Tensor | None, most: int,
                 seed: int) -> None:
        self.requests, self._rows, self._most, self._seed = requests, rows.double(), most, seed
        self._labels = labels

    def compute(self, basis: Basis, rank: int) -> dict[str, Value]:
        """Compute the indices at a rank."""
        if not self.requests:
            return {}
        x, y = cut_rows(self._rows, basis, rank), self._rows
        asked = [r for r in self.requests if r.alignment == "pool"]
        needs = {r.index.needs for r in asked}
        data: dict[str, Any] = {"pool": {}}
        if needs & FROM_MOMENTS:
            data["pool"] |= dict.fromkeys(FROM_MOMENTS, self._make_pair(x, y, needs, rank))
        if Needs.ROWS in needs:
            chosen = self._sample()
            data["pool"][Needs.ROWS] = Sample.of(x[chosen], y[chosen])
        if len(asked) < len(self.requests):
            chosen = self._sample()
            labels = None if self._labels is None else self._labels[chosen].numpy()
            data[WITHIN] = prepare_within(x[chosen], y[chosen], labels, None, 0, self._seed)[0]
        return compute_indices(self.requests, data)

    def _make_pair(self, x: Tensor, y: Tensor, needs: set[Needs], rank: int) -> Pair:
        units, count = Needs.UNITS in needs, FOLDS if Needs.BLOCKS in needs else 1
        blocks = [MomentBlock.of(x[k::count], y[k::count], units=units) for k in range(min(count, len(x)))]
        whole = blocks[0].merge(*blocks[1:]) if len(blocks) > 1 else blocks[0]
        pair = Pair.of_block(whole, blocks if len(blocks) > 1 else ())
        return replace(pair, keys=(("rank", rank), ("rank", x.shape[1])))

    def _sample(self) -> Ints:
        """Return the numbers of the rows that a comparison keeps of as many examples."""
        reservoir = Reservoir(self._most, self._seed)
        reservoir.offer(len(self._rows))
        return reservoir.numbers


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

