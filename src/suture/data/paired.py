"""Two streams of the same examples, one for each network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from suture._base import SutureError
from suture.data.batch import Batch
from suture.data.batches import Batches


class Paired:
    """Two streams of the same examples, prepared differently for each network, read in step.

    Args:
        source, target: data as `Batches` accepts them, such as two unshuffled DataLoaders.

    Raises:
        SutureError: an iterator that can be read only once. During reading: one stream ends before the other,
            batches differ in length, or labels differ. Labels that differ mean that the examples do not
            correspond, for example in a shuffled loader.
    """

    def __init__(self, source: Any, target: Any) -> None:
        self.source = Batches(source, name="the source loader")
        self.target = Batches(target, name="the target loader")

    def __len__(self) -> int:
        """Return the number of batches; raise TypeError where the source loader does not know it."""
        return len(self.source)

    def __iter__(self) -> Iterator[Batch]:
        ends = object()
        a, b = iter(self.source), iter(self.target)
        for k in range(2**62):
            x, y = next(a, ends), next(b, ends)
            if x is ends and y is ends:
                return
            if not isinstance(x, Batch) or not isinstance(y, Batch):
                side = "source" if x is ends else "target"
                raise SutureError(f"expected two loaders of equal length, the {side} loader ended after {k} "
                                  "batches; give both the same examples and batch size")
            labels, other = x.labels, y.labels
            if x.size != y.size:
                raise SutureError(f"expected paired batches of equal length, got {x.size} and {y.size} "
                                  f"examples in batch {k}; give both loaders the same batch size")
            if labels is not None and other is not None and not torch.equal(labels.cpu(), other.cpu()):
                raise SutureError(f"the labels of the two loaders differ in batch {k}: their examples do not "
                                  "correspond; use shuffle=False in both")
            yield Batch(x.source, y.source, labels if labels is not None else other)
