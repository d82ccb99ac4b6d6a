"""Examples that show what a network's output is, and how the source network's output is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from suture.data import Batch, Batches, can_shuffle, move_batch
from suture.networks import Readout, apply, disable_gradients, name_tensors, take_first
from suture.stitching import EXAMPLES


def find_labelled(first: Batch, test: Batches, device: torch.device) -> Batch:
    """Return the first batch of the data, or that of the test data if only these have labels."""
    tested = first if first.labels is not None else move_batch(next(iter(test)), device)
    return first if tested.labels is None else tested


def spread_examples(batches: Batches, data: Any, device: torch.device,
                    complete: Callable[[Batch], Batch]) -> Iterator[Batch]:
    """Yield batches of `data`: of a few examples, evenly spread, or the first ones of a stream."""
    n = batches.count_examples()
    if n is not None and can_shuffle(data):
        rows = torch.linspace(0, n - 1, min(n, EXAMPLES)).long()
        batches = Batches(data, rows=rows, size=EXAMPLES, device=device, complete=complete)
    for batch in batches:
        yield move_batch(batch, device)


@disable_gradients()
def find_readout(source: nn.Module, inputs: Any, readout: Readout | None) -> Readout | None:
    """Return the target network's readout if the source network has such an output too."""
    has = readout is not None and readout.path in name_tensors(apply(source, take_first(inputs)))
    return readout if has else None
