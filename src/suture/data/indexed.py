"""Data whose examples suture can choose by number: tensors, arrays, tables of examples, Datasets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, SequentialSampler, Subset

from suture._base import convert_examples, expect
from suture.data.batch import Batch, Prepared
from suture.data.forms import LABELS, convert_array
from suture.data.sources.examples import Examples

_ARRAYS = (Tensor, np.ndarray)
NO_ROWS = torch.zeros(0, dtype=torch.int64)


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


def get_raw(data: Any) -> Any:
    return data.data if isinstance(data, Prepared) else data


def find_rows(data: Any) -> tuple[int, Callable[[Tensor], Any] | None] | None:
    """Return (number of examples, function from rows to a batch) where suture makes the batches, else None.

    The function is None for a map-style Dataset or a list of examples, which need a DataLoader.
    """
    pair = getattr(data, "tensors", data)
    if isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(t, _ARRAYS) for t in pair):
        inputs, labels = pair
        # A list of two tensors could be two batches without labels, unless the second can only hold labels.
        if isinstance(pair, tuple) or (labels.ndim == 1 < inputs.ndim
                                       and not _take_rows(labels, NO_ROWS).is_floating_point()):
            expect(inputs.ndim > 0 and labels.ndim > 0 and len(inputs) == len(labels),
                   f"as many labels as inputs {tuple(inputs.shape)}", f"labels {tuple(labels.shape)}")
            return len(inputs), _make_taker([inputs, labels], tuple)
    if not isinstance(data, Sized):
        return None
    if isinstance(data, Examples):
        return len(data), data.take
    if isinstance(data, _ARRAYS) and data.ndim:
        return len(data), _make_taker([data], next)
    if isinstance(data, Mapping):
        return _find_column_rows(data)
    if isinstance(data, list) and _holds_examples(data):
        return len(data), None
    # A Dataset of the library `datasets` is map-style, but not a subclass of PyTorch's.
    known = isinstance(data, Dataset) or (hasattr(data, "with_format") and hasattr(data, "__getitem__"))
    return (len(data), None) if known and not isinstance(data, IterableDataset) else None


def _find_column_rows(data: Mapping[str, Any]) -> tuple[int, Callable[[Tensor], Any]] | None:
    """Return the rows of a mapping of tensors, such as what a tokenizer returns."""
    if not data or not all(isinstance(v, _ARRAYS) and v.ndim for v in data.values()):
        return None
    lengths = {len(v) for v in data.values()}
    expect(len(lengths) == 1, "tensors with one entry for each example", f"lengths {sorted(lengths)}",
           "give batches")
    return lengths.pop(), _make_taker(data.values(), lambda taken: dict(zip(data, taken, strict=True)))


def _make_taker(parts: Iterable[Any], join: Callable[[Iterator[Tensor]], Any]) -> Callable[[Tensor], Any]:
    """Return a function from rows to these rows of tensors and arrays, joined in one item of a loader.

    Raises:
        SutureError: an array that does not hold numbers.
    """
    parts = list(parts)
    for part in parts:
        _take_rows(part, NO_ROWS)
    return lambda rows: join(_take_rows(part, rows) for part in parts)


def _take_rows(part: Any, rows: Tensor) -> Tensor:
    # An array is converted row by row, because it may be larger than the memory (np.memmap).
    return convert_array(part[rows.numpy()]) if isinstance(part, np.ndarray) else part[rows]


def _holds_examples(data: list[Any]) -> bool:
    """Return True for a list of single examples with named columns, rather than of batches."""
    first = data[0] if data else None
    if not isinstance(first, Mapping):
        return False
    label = next((first[k] for k in LABELS if k in first), None)
    ids = first.get("input_ids")
    return ((label is not None and np.ndim(label) == 0)
            or (isinstance(ids, list) and bool(ids) and isinstance(ids[0], int)))


def can_shuffle(data: Any) -> bool:
    """Return True where suture can choose the order: tensors, map-style Datasets and `suture.sources`."""
    return find_rows(get_raw(data)) is not None


def split_rows(data: Any, share: float, seed: int) -> tuple[Tensor, Tensor] | None:
    """Split a map-style Dataset or tensors (inputs, labels) at random in two, for the `rows` of `Batches`.

    Args:
        data: as `Batches` accepts them.
        share: share of the examples in the second part. Each part gets at least one.
        seed: seed of the split.

    Returns:
        Sorted indices of the two parts, or None for data without an index, such as a DataLoader.

    Raises:
        SutureError: fewer than two examples.
    """
    found = find_rows(get_raw(data))
    if found is None:
        return None
    n = found[0]
    expect(n > 1, "at least two examples, to hold some out", str(n))
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    last = min(n - 1, max(1, round(share * n)))
    return order[last:].sort().values, order[:last].sort().values


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
