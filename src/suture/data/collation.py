"""Batches of examples with columns, lists or images of several sizes, padded where they hold token ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import default_collate

from suture._base import expect
from suture.data.forms import LABELS, Columns, convert_array

IDS, MASK = "input_ids", "attention_mask"
NO_TOKEN = -100
"""Label of tokens that are not scored, as in PyTorch and transformers."""


class ExampleStream:
    """Batches of a stream that yields one example at a time, such as a streamed `datasets.Dataset`."""

    def __init__(self, examples: Iterable[Any], size: int) -> None:
        self.examples, self.size = examples, size

    def __iter__(self) -> Iterator[Any]:
        examples = iter(self.examples)
        while items := list(islice(examples, self.size)):
            yield collate(items)


def collate(items: Sequence[Any]) -> Any:
    """Make a batch of examples: mappings of columns, pairs, or inputs alone.

    Token ids of several lengths are padded on the right with 0, and an attention mask over them is added
    where there is none; labels of tokens are padded with -100. Images of several sizes, and texts, are lists.

    Raises:
        SutureError: examples with other columns than the first.
    """
    first = items[0]
    if isinstance(first, Mapping):
        return _collate_columns(items)
    if isinstance(first, tuple) and not hasattr(first, "_fields"):
        lengths = {len(one) for one in items}
        expect(len(lengths) == 1, "examples of equally many parts", f"{sorted(lengths)}", "correct the data")
        return [_join([_read_value(v) for v in part]) for part in zip(*items, strict=True)]
    joined = _join([_read_value(v) for v in items])
    # Lists of two are else read as inputs and labels; what comes as a list may hold both.
    return joined if isinstance(first, list | tuple) else (joined,)


def _collate_columns(items: Sequence[Mapping[str, Any]]) -> Columns:
    names = list(items[0])
    for one in items:
        gone = set(names).symmetric_difference(one)
        expect(not gone, f"the columns {', '.join(map(str, names))} in every example",
               f"one with other columns ({', '.join(sorted(map(str, gone)))})", "correct the data")
    columns = {n: [_read_value(one[n]) for one in items] for n in names}
    tokens = {n: v for n, v in columns.items() if (IDS in n or MASK in n) and _is_ragged(v)}
    made = Columns()
    made.padded = bool(tokens)
    lengths = {tuple(map(len, v)) for v in tokens.values()}
    for name, values in columns.items():
        fill = NO_TOKEN if name in LABELS else 0 if _is_ragged(values) and tuple(
            map(len, values)) in lengths else None
        made[name] = _join(values, fill)
    for name, values in tokens.items():
        if (mask := name.replace(IDS, MASK)) not in columns:
            made[mask] = _pad([torch.ones(len(v), dtype=torch.int64) for v in values], 0)
    return made


def _read_value(value: Any) -> Any:
    """Return an example's value as a tensor where it holds numbers."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return convert_array(value)
    if isinstance(value, list) and value:
        try:
            return torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError):  # texts, or lists of several lengths
            return value
    return torch.zeros(0, dtype=torch.int64) if isinstance(value, list) else value


def _join(values: list[Any], fill: int | None = None) -> Any:
    """Join the values of examples. Whole numbers of several lengths are padded with `fill`, if given."""
    first = values[0]
    if all(v is None for v in values):
        return None
    if not all(isinstance(v, Tensor) for v in values):
        try:
            return default_collate(values)
        except (TypeError, RuntimeError):  # such as images of Pillow
            return values
    if all(v.shape == first.shape for v in values):
        return torch.stack(values)
    pads = fill is not None and _is_ragged(values) and not any(v.is_floating_point() for v in values)
    return _pad(values, fill) if fill is not None and pads else values


def _is_ragged(values: Sequence[Any]) -> bool:
    """Return True for tensors that differ in the length of their first axis only."""
    return (all(isinstance(v, Tensor) and v.ndim for v in values)
            and len({len(v) for v in values}) > 1 and len({v.shape[1:] for v in values}) == 1)


def _pad(values: Sequence[Tensor], fill: int) -> Tensor:
    return pad_sequence(list(values), batch_first=True, padding_value=fill)
