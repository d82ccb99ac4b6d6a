"""Data whose examples suture can choose by number: tensors, arrays, tables of examples, Datasets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from suture._base import expect, summarise_error
from suture.data.batch import Prepared
from suture.data.forms import LABELS, convert_array
from suture.data.sources.examples import Examples

_ARRAYS = (Tensor, np.ndarray)


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
        inputs, labels = (convert_array(t) if isinstance(t, np.ndarray) else t for t in pair)
        # A list of two tensors could be two batches without labels, unless the second can only hold labels.
        if isinstance(pair, tuple) or (labels.ndim == 1 < inputs.ndim and not labels.is_floating_point()):
            expect(inputs.ndim > 0 and labels.ndim > 0 and len(inputs) == len(labels),
                   f"as many labels as inputs {tuple(inputs.shape)}", f"labels {tuple(labels.shape)}")
            return len(inputs), lambda rows: (inputs[rows], labels[rows])
    if not isinstance(data, Sized):
        return None
    if isinstance(data, Examples):
        return len(data), data.take
    if isinstance(data, _ARRAYS) and data.ndim:
        alone = convert_array(data) if isinstance(data, np.ndarray) else data
        return len(alone), lambda rows: alone[rows]
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
    columns = {k: convert_array(v) if isinstance(v, np.ndarray) else v for k, v in data.items()}
    return lengths.pop(), lambda rows: {k: v[rows] for k, v in columns.items()}


def _holds_examples(data: list[Any]) -> bool:
    """Return True for a list of single examples with named columns, rather than of batches."""
    first = data[0] if data else None
    if not isinstance(first, Mapping):
        return False
    label = next((first[k] for k in LABELS if k in first), None)
    ids = first.get("input_ids")
    return ((label is not None and np.ndim(label) == 0)
            or (isinstance(ids, list) and bool(ids) and isinstance(ids[0], int)))


def explain_reading(error: BaseException) -> str:
    """Say in a line what went wrong in a user's Dataset or loader, and what to do."""
    lines = str(error).splitlines()
    # A worker process hands over the whole traceback, with the error at its end.
    what = (lines[-1] if lines[:1] and lines[0].startswith("Caught ")
            else f"{type(error).__name__}: {summarise_error(error)}")
    if any(words in what for words in ("equal size", "batch must contain")):
        return f"{what}; pad in collate_fn, or give the Dataset without a loader"
    return f"{what}; correct the Dataset or the loader"


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
