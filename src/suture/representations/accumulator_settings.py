"""Settings of the accumulators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from suture.indices import Needs, Request, count_blocks


@dataclass(frozen=True)
class AccumulatorSettings:
    """Settings of `Accumulators`: indices, blocks, folds and sample.

    Attributes:
        requests: indices with their alignments.
        jackknife: number of blocks of examples for intervals; 0 for no intervals.
        folds: number of blocks that direct matching needs apart; 1 for no folds.
        sample: number of examples kept for indices that are computed from rows.
        seed: seed of that sample.
        precision: dtype of the products.
        fits_layers: True where stitching layers are fitted. The moments of the matrices that they map are
            then needed.
    """

    requests: Sequence[Request]
    jackknife: int = 0
    folds: int = 1
    sample: int = 2000
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
