"""Inputs of decoders that follow from labels and padding, added to every batch of a comparison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import nn

from suture.data import Batch
from suture.networks import complete_decoder_inputs


def make_completion(source: nn.Module, target: nn.Module | None) -> Callable[[Batch], Batch]:
    """Return a function that gives the decoders of both networks what follows from labels and padding."""
    def complete(batch: Batch) -> Batch:
        mine = complete_decoder_inputs(source, batch.source, batch.labels)
        if batch.target is batch.source and target in (None, source):
            theirs = mine
        else:
            theirs = complete_decoder_inputs(target or source, batch.target, batch.labels)
        unchanged = mine is batch.source and theirs is batch.target
        return batch if unchanged else replace(batch, source=mine, target=theirs)

    return complete
