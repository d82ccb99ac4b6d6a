"""One batch of examples for both networks, and its making from raw examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from suture._base import (
    SutureError,
    convert_examples,
    convert_parts,
    convert_tensors,
    count_examples,
    expect,
    list_tensors,
    run_foreign,
)
from suture.data.image_preprocessing import ImagePreprocessing
from suture.data.sources.columns import IMAGE_COLUMNS, TEXT_COLUMNS
from suture.data.sources.stores import decode_image
from suture.data.text_preprocessing import TextPreprocessing

Preprocessing = Callable[[Any], Any]
"""Function from a batch of raw examples, on any device, to a network's inputs."""
SAME_AS_SOURCE: Any = object()
"""Default of an argument for which None has a meaning."""


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


def move_tensor(t: Tensor, device: torch.device) -> Tensor:
    """Move a tensor to `device`, without waiting for it where that is safe."""
    # A copy to the CPU that is not waited for may be read before it has arrived.
    return t.to(device, non_blocking=device.type != "cpu")


def move_batch(batch: Batch, device: torch.device) -> Batch:
    """Move all tensors of a batch to `device`. Inputs that both networks share stay shared."""
    def move(t: Tensor) -> Tensor:
        return move_tensor(t, device)

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
    for start in range(0, batch.size, size):
        yield slice_batch(batch, slice(start, start + size))


def slice_batch(batch: Batch, rows: slice) -> Batch:
    """Return some consecutive examples of a batch."""
    def cut(part: Any) -> Any:
        return part[rows]

    n = batch.size
    source = convert_examples(batch.source, n, cut)
    target = source if batch.target is batch.source else convert_examples(batch.target, n, cut)
    return Batch(source, target, None if batch.labels is None else batch.labels[rows],
                 _cut_raw(batch.raw, n, cut), batch.remake)


def _cut_raw(raw: Any, size: int, cut: Callable[[Any], Any]) -> Any:
    """Cut raw examples: tensors, lists such as texts or images of several sizes, or columns of both."""
    if isinstance(raw, Tensor | list) and not (isinstance(raw, Tensor) and not raw.ndim) and len(raw) == size:
        return cut(raw)
    return convert_parts(raw, lambda part: _cut_raw(part, size, cut))


def drop_placeholders(batch: Batch) -> Batch:
    """Return a batch without labels if all of them are -1, or all -100, as in test sets without labels."""
    labels = batch.labels
    if labels is None or labels.ndim != 1 or labels.is_floating_point() or labels.is_complex():
        return batch
    return replace(batch, labels=None) if any((labels == k).all() for k in (-1, -100)) else batch


class Prepared:
    """One stream of raw examples, read once and prepared for each network in its own way.

    >>> Prepared(images, source=ImagePreprocessing(size=(224, 224)), target=ImagePreprocessing(size=(32, 32)))

    Args:
        data: as `Batches` accepts them, or examples of `suture.sources`.
        source: function from a batch of raw examples (on the device of the comparison) to the source
            network's inputs. None: raw examples are the inputs.
        target: the same for the target network. Default: as for the source, and both networks get the same
            object. "labels" among the target's inputs replace the labels (masked language modelling).
    """

    def __init__(self, data: Any, source: Preprocessing | None,
                 target: Preprocessing | None = SAME_AS_SOURCE) -> None:
        self.data, self.source = data, source
        self.target = source if target is SAME_AS_SOURCE else target
        for side, how in (("source", self.source), ("target", self.target)):
            expect(how is None or (callable(how) and not isinstance(how, type)),
                   f"a function of raw examples as {side}", how, "write None for examples that are inputs")

    def batch(self, raw: Any, labels: Tensor | None) -> Batch:
        """Prepare a batch of raw examples for both networks.

        Raises:
            SutureError: texts, or images of several sizes, without a preprocessing.
        """
        source, made = _take_own_labels(_preprocess(self.source, raw))
        target, other = ((source, made) if self.target is self.source or self.target == self.source
                         else _take_own_labels(_preprocess(self.target, raw)))
        return Batch(source, target, labels if other is None else other, raw, self.batch)


def _preprocess(how: Preprocessing | None, raw: Any) -> Any:
    own = isinstance(how, ImagePreprocessing | TextPreprocessing)
    if how is not None:
        with run_foreign(f"the preprocessing {getattr(how, '__name__', type(how).__name__)}"):
            return how(_choose_raw(raw, isinstance(how, TextPreprocessing)) if own else raw)
    first = raw[0] if isinstance(raw, list) and raw else None
    if isinstance(first, str):
        raise SutureError("data that are text need a tokenizer, got none; give a network with its tokenizer "
                          "(hf:FOLDER), or Prepared(data, TextPreprocessing(tokenizer))")
    if isinstance(first, Tensor):
        raise SutureError("expected images of one size, got several; give a size "
                          "(ImagePreprocessing(size=(224, 224)), or --source-input size=224)")
    return raw


def _choose_raw(raw: Any, text: bool) -> Any:
    """Return the column of texts or images of a batch, with images of Pillow decoded."""
    if isinstance(raw, Mapping):
        kind, usual = ("texts", TEXT_COLUMNS) if text else ("images", IMAGE_COLUMNS)
        fit = [k for k, v in raw.items() if text is (isinstance(v, list) and isinstance(v[0], str))
               and (text or isinstance(v, list) or v.ndim > 2)]
        name = next((n for n in usual if n in fit), fit[0] if len(fit) == 1 else None)
        expect(name is not None, f"a column of {kind}", f"columns {', '.join(map(str, raw))}",
               "name it as in suture.sources.open_source(data, text_column=...)")
        raw = raw[name]
    if not isinstance(raw, list) or not any(type(one).__module__.startswith("PIL.") for one in raw):
        return raw
    try:
        return [one if isinstance(one, Tensor) else decode_image(one) for one in raw]
    except ValueError as e:
        raise SutureError(f"an image {e}; leave it out") from e


def _take_own_labels(inputs: Any) -> tuple[Any, Tensor | None]:
    if isinstance(inputs, Mapping) and "labels" in inputs:
        return {k: v for k, v in inputs.items() if k != "labels"}, inputs["labels"]
    return inputs, None
