"""Flattened examples: rows are examples, each with all channels at all positions."""

from __future__ import annotations

from collections.abc import Sequence

from suture._base import SutureError
from suture.indices import FlatKernels, Needs
from suture.representations.accumulator_settings import AccumulatorSettings
from suture.representations.shapes import Shape

PAPER_EXAMPLES = 1000
"""Number of test examples of the alignment ``paper``."""


def make_flat_kernels(sources: Sequence[Shape], targets: Sequence[Shape], settings: AccumulatorSettings, *,
                      same: bool = False) -> FlatKernels | None:
    """Make the accumulator of Gram matrices of flattened examples, or return None if no index needs it.

    Args:
        sources, targets: shapes of the representations at the sites of each side.
        settings: indices and precision.
        same: both sides are the same representations (self-stitching).

    Raises:
        SutureError: tokens of texts, which have no flattened form.
    """
    requests = settings.select_requests("flatten")
    if not requests:
        return None
    _check_flat([*sources, *targets])
    keep = PAPER_EXAMPLES if any(r.index.needs is Needs.KEPT_KERNELS for r in requests) else 0
    return FlatKernels(len(sources), len(targets), same=same, keep=keep, precision=settings.precision)


def _check_flat(shapes: Sequence[Shape]) -> None:
    for s in shapes:
        if s.varies:
            raise SutureError("expected representations of one size for the alignments 'flatten' and "
                              f"'paper', got {s}, tokens of texts; write @pool")
