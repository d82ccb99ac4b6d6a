"""Batches of (inputs, labels) for both networks, read in step from data of any form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from suture._base import SutureError, convert_tensors, count_examples
from suture.data.batch import Batch, cut_batch
from suture.data.prepared import Prepared
from suture.data.streams import ExampleStream, TensorStream


def split_labels(item: Any) -> tuple[Any, Tensor | None]:
    """Split what a loader yields into (inputs, labels).

    A loader yields a pair, a mapping with "labels" or "label", or inputs alone.
    """
    if isinstance(item, Mapping):
        name = next((k for k in ("labels", "label") if k in item), None)
        inputs = {k: v for k, v in item.items() if k != name}
        return inputs, None if name is None else _as_labels(item[name])
    if isinstance(item, tuple | list) and len(item) == 2:
        return item[0], None if item[1] is None else _as_labels(item[1])
    if isinstance(item, tuple | list) and len(item) == 1:
        return item[0], None
    if isinstance(item, Tensor):
        return item, None
    raise SutureError(f"expected batches (inputs, labels), got {type(item).__name__}; yield "
                      "a pair of tensors")


def _as_labels(given: Any) -> Tensor:
    """Convert labels to a tensor; whole numbers become int64, because the losses refuse the narrow types."""
    try:
        labels = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as e:
        raise SutureError(f"expected labels that are numbers, got {type(given).__name__} ({e}); "
                          "yield a tensor of class numbers") from e
    if labels.ndim == 0:
        raise SutureError("expected batches of examples, got a single example with one label; "
                          "put a DataLoader around them, or pass tensors (inputs, labels)")
    return labels if labels.is_floating_point() or labels.is_complex() else labels.long()


class Batches:
    """Re-iterable batches, cut to a given size.

    Args:
        data: a DataLoader or any re-iterable of batches, a `Paired`, a `Prepared`, a map-style Dataset of
            (input, label), or a pair of tensors (inputs (N, ...), labels (N,)), also as a `TensorDataset` of
            two.
        size: rows per batch for datasets and tensors (loaders keep their own). Default 256.
        name: name of the data in error messages.
        shuffle, seed: draw a new order in every pass. The same seed gives the same orders. Only for datasets
            and tensors.
        rows: use only these examples, in this order (int64 indices, see `split_rows`). Only for datasets and
            tensors.
        most: use at most this many examples of each pass. Default: all.
        device: device on which raw examples are prepared (`Prepared`). Default: the device they are on.

    Raises:
        SutureError: inputs and labels of unequal length, an iterator that can be read only once, no examples,
            a size or a number of examples below 1, or rows of data without an index.
    """

    def __init__(self, data: Any, *, size: int = 256, name: str = "data", shuffle: bool = False,
                 seed: int = 0, rows: Tensor | None = None, most: int | None = None,
                 device: torch.device | None = None) -> None:
        self.name, self._most, self._device = name, most, device
        self._prepared = data if isinstance(data, Prepared) else None
        data = data.data if isinstance(data, Prepared) else data
        if most is not None and most < 1:
            raise SutureError(f"expected at least 1 example of {name}, got {most}; leave it out for all")
        if size < 1:
            raise SutureError(f"expected a batch size of at least 1 for {name}, got {size}; "
                              "leave it out for 256")
        self._stream = self._as_stream(data, size, shuffle, seed, rows)

    def _as_stream(self, data: Any, size: int, shuffle: bool, seed: int,
                   rows: Tensor | None) -> Iterable[Any]:
        found = _as_tensor_pair(data)
        if found is not None:
            inputs, labels = found
            if inputs.ndim == 0 or labels.ndim == 0 or len(inputs) != len(labels):
                shapes = f"{tuple(labels.shape)} for inputs {tuple(inputs.shape)}"
                raise SutureError(f"expected as many labels as inputs in {self.name}, got labels of shape "
                                  f"{shapes}; pass (inputs, labels) of the same examples")
            if len(inputs) == 0:
                raise self._make_empty_error()
            return TensorStream(inputs, labels, size,
                                torch.Generator().manual_seed(seed) if shuffle else None, rows)
        if _is_read(data) or _is_indexed(data):
            if len(data) == 0:
                raise self._make_empty_error()
            if _is_read(data):
                return ExampleStream(data, size,
                                     torch.Generator().manual_seed(seed) if shuffle else None, rows)
            order = torch.Generator().manual_seed(seed)
            chosen = data if rows is None else Subset(data, rows.tolist())
            return DataLoader(chosen, batch_size=min(size, len(chosen)), shuffle=shuffle, generator=order)
        if rows is not None:
            raise self._make_unsplit_error(data)
        if isinstance(data, Iterator) or not isinstance(data, Iterable):
            raise SutureError(f"expected {self.name} that can be read more than once, got "
                              f"{type(data).__name__}; pass a DataLoader, a Dataset, a list of batches or "
                              "(inputs, labels)")
        return data

    def _make_unsplit_error(self, data: Any) -> SutureError:
        return SutureError(f"expected {self.name} that can be split, got {type(data).__name__}; pass a "
                           "Dataset or (inputs, labels)")

    def _make_empty_error(self) -> SutureError:
        return SutureError(f"expected at least one example in {self.name}, got none; check the "
                           "split or the path")

    def __len__(self) -> int:
        """Return the number of batches; raise TypeError where the stream does not know it."""
        return len(self._stream)  # type: ignore[arg-type]

    def count_batches(self) -> int | None:
        """Return the number of batches, or None where it is unknown."""
        if self._most is not None:
            return None
        try:
            return len(self)
        except TypeError:
            return None

    def count_examples(self) -> int | None:
        """Return the number of examples of a pass, or None where it is unknown before the pass."""
        if isinstance(self._stream, TensorStream | ExampleStream):
            n = len(self._stream.rows)
        elif isinstance(self._stream, DataLoader) and isinstance(self._stream.sampler, Sized):
            n = len(self._stream.sampler)
        else:
            return None
        return n if self._most is None else min(n, self._most)

    def __iter__(self) -> Iterator[Batch]:
        empty, left = True, self._most
        for item in self._stream:
            if left is not None and left <= 0:
                return
            batch = item if isinstance(item, Batch) else self._make_batch(*split_labels(item), left)
            if batch.labels is not None and len(batch.labels) != batch.size:
                raise SutureError(f"expected as many labels as inputs in {self.name}, got "
                                  f"{len(batch.labels)} labels for {batch.size} inputs in one batch; yield "
                                  "(inputs, labels) of the same examples")
            if batch.size:
                empty = False
                yield batch if left is None else next(cut_batch(batch, left))
                left = None if left is None else left - batch.size
        if empty:
            raise self._make_empty_error()

    def _make_batch(self, inputs: Any, labels: Tensor | None, most: int | None) -> Batch:
        if self._prepared is None:
            return Batch(inputs, inputs, labels)
        if most is not None:
            inputs, labels = _take_first(inputs, most), None if labels is None else labels[:most]
        if self._device is not None:
            inputs = convert_tensors(inputs, lambda t: t.to(self._device, non_blocking=True))
        return self._prepared.batch(inputs, labels)


def _take_first(raw: Any, n: int) -> Any:
    """Cut a raw batch to its first `n` examples, so that no others are prepared."""
    if isinstance(raw, Mapping):
        return {k: _take_first(v, n) for k, v in raw.items()}
    return raw[:n] if isinstance(raw, Tensor | list) else raw


def _as_tensor_pair(data: Any) -> tuple[Tensor, Tensor] | None:
    """Return `data` as tensors (inputs, labels) in memory, or None where it is something else.

    A list of two tensors could be two batches without labels. It is read as a pair where the second tensor
    can only hold labels.
    """
    pair = getattr(data, "tensors", data)
    if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(isinstance(t, Tensor) for t in pair):
        return None
    inputs, labels = pair
    if isinstance(pair, list) and not (labels.ndim == 1 < inputs.ndim and not labels.is_floating_point()):
        return None
    return inputs, labels


def _is_indexed(data: Any) -> bool:
    # A Dataset of the library `datasets` is map-style, but not a subclass of PyTorch's.
    known = isinstance(data, Dataset) or (hasattr(data, "with_format") and hasattr(data, "__getitem__"))
    return known and isinstance(data, Sized) and not isinstance(data, IterableDataset)


def _is_read(data: Any) -> bool:
    """Return True for examples that read their own batches ahead of the consumer (`suture.sources`)."""
    return (isinstance(data, Sized) and callable(getattr(data, "read", None))
            and callable(getattr(data, "take", None)))


def can_shuffle(data: Any) -> bool:
    """Return True where suture makes the batches and can choose their order.

    This holds for tensors in memory, map-style Datasets and examples of `suture.sources`.
    """
    data = data.data if isinstance(data, Prepared) else data
    return _as_tensor_pair(data) is not None or _is_read(data) or _is_indexed(data)


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
    data = data.data if isinstance(data, Prepared) else data
    pair = _as_tensor_pair(data)
    if pair is None and not can_shuffle(data):
        return None
    n = len(data) if pair is None else count_examples(pair[0])
    if n < 2:
        raise SutureError(f"expected at least two examples, to hold some out, got {n}; give more data")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    last = min(n - 1, max(1, round(share * n)))
    return order[last:].sort().values, order[:last].sort().values
