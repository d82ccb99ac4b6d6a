"""Settings of the accumulators of all cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from suture.indices import Needs, Request, count_blocks
from suture.numbers import SAMPLE_ROWS, Ints


@dataclass(frozen=True)
class AccumulatorSettings:
    """Settings of `Accumulators`.

    Attributes:
        requests: indices with their alignments.
        jackknife: number of blocks of examples for intervals; 0 for no intervals.
        folds: number of blocks that direct matching needs for cross-validation; 1 for none.
        sample, seed: number of examples kept for indices that need rows, and the seed of this sample.
        precision: dtype of the products.
        fits_layers: True if stitching layers are fitted; the moments of their matrices are then accumulated.
        nulls: number of permutations for nulls; 0 for closed forms alone.
        groups: group of each example, if some belong together.
        within: class of each example for ``@within``; None for the labels of the data.
    """

    requests: Sequence[Request]
    jackknife: int = 0
    folds: int = 1
    sample: int = SAMPLE_ROWS
    seed: int = 0
    precision: torch.dtype = torch.float32
    fits_layers: bool = False
    nulls: int = 0
    groups: Ints | None = None
    within: Ints | None = None

    def select_requests(self, alignment: str, *needs: Needs) -> list[Request]:
        """Return the requests of one alignment, limited to the given needs if there are any."""
        return [r for r in self.requests
                if r.alignment == alignment and (not needs or r.index.needs in needs)]

    @property
    def blocks(self) -> int:
        """Number of blocks of examples whose moments are kept apart."""
        return max(self.folds, count_blocks(self.jackknife, (r.index for r in self.requests)))

    def select_closed(self, alignment: str) -> list[Request]:
        """Return the requests of one alignment with a null in closed form that may hold."""
        return [r for r in self.select_requests(alignment) if r.index.null_form and self.groups is None]
