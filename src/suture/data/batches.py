"""Batches for both networks, read from data of any form or from two streams in step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import replace
from itertools import islice, zip_longest
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from suture._base import SutureError, convert_tensors, expect, hash_object, is_count
from suture.data.batch import Batch, Prepared, cut_batch
from suture.data.row_stream import RowStream
from suture.data.seen import TRIED, SeenData, SeenDigest, draws_other_examples, read_some
from suture.data.sources.examples import Examples


def split_labels(item: Any) -> tuple[Any, Tensor | None]:
    """Split a loader's item into (inputs, labels).

    The item is a pair, a mapping with "labels" or "label", or inputs alone.
    """
    if isinstance(item, Mapping):
        name = next((k for k in ("labels", "label") if k in item), None)
        inputs = {k: v for k, v in item.items() if k != name}
        return inputs, None if name is None else _as_labels(item[name])
    if isinstance(item, tuple | list) and len(item) == 2:
        return item[0], None if item[1] is None else _as_labels(item[1])
    if isinstance(item, tuple | list) and len(item) == 1:
        return item[0], None
    expect(isinstance(item, Tensor), "batches (inputs, labels)", type(item).__name__,
           "yield a pair of tensors")
    return item, None


def _as_labels(given: Any) -> Tensor:
    """Convert labels to a tensor. Whole numbers become int64, which the losses need."""
    try:
        labels = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as e:
        raise SutureError(f"expected labels that are numbers, got {type(given).__name__} ({e}); "
                          "yield a tensor of class numbers") from e
    expect(labels.ndim > 0, "batches of examples", "a single example with one label",
           "put a DataLoader around them, or pass tensors (inputs, labels)")
    return labels if labels.is_floating_point() or labels.is_complex() else labels.long()


def _drop_placeholders(batch: Batch) -> Batch:
    """Return a batch without labels if all of them are -1, or all -100, as in test sets without labels."""
    labels = batch.labels
    if labels is None or labels.ndim != 1 or labels.is_floating_point() or labels.is_complex():
        return batch
    return replace(batch, labels=None) if any((labels == k).all() for k in (-1, -100)) else batch


class Batches:
    """Re-iterable batches of a given size.

    Args:
        data: a DataLoader or any re-iterable of batches, a `Paired`, a `Prepared`, a map-style Dataset of
            (input, label), or a pair of tensors (inputs (N, ...), labels (N,)), also as a `TensorDataset` of
            two.
        size: examples per batch (default 256), for datasets and tensors. Loaders keep their own size.
        name: name of the data in messages.
        shuffle, seed: draw a new order in every pass, for datasets and tensors. `seed` decides all orders.
        rows: use only these examples, in this order (int64 indices, see `split_rows`), likewise.
        most: use only the first examples, at most this many. Default: all.
        device: device on which raw examples are prepared (`Prepared`). Default: the device they are on.
        watched: compute the digests of what each whole pass sees, for `seen`.
        complete: function that adds to each batch what the networks need. Default: nothing.

    Attributes:
        seen: what the last whole pass saw; None before, and unless `watched`.
        running: digest of what the last pass has seen so far, likewise.
        order: generator of the orders of the passes; None where suture does not shuffle.

    Raises:
        SutureError: inputs and labels of unequal length, an iterator that can be read only once, no examples,
            a size or a number of examples below 1, or `rows` of data without an index.
    """

    def __init__(self, data: Any, *, size: int = 256, name: str = "data", shuffle: bool = False,
                 seed: int = 0, rows: Tensor | None = None, most: int | None = None,
                 device: torch.device | None = None, watched: bool = False,
                 complete: Callable[[Batch], Batch] | None = None) -> None:
        expect(most is None or is_count(most), f"at least 1 example of {name}", most)
        expect(is_count(size), f"a batch size of at least 1 for {name}", size)
        self.name, self._most, self._device, self.watched = name, most, device, watched
        self.seen: SeenData | None = None
        self.running: SeenDigest | None = None
        self.complete, self._prepared = complete, data if isinstance(data, Prepared) else None
        generator = torch.Generator().manual_seed(seed) if shuffle else None
        self._stream = self._open_stream(_get_raw(data), size, generator, rows)
        self.order = generator if can_shuffle(data) else None

    def _open_stream(self, data: Any, size: int, generator: torch.Generator | None,
                     rows: Tensor | None) -> Iterable[Any]:
        found = _find_rows(data)
        if found is None:
            if rows is not None:
                raise SutureError(f"expected {self.name} that can be split, got {type(data).__name__}; pass "
                                  "a Dataset or (inputs, labels)")
            if isinstance(data, Iterator) or not isinstance(data, Iterable):
                raise SutureError(f"expected {self.name} that can be read more than once, got "
                                  f"{type(data).__name__}; pass a DataLoader, a Dataset or (inputs, labels)")
            return data
        n, take = found
        if n == 0:
            raise self._make_empty_error()
        rows = torch.arange(n) if rows is None else rows
        rows = rows if self._most is None else rows[:self._most]
        if take is None:
            return DataLoader(Subset(data, rows.tolist()), batch_size=size, shuffle=generator is not None,
                              generator=generator)
        return RowStream(take, rows, size, generator)

    def _make_empty_error(self) -> SutureError:
        return SutureError(f"expected at least one example in {self.name}, got none; check the "
                           "split or the path")

    def __len__(self) -> int:
        return len(self._stream)  # type: ignore[arg-type]

    def count_batches(self) -> int | None:
        """Return the number of batches, or None where it is unknown."""
        try:
            return len(self) if self._most is None else None
        except TypeError:
            return None

    def count_examples(self) -> int | None:
        """Return the number of examples of a pass, or None where it is unknown."""
        counted = self._stream.rows if isinstance(self._stream, RowStream) else getattr(
            self._stream, "sampler", None)
        if not isinstance(counted, Sized):
            return None
        return len(counted) if self._most is None else min(len(counted), self._most)

    def __iter__(self) -> Iterator[Batch]:
        if not self.watched:
            yield from self._read()
            return
        digest = self.running = SeenDigest()
        for batch in self._read():
            digest.update(batch)
            yield batch
        self.seen = digest.finish()

    def iterate(self, first: int) -> Iterator[Batch]:
        """Yield the batches of a pass, which is not watched, after the first ones.

        These are not read where suture makes the batches.
        """
        return self._read(first)

    def read_again(self) -> SeenData:
        """Read all data of a `watched` stream, and return what was seen."""
        for _ in self:
            pass
        assert self.seen is not None
        return self.seen

    def is_random(self) -> bool:
        """Try if a few examples differ when they are read twice, as with random augmentation."""
        one, other = (hash_object(self._try_examples()).state for _ in range(2))
        return one != other or draws_other_examples(self._stream)

    def _try_examples(self) -> Any:
        whole = self._stream
        if isinstance(whole, Paired):
            return whole.source._try_examples(), whole.target._try_examples()
        items = whole.take(whole.rows[:TRIED]) if isinstance(whole, RowStream) else read_some(whole)
        if self._prepared is None:
            return items
        made = self._prepared.batch(*split_labels(items))
        return made.source, made.target, made.labels

    def _read(self, first: int = 0) -> Iterator[Batch]:
        empty, left, labelled = first == 0, self._most, None
        stream = (self._stream.iterate(first) if isinstance(self._stream, RowStream)
                  else islice(self._stream, first, None))
        for item in stream:
            if left is not None and left <= 0:
                return
            batch = item if isinstance(item, Batch) else self._make_batch(*split_labels(item))
            if batch.labels is not None and len(batch.labels) != batch.size:
                raise SutureError(f"expected as many labels as inputs in {self.name}, got "
                                  f"{len(batch.labels)} labels for {batch.size} inputs in one batch")
            batch = _drop_placeholders(batch)
            if batch.size:
                empty, found = False, batch.labels is not None
                expect(labelled in (None, found), f"labels in every batch of {self.name}, or in none", "both",
                       "leave out the examples without a label, or all labels")
                labelled, batch = found, batch if self.complete is None else self.complete(batch)
                yield batch if left is None or batch.size <= left else next(cut_batch(batch, left))
                left = None if left is None else left - batch.size
        if empty:
            raise self._make_empty_error()

    def _make_batch(self, inputs: Any, labels: Tensor | None) -> Batch:
        if self._prepared is None:
            return Batch(inputs, inputs, labels)
        if self._device is not None:
            inputs = convert_tensors(inputs, lambda t: t.to(self._device, non_blocking=True))
        return self._prepared.batch(inputs, labels)


def _get_raw(data: Any) -> Any:
    return data.data if isinstance(data, Prepared) else data


def _find_rows(data: Any) -> tuple[int, Callable[[Tensor], Any] | None] | None:
    """Return (number of examples, function from rows to a batch) where suture makes the batches, else None.

    The function is None for a map-style Dataset, which needs a DataLoader.
    """
    pair = getattr(data, "tensors", data)
    if isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(t, Tensor) for t in pair):
        inputs, labels = pair
        # A list of two tensors could be two batches without labels, unless the second can only hold labels.
        if isinstance(pair, tuple) or (labels.ndim == 1 < inputs.ndim and not labels.is_floating_point()):
            expect(inputs.ndim > 0 and labels.ndim > 0 and len(inputs) == len(labels),
                   f"as many labels as inputs {tuple(inputs.shape)}", f"labels {tuple(labels.shape)}")
            return len(inputs), lambda rows: (inputs[rows], labels[rows])
    if not isinstance(data, Sized):
        return None
    if isinstance(data, Examples):
        return len(data), data.take
    # A Dataset of the library `datasets` is map-style, but not a subclass of PyTorch's.
    known = isinstance(data, Dataset) or (hasattr(data, "with_format") and hasattr(data, "__getitem__"))
    return (len(data), None) if known and not isinstance(data, IterableDataset) else None


def can_shuffle(data: Any) -> bool:
    """Return True where suture can choose the order: tensors, map-style Datasets and `suture.sources`."""
    return _find_rows(_get_raw(data)) is not None


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
    found = _find_rows(_get_raw(data))
    if found is None:
        return None
    n = found[0]
    expect(n > 1, "at least two examples, to hold some out", str(n))
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    last = min(n - 1, max(1, round(share * n)))
    return order[last:].sort().values, order[:last].sort().values


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
