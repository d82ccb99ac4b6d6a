"""Streams of batches that suture cuts itself, and can therefore shuffle and split."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


class TensorStream:
    """Batches of tensors in memory, cut by index and not example by example."""

    def __init__(self, inputs: Tensor, labels: Tensor, size: int, order: torch.Generator | None,
                 rows: Tensor | None) -> None:
        self.inputs, self.labels, self.size, self.order = inputs, labels, size, order
        self.rows = torch.arange(len(inputs)) if rows is None else rows

    def __len__(self) -> int:
        return -(-len(self.rows) // self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        n = len(self.rows)
        order = self.rows if self.order is None else self.rows[torch.randperm(n, generator=self.order)]
        for rows in torch.split(order, self.size):
            yield self.inputs[rows], self.labels[rows]


class ExampleStream:
    """Batches of raw examples that a source reads ahead of the consumer."""

    def __init__(self, source: Any, size: int, order: torch.Generator | None, rows: Tensor | None) -> None:
        self.source, self.size, self.order = source, size, order
        self.rows = torch.arange(len(source)) if rows is None else rows

    def __len__(self) -> int:
        return -(-len(self.rows) // self.size)

    def __iter__(self) -> Iterator[tuple[Any, Tensor | None]]:
        rows = self.rows
        if self.order is not None:
            rows = rows[torch.randperm(len(rows), generator=self.order)]
        yield from self.source.read(rows, self.size)
