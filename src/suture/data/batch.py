"""One batch of examples for both networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from suture._base import convert_tensors, count_examples, list_tensors


@dataclass(frozen=True)
class Batch:
    """One batch: inputs of the source network, inputs of the target network (often the same object), labels.

    Where suture prepared the inputs, `raw` holds the raw examples and `remake` prepares them again.
    """

    source: Any
    target: Any
    labels: Tensor | None
    raw: Any = None
    remake: Callable[[Any, Tensor | None], Batch] | None = None

    @property
    def size(self) -> int:
        return count_examples(self.source)


def move_batch(batch: Batch, device: torch.device) -> Batch:
    """Move all tensors of a batch to `device`. Inputs that both networks share stay shared."""
    def move(t: Tensor) -> Tensor:
        return t.to(device, non_blocking=True)

    source = convert_tensors(batch.source, move)
    target = source if batch.target is batch.source else convert_tensors(batch.target, move)
    labels = None if batch.labels is None else move(batch.labels)
    return Batch(source, target, labels, convert_tensors(batch.raw, move), batch.remake)


def is_same_batch(one: Batch, other: Batch) -> bool:
    """Return True where two batches hold the same numbers."""
    pairs = zip(*(list_tensors([b.source, b.target, b.labels]) for b in (one, other)), strict=True)
    return one.size == other.size and all(a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num())
                                          for a, b in pairs)


def cut_batch(batch: Batch, size: int) -> Iterator[Batch]:
    """Cut a batch into micro-batches of at most `size` examples."""
    n = batch.size
    for start in range(0, n, size):
        rows = slice(start, start + size)

        def cut(t: Tensor, rows: slice = rows) -> Tensor:
            return t[rows] if t.ndim and len(t) == n else t

        source = convert_tensors(batch.source, cut)
        target = source if batch.target is batch.source else convert_tensors(batch.target, cut)
        yield Batch(source, target, None if batch.labels is None else batch.labels[rows])
