"""A negative control of data: the source network sees other examples than the target network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from suture._base import Count, Seed, SutureError, checked, expect
from suture.data import Batch, Batches


class PermutedExamples:
    """Batches whose source inputs are those of other examples; no example keeps its own.

    Args:
        data: examples that can be read by number.
        seed: of the permutation.
        size: examples per batch.
    """

    def __init__(self, data: Any, seed: int, size: int) -> None:
        self._target = Batches(data, size=size)
        n = self._target.count_examples()
        if n is None:
            raise SutureError("expected examples that can be read in another order, got a stream; give "
                              "a Dataset or (inputs, labels)")
        expect(n > 1, "at least 2 examples to permute", n)
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
        partner = torch.empty(n, dtype=torch.long)
        partner[order] = order.roll(1)  # one cycle through all examples
        self._source = Batches(data, size=size, rows=partner)

    def __len__(self) -> int:
        return len(self._target)

    def __iter__(self) -> Iterator[Batch]:
        for x, y in zip(self._source, self._target, strict=True):
            yield Batch(x.source, y.target, y.labels)


@checked
def permuted_examples(data: Any, seed: Seed = 0, *, batch_size: Count = 256) -> PermutedExamples:
    """Return data in which the source network sees other examples than the target network.

    The labels are the target network's. Whatever calls two networks similar on such data sees what all
    examples have in common.

    >>> suture.compare(a, b, suture.controls.permuted_examples(train), suture.controls.permuted_examples(test))

    Args:
        data: a Dataset, or tensors (inputs, labels).
        seed: of the permutation.
        batch_size: examples per batch.

    Raises:
        SutureError: data that cannot be read in another order, or a single example.
    """
    return PermutedExamples(data, seed, batch_size)
