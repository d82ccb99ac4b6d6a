"""Two streams of the same examples, one for each network."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
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
        SutureError: an iterator that can be read only once. During reading: the streams differ in length, in
            batch sizes or in labels. Different labels show that the examples do not correspond.
    """

    def __init__(self, source: Any, target: Any) -> None:
        self.source = Batches(source, name="the source loader")
        self.target = Batches(target, name="the target loader")

    def __len__(self) -> int:
        return len(self.source)

    def __iter__(self) -> Iterator[Batch]:
        ends: Any = object()
        for k, (x, y) in enumerate(zip_longest(self.source, self.target, fillvalue=ends)):
            if x is ends or y is ends:
                side = "source" if x is ends else "target"
                raise SutureError(f"the {side} loader ended after {k} batches, before the other; give both "
                                  "the same examples and batch size")
            if x.size != y.size:
                raise SutureError(f"expected paired batches of equal length, got {x.size} and {y.size} "
                                  f"examples in batch {k}; give both loaders the same batch size")
            labels, other = x.labels, y.labels
            if labels is not None and other is not None and not torch.equal(labels.cpu(), other.cpu()):
                raise SutureError(f"the labels of the two loaders differ in batch {k}: their examples do not "
                                  "correspond; use shuffle=False in both")
            yield Batch(x.source, y.source, labels if labels is not None else other)
