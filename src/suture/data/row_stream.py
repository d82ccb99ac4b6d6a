"""Batches of rows that suture makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor


class RowStream:
    """Batches of rows, in order or in a new random order in every pass."""

    def __init__(self, take: Callable[[Tensor], Any], rows: Tensor, size: int,
                 generator: torch.Generator | None) -> None:
        self.take, self.rows, self.size, self.generator = take, rows, size, generator

    def __len__(self) -> int:
        return -(-len(self.rows) // self.size)

    def __iter__(self) -> Iterator[Any]:
        return self.iterate(0)

    def iterate(self, first: int) -> Iterator[Any]:
        """Return the batches of a pass after the first ones, which are not read."""
        n = len(self.rows)
        rows = self.rows if self.generator is None else self.rows[torch.randperm(n, generator=self.generator)]
        return map(self.take, torch.split(rows, self.size)[first:])
