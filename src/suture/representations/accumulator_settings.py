"""What accumulators are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from suture.indices import Needs, Request, count_blocks


@dataclass(frozen=True)
class AccumulatorSettings:
    """What is asked for.

    Attributes:
        requests: indices with their alignments.
        jackknife: blocks of examples for intervals; 0 for none.
        folds: blocks that direct matching needs kept apart; 1 for none.
        sample: examples kept for indices of rows.
        seed: of that sample.
        precision: dtype of the products.
        fits_layers: stitching layers are fitted, so that there are moments of the matrices that they map.
    """

    requests: Sequence[Request]
    jackknife: int = 0
    folds: int = 1
    sample: int = 2000
    seed: int = 0
    precision: torch.dtype = torch.float32
    fits_layers: bool = False

    def select_requests(self, alignment: str, *needs: Needs) -> list[Request]:
        """Requests of one alignment, of given needs."""
        return [r for r in self.requests
                if r.alignment == alignment and (not needs or r.index.needs in needs)]

    @property
    def blocks(self) -> int:
        """Blocks of examples whose moments are kept apart."""
        return max(self.folds, count_blocks(self.jackknife, (r.index for r in self.requests)))
