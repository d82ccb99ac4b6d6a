"""Data as it comes: one way to read batches of (inputs, labels) for both networks, in step.

>>> Prepared(images, source=ImagePreprocessing(size=(224, 224)), target=ImagePreprocessing(size=(32, 32)))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from suture._base import SutureError, convert_tensors, count_examples, list_tensors
from suture.data.streams import ExampleStream, TensorStream

Preprocessing = Callable[[Any], Any]
"""From a batch of raw examples, on any device, to what a network takes."""


@dataclass(frozen=True)
class Batch:
    """One batch: inputs for the source network, inputs for the target network (often the same object),
    labels.

    Where suture has prepared the inputs, `raw` is what they were made from and `remake` makes them.
    """

    source: Any
    target: Any
    labels: Tensor | None
    raw: Any = None
    remake: Callable[[Any, Tensor | None], Batch] | None = None

    @property
    def size(self) -> int:
        """Number of examples."""
        return count_examples(self.source)


class _SameAsSource:
    """The default of an argument for which None has a meaning."""


SAME_AS_SOURCE = _SameAsSource()


class Paired:
    """Two streams of the same examples, prepared differently for each network, read in step.

    Args:
        source, target: data as `Batches` takes them, such as two unshuffled DataLoaders.

    Raises:
        SutureError: an iterator that can be read only once. While it is read: one ends before the other,
            batches of unequal length, or labels that differ, which means that the examples do not correspond
            (a shuffled loader, for one).
    """

    def __init__(self, source: Any, target: Any) -> None:
        self.source = Batches(source, name="the source loader")
        self.target = Batches(target, name="the target loader")

    def __len__(self) -> int:
        """Number of batches, where the source loader knows it; TypeError otherwise."""
        return len(self.source)

    def __iter__(self) -> Iterator[Batch]:
        ends = object()
        a, b = iter(self.source), iter(self.target)
        for k in range(2**62):
            x, y = next(a, ends), next(b, ends)
            if x is ends and y is ends:
                return
            if not isinstance(x, Batch) or not isinstance(y, Batch):
                side = "source" if x is ends else "target"
                raise SutureError(f"expected two loaders of equal length, the {side} loader ended after {k} "
                                  "batches; give both the same examples and batch size")
            labels, other = x.labels, y.labels
            if x.size != y.size:
                raise SutureError(f"expected paired batches of equal length, got {x.size} and {y.size} "
                                  f"examples in batch {k}; give both loaders the same batch size")
            if labels is not None and other is not None and not torch.equal(labels.cpu(), other.cpu()):
                raise SutureError(f"the labels of the two loaders differ in batch {k}: their examples do not "
                                  "correspond; use shuffle=False in both")
            yield Batch(x.source, y.source, labels if labels is not None else other)


class Prepared:
    """One stream of raw examples, prepared for each network in its own way: read once, so always in step.

    Args:
        data: as `Batches` takes them, or examples of `suture.sources`.
        source: from a batch of raw examples to the source network's inputs, such as `ImagePreprocessing` or
            `TextPreprocessing`. It sees tensors on the device that the comparison runs on. None: as they are.
        target: the same for the target network. Default: as for the source, and then both get the same
            object.
            Where the target's inputs have "labels", these are the labels (masked language modelling).
    """

    def __init__(self, data: Any, source: Preprocessing | None,
                 target: Preprocessing | _SameAsSource | None = SAME_AS_SOURCE) -> None:
        self.data, self.source = data, source
        self.target = source if isinstance(target, _SameAsSource) else target

    def batch(self, raw: Any, labels: Tensor | None) -> Batch:
        """A batch of raw examples made ready.

        Raises:
            SutureError: text without a preprocessing; what the preprocessing raises.
        """
        source, made = _take_own_labels(_preprocess(self.source, raw))
        target, other = ((source, made) if self.target == self.source
                         else _take_own_labels(_preprocess(self.target, raw)))
        return Batch(source, target, labels if other is None else other, raw, self.batch)


def _preprocess(how: Preprocessing | None, raw: Any) -> Any:
    if how is None and isinstance(raw, list) and raw and isinstance(raw[0], str):
        raise SutureError("expected a tokenizer for data that are text, got none; give a network with its "
                          "tokenizer (hf:FOLDER), or Prepared(data, TextPreprocessing(tokenizer))")
    if how is None and isinstance(raw, list) and raw and isinstance(raw[0], Tensor):
        raise SutureError("expected images of one size, got several; give a preprocessing with a size "
                          "(ImagePreprocessing(size=(224, 224)), or --source-input size=224)")
    return raw if how is None else how(raw)


def _take_own_labels(inputs: Any) -> tuple[Any, Tensor | None]:
    if isinstance(inputs, Mapping) and "labels" in inputs:
        return {k: v for k, v in inputs.items() if k != "labels"}, inputs["labels"]
    return inputs, None


def split_labels(item: Any) -> tuple[Any, Tensor | None]:
    """(inputs, labels) of what a loader yields: a pair, a mapping with "labels" or "label", or inputs
    alone."""
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
    """As a tensor; whole numbers as int64, because the losses refuse the narrow types."""
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
        name: how error messages call it.
        shuffle, seed: draw a new order in every pass, the same for the same seed. Only for datasets and
            tensors.
        rows: only these examples, in this order (int64 indices, see `split_rows`). Only for datasets and
            tensors.
        most: only the first so many examples of each pass. Default: all.
        device: where raw examples are prepared (`Prepared`). Default: where they are.

    Raises:
        SutureError: inputs and labels of unequal length, an iterator that can be read only once, no examples,
            a size or a number of examples below 1, rows of data without an index.
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
        """Number of batches, where the stream knows it; TypeError otherwise."""
        return len(self._stream)  # type: ignore[arg-type]

    def count_batches(self) -> int | None:
        """Number of batches, or None."""
        if self._most is not None:
            return None
        try:
            return len(self)
        except TypeError:
            return None

    def count_examples(self) -> int | None:
        """Number of examples of a pass, or None where that is not known before it."""
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
    """The first examples of a raw batch, before anything is made of those that are not needed."""
    if isinstance(raw, Mapping):
        return {k: _take_first(v, n) for k, v in raw.items()}
    return raw[:n] if isinstance(raw, Tensor | list) else raw


def _as_tensor_pair(data: Any) -> tuple[Tensor, Tensor] | None:
    """(inputs, labels) in memory, where `data` is that.

    A list of two tensors could be two batches without labels; it is a pair where the second can only be
    labels.
    """
    pair = getattr(data, "tensors", data)
    if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(isinstance(t, Tensor) for t in pair):
        return None
    inputs, labels = pair
    if isinstance(pair, list) and not (labels.ndim == 1 < inputs.ndim and not labels.is_floating_point()):
        return None
    return inputs, labels


def _is_indexed(data: Any) -> bool:
    # A Dataset of the library `datasets` is map-style, and no subclass of PyTorch's.
    known = isinstance(data, Dataset) or (hasattr(data, "with_format") and hasattr(data, "__getitem__"))
    return known and isinstance(data, Sized) and not isinstance(data, IterableDataset)


def _is_read(data: Any) -> bool:
    """Examples that read themselves, batch by batch and ahead (`suture.sources`)."""
    return (isinstance(data, Sized) and callable(getattr(data, "read", None))
            and callable(getattr(data, "take", None)))


def can_shuffle(data: Any) -> bool:
    """Whether suture makes the batches of these data, and so their order: tensors in memory and map-style
    Datasets."""
    data = data.data if isinstance(data, Prepared) else data
    return _as_tensor_pair(data) is not None or _is_read(data) or _is_indexed(data)


def split_rows(data: Any, share: float, seed: int) -> tuple[Tensor, Tensor] | None:
    """A random split of a map-style Dataset or of tensors (inputs, labels) in two, for the `rows` of
    `Batches`.

    Args:
        data: as `Batches` takes them.
        share: of the examples in the second part; at least one in either.
        seed: of the split.

    Returns:
        Sorted indices of the two parts, or None for data whose examples cannot be told apart before they are
        read, such as a DataLoader.

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


def move_batch(batch: Batch, device: torch.device) -> Batch:
    """The batch with all its tensors on `device`; what the two networks share stays shared."""
    def move(t: Tensor) -> Tensor:
        return t.to(device, non_blocking=True)

    source = convert_tensors(batch.source, move)
    target = source if batch.target is batch.source else convert_tensors(batch.target, move)
    labels = None if batch.labels is None else move(batch.labels)
    return Batch(source, target, labels, convert_tensors(batch.raw, move), batch.remake)


def is_same_batch(one: Batch, other: Batch) -> bool:
    """Whether two batches hold the same numbers."""
    pairs = zip(*([*list_tensors(b.source), *list_tensors(b.target),
                   *([] if b.labels is None else [b.labels])] for b in (one, other)), strict=True)
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
