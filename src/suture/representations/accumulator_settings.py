"""Settings of the accumulators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from suture._base import SutureError
from suture.indices import FlatKernels, Needs, Request, count_blocks
from suture.numbers import SAMPLE_ROWS
from suture.representations.shapes import Shape

PAPER_EXAMPLES = 1000
"""Number of test examples of the alignment ``paper``."""


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

    def make_flat_kernels(self, sources: Sequence[Shape], targets: Sequence[Shape],
                          same: bool) -> FlatKernels | None:
        """Make the accumulator of Gram matrices of flattened examples, or return None if no index needs it.
        """
        requests = self.select_requests("flatten")
        if not requests:
            return None
        for s in (*sources, *targets):
            if s.varies:
                raise SutureError("expected representations of one size for the alignments 'flatten' and "
                                  f"'paper', got {s}, tokens of texts; write @pool")
        keep = PAPER_EXAMPLES if any(r.index.needs is Needs.KEPT_KERNELS for r in requests) else 0
        return FlatKernels(len(sources), len(targets), same=same, keep=keep, precision=self.precision)
