"""Batches that pass a network whole, because their components are those of the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

import torch

from suture._base import report_out_of_memory
from suture.compare import Setup
from suture.data import Batch, MicroBatch, move_batch

T = TypeVar("T")


class WholeBatches(MicroBatch):
    """A micro-batch that is never cut; memory that runs out is an error. `most` is the largest one so far."""

    def map(self, batch: Batch, device: torch.device | None,
            work: Callable[[Batch], T]) -> Iterator[tuple[Batch, T]]:
        """Yield the batch with the result of `work`."""
        self.most = max(self.most, batch.size)
        piece = batch if device is None else move_batch(batch, device)
        with report_out_of_memory("a whole batch", "write a smaller batch_size, or basis='data'"):
            done = work(piece)
        yield piece, done


def pass_whole_batches(setup: Setup) -> Setup:
    """Return a setup whose batches pass the networks whole."""
    return replace(setup, pieces=WholeBatches(setup.settings.batch_size))
