"""A few examples, evenly spread over data, without reading the others where that is possible."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, SequentialSampler, Subset

from suture._base import convert_examples
from suture.data.batch import Batch
from suture.data.indexed import RowStream


def spread_rows(total: int, n: int) -> Tensor:
    """Return the numbers of at most `n` of `total` examples, evenly spread."""
    rows = torch.linspace(0, total - 1, min(n, total), dtype=torch.float64).round().long()
    return torch.as_tensor(torch.unique(rows))


def choose_rows(stream: Iterable[Any], rows: Tensor) -> Iterable[Any] | None:
    """Return the stream of these examples alone, or None where they cannot be chosen by number."""
    if isinstance(stream, RowStream):
        return RowStream(stream.take, stream.rows[rows], stream.size, None)
    known = (isinstance(stream, DataLoader) and isinstance(stream.sampler, SequentialSampler)
             and not isinstance(stream.dataset, IterableDataset) and stream.batch_size is not None)
    if not known:
        return None
    assert isinstance(stream, DataLoader)
    return DataLoader(Subset(stream.dataset, rows.tolist()), batch_size=stream.batch_size,
                      collate_fn=stream.collate_fn)


def pick_examples(batches: Iterable[Batch], rows: Tensor) -> Iterator[Batch]:
    """Yield the parts of the batches that hold the examples of these numbers."""
    start, last = 0, int(rows[-1])
    for batch in batches:
        n = batch.size
        own = rows[(rows >= start) & (rows < start + n)] - start
        if len(own):
            yield _take(batch, own)
        start += n
        if start > last:
            return


def _take(batch: Batch, rows: Tensor) -> Batch:
    def pick(part: Any) -> Any:
        return part[rows.to(part.device)] if isinstance(part, Tensor) else part[rows]

    n = batch.size
    source = convert_examples(batch.source, n, pick)
    target = source if batch.target is batch.source else convert_examples(batch.target, n, pick)
    return replace(batch, source=source, target=target, raw=None, remake=None,
                   labels=None if batch.labels is None else pick(batch.labels))
