"""Reading of items: rows in a chosen order, and items of a user's stream, whose errors are not suture's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from suture._base import run_foreign

_END: Any = object()


class RowStream:
    """Batches of rows, in order or in a new random order in every pass."""

    def __init__(self, take: Callable[[Tensor], Any], rows: Tensor, size: int,
                 generator: torch.Generator | None) -> None:
        self.take, self.rows, self.size, self.generator = take, rows, size, generator

    def __len__(self) -> int:
        return -(-len(self.rows) // self.size)

    def __iter__(self) -> Iterator[Any]:
        n = len(self.rows)
        rows = self.rows if self.generator is None else self.rows[torch.randperm(n, generator=self.generator)]
        return map(self.take, torch.split(rows, self.size))


def read_items(stream: Iterable[Any], name: str) -> Iterator[Any]:
    """Yield the items of a stream; errors in it are noted as those of the data `name`."""
    with run_foreign(f"reading the {name}"):
        items = iter(stream)
    while True:
        with run_foreign(f"reading the {name}"):
            item = next(items, _END)
        if item is _END:
            return
        yield item
