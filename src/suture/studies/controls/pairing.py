"""A negative control of data: the source network sees other examples than the target network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from suture._base import Count, Seed, SutureError, checked, expect
from suture.data import Batch, Batches
from suture.representations import get_token_mask


class PermutedExamples:
    """Batches whose source inputs are those of other examples.

    No example keeps its own, unless its padding is like no other's: texts change places at equal lengths.

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
        generator, partner = torch.Generator().manual_seed(seed), torch.arange(n)
        for rows in self._group(n):
            order = rows[torch.randperm(len(rows), generator=generator)]
            partner[order] = order.roll(1)  # one cycle through all examples of a group
        self._source = Batches(data, size=size, rows=partner)

    def _group(self, n: int) -> list[Tensor]:
        """Return the numbers of the examples with equal padding; tokens of unequal texts have no partners."""
        found: dict[bytes, list[int]] = {}
        start = 0
        for batch in self._target:
            mask = get_token_mask(batch.target)
            if mask is None:
                return [torch.arange(n)]
            for e in range(batch.size):
                found.setdefault(mask[e].cpu().numpy().tobytes(), []).append(start + e)
            start += batch.size
        return [torch.tensor(rows) for rows in found.values()]

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

    >>> permute = suture.controls.permuted_examples
    >>> suture.compare(a, b, permute(train), permute(test))

    Args:
        data: a Dataset, or tensors (inputs, labels).
        seed: of the permutation.
        batch_size: examples per batch.

    Raises:
        SutureError: data that cannot be read in another order, or a single example.
    """
    return PermutedExamples(data, seed, batch_size)
