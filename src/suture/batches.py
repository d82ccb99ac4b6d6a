"""Data as it comes: one way to read batches of (inputs, labels) for both networks, in step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from suture._errors import SutureError

Progress = Callable[[str, int, int | None], None]
"""Called as ``progress(stage, done, total)``; total is None where it is not known."""


@dataclass(frozen=True)
class Batch:
    """One batch: inputs for the source network, inputs for the target network (often the same object), labels."""

    source: Any
    target: Any
    labels: Tensor | None

    @property
    def size(self) -> int:
        """Number of examples."""
        return count(self.source)


class Paired:
    """Two streams of the same examples, prepared differently for each network, read in step.

    Args:
        source, target: re-iterable streams of (inputs, labels), such as two unshuffled DataLoaders.

    Raises (while it is read):
        SutureError: one ends before the other, batches of unequal length, or labels that differ, which means that
            the examples do not correspond (a shuffled loader, for one).
    """

    def __init__(self, source: Iterable[Any], target: Iterable[Any]) -> None:
        self.source, self.target = source, target

    def __iter__(self) -> Iterator[Batch]:
        ends = object()
        a, b = iter(self.source), iter(self.target)
        for k in range(2**62):
            x, y = next(a, ends), next(b, ends)
            if x is ends and y is ends:
                return
            if x is ends or y is ends:
                side = "source" if x is ends else "target"
                raise SutureError(f"expected two loaders of equal length, the {side} loader ended after {k} batches; "
                                  "give both the same examples and batch size")
            (xi, labels), (yi, other) = split(x), split(y)
            if count(xi) != count(yi):
                raise SutureError(f"expected paired batches of equal length, got {count(xi)} and {count(yi)} examples "
                                  f"in batch {k}; give both loaders the same batch size")
            if labels is not None and other is not None and not torch.equal(labels.cpu(), other.cpu()):
                raise SutureError(f"the labels of the two loaders differ in batch {k}: their examples do not "
                                  "correspond; use shuffle=False in both")
            yield Batch(xi, yi, labels if labels is not None else other)


def split(item: Any) -> tuple[Any, Tensor | None]:
    """(inputs, labels) of what a loader yields: a pair, a mapping with "labels" or "label", or inputs alone."""
    if isinstance(item, Mapping):
        name = next((k for k in ("labels", "label") if k in item), None)
        inputs = {k: v for k, v in item.items() if k != name}
        return inputs, None if name is None else torch.as_tensor(item[name])
    if isinstance(item, tuple | list) and len(item) == 2:
        return item[0], torch.as_tensor(item[1])
    if isinstance(item, tuple | list) and len(item) == 1:
        return item[0], None
    if isinstance(item, Tensor):
        return item, None
    raise SutureError(f"expected batches (inputs, labels), got {type(item).__name__}; yield a pair of tensors")


def count(inputs: Any) -> int:
    """Number of examples in a batch of inputs: length of the first axis of its first tensor."""
    return len(next(tensors(inputs)))


def tensors(inputs: Any) -> Iterator[Tensor]:
    """The tensors in nested inputs, depth first.

    Raises:
        SutureError: there is none.
    """
    found = list(_tensors(inputs))
    if not found:
        raise SutureError(f"expected a tensor among the inputs, got {type(inputs).__name__}; "
                          "yield tensors, or tuples or dictionaries of them")
    return iter(found)


def _tensors(inputs: Any) -> Iterator[Tensor]:
    if isinstance(inputs, Tensor):
        yield inputs
    elif isinstance(inputs, Mapping):
        for v in inputs.values():
            yield from _tensors(v)
    elif isinstance(inputs, tuple | list):
        for v in inputs:
            yield from _tensors(v)


def convert(inputs: Any, fn: Callable[[Tensor], Tensor]) -> Any:
    """Nested inputs with `fn` applied to every tensor."""
    if isinstance(inputs, Tensor):
        return fn(inputs)
    if isinstance(inputs, Mapping):
        return {k: convert(v, fn) for k, v in inputs.items()}
    if isinstance(inputs, tuple | list):
        return type(inputs)(convert(v, fn) for v in inputs)
    return inputs


class _TensorBatches:
    """Batches of tensors in memory, cut by index and not example by example."""

    def __init__(self, inputs: Tensor, labels: Tensor, size: int, order: torch.Generator | None) -> None:
        self.inputs, self.labels, self.size, self.order = inputs, labels, size, order

    def __len__(self) -> int:
        return -(-len(self.inputs) // self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        n = len(self.inputs)
        order = torch.arange(n) if self.order is None else torch.randperm(n, generator=self.order)
        for rows in torch.split(order, self.size):
            yield self.inputs[rows], self.labels[rows]


class Batches:
    """Re-iterable batches, cut to a given size, on a device.

    Args:
        data: a DataLoader or any re-iterable of batches, a `Paired`, a map-style Dataset of (input, label), or a
            pair of tensors (inputs (N, ...), labels (N,)), also as a `TensorDataset`.
        size: rows per batch for datasets and tensors (loaders keep their own). Default 256.
        name: how error messages call it.
        shuffle, seed: draw a new order in every pass, the same for the same seed. Only for datasets and tensors.

    Raises:
        SutureError: inputs and labels of unequal length, an iterator that can be read only once, no examples.
    """

    def __init__(self, data: Any, *, size: int = 256, name: str = "data", shuffle: bool = False,
                 seed: int = 0) -> None:
        self.name = name
        self._stream = self._as_stream(data, size, shuffle, seed)

    def _as_stream(self, data: Any, size: int, shuffle: bool, seed: int) -> Iterable[Any]:
        if isinstance(data, tuple) and len(data) == 2 and all(isinstance(t, Tensor) for t in data):
            inputs, labels = data
            if len(inputs) != len(labels):
                raise SutureError(f"expected as many labels as inputs in {self.name}, got {len(labels)} labels for "
                                  f"{len(inputs)} inputs; pass (inputs, labels) of the same examples")
        else:
            inputs, labels = getattr(data, "tensors", ()) or (None, None)
        if isinstance(inputs, Tensor) and isinstance(labels, Tensor):
            if len(inputs) == 0:
                raise self._empty()
            return _TensorBatches(inputs, labels, size, torch.Generator().manual_seed(seed) if shuffle else None)
        if isinstance(data, Dataset) and isinstance(data, Sized):
            if len(data) == 0:
                raise self._empty()
            order = torch.Generator().manual_seed(seed)
            return DataLoader(data, batch_size=min(size, len(data)), shuffle=shuffle, generator=order)
        if isinstance(data, Iterator) or not isinstance(data, Iterable):
            raise SutureError(f"expected {self.name} that can be read more than once, got {type(data).__name__}; "
                              "pass a DataLoader, a Dataset, a list of batches or (inputs, labels)")
        return data

    def _empty(self) -> SutureError:
        return SutureError(f"expected at least one example in {self.name}, got none; check the split or the path")

    def __len__(self) -> int:
        """Number of batches, where the stream knows it; TypeError otherwise."""
        return len(self._stream)  # type: ignore[arg-type]

    def total(self) -> int | None:
        """Number of batches, or None."""
        try:
            return len(self)
        except TypeError:
            return None

    def __iter__(self) -> Iterator[Batch]:
        empty = True
        for item in self._stream:
            if isinstance(item, Batch):
                batch = item
            else:
                inputs, labels = split(item)
                batch = Batch(inputs, inputs, labels)
            if batch.labels is not None and len(batch.labels) != batch.size:
                raise SutureError(f"expected as many labels as inputs in {self.name}, got {len(batch.labels)} labels "
                                  f"for {batch.size} inputs in one batch; yield (inputs, labels) of the same examples")
            if batch.size:
                empty = False
                yield batch
        if empty:
            raise self._empty()


def on_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with all its tensors on `device`; what the two networks share stays shared."""
    def move(t: Tensor) -> Tensor:
        return t.to(device, non_blocking=True)

    source = convert(batch.source, move)
    target = source if batch.target is batch.source else convert(batch.target, move)
    return Batch(source, target, None if batch.labels is None else move(batch.labels))


def pieces(batch: Batch, size: int) -> Iterator[Batch]:
    """Cut a batch into micro-batches of at most `size` examples."""
    n = batch.size
    for start in range(0, n, size):
        rows = slice(start, start + size)

        def cut(t: Tensor, rows: slice = rows) -> Tensor:
            return t[rows] if t.ndim and len(t) == n else t

        source = convert(batch.source, cut)
        target = source if batch.target is batch.source else convert(batch.target, cut)
        yield Batch(source, target, None if batch.labels is None else batch.labels[rows])
