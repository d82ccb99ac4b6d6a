"""Settings of the accumulators: which statistics they hold, and in how many blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from suture.indices import Needs, Request, count_blocks
from suture.numbers import SAMPLE_ROWS


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
    """

    requests: Sequence[Request]
    jackknife: int = 0
    folds: int = 1
    sample: int = SAMPLE_ROWS
    seed: int = 0
    precision: torch.dtype = torch.float32
    fits_layers: bool = False

    def select_requests(self, alignment: str, *needs: Needs) -> list[Request]:
        """Return the requests of one alignment, limited to the given needs if there are any."""
        return [r for r in self.requests
                if r.alignment == alignment and (not needs or r.index.needs in needs)]

    @property
    def blocks(self) -> int:
        """Number of blocks of examples whose moments are kept apart."""
        return max(self.folds, count_blocks(self.jackknife, (r.index for r in self.requests)))
