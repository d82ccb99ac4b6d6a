"""Forms of a batch: inputs and labels from whatever a loader yields, as trees of tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from suture._base import (
    ExampleList,
    SutureError,
    convert_parts,
    describe_value,
    expect,
    walk_tensors,
)
from suture.data.sources.columns import LARGEST_CLASS

LABELS = ("labels", "label")
"""Names of the labels in a mapping, the first one before the other."""
_IMAGE_CHANNELS = {1, 3}
_TOKENS = ("input_ids", "attention_mask", "token_type_ids")


class Columns(dict[str, Any]):
    """A batch that suture made of examples with named columns.

    Attributes:
        padded: True if suture padded its token ids, with 0.
    """

    padded = False

    def without(self, names: Iterable[str]) -> Columns:
        made = Columns({k: v for k, v in self.items() if k not in set(names)})
        made.padded = self.padded
        return made


def split_labels(item: Any) -> tuple[Any, Tensor | None]:
    """Split a loader's item into (inputs, labels).

    The item is a pair, a mapping with "labels" or "label", or inputs alone. Targets that are dictionaries, as
    of detection, are no labels.
    """
    return read_batch(item)[:2]


def read_batch(item: Any) -> tuple[Any, Tensor | None, int | None]:
    """Split a loader's item into inputs, labels and, where the item tells it, the number of examples."""
    given: Any = None
    if isinstance(item, Mapping):
        name = next((k for k in LABELS if k in item), None)
        inputs = item.without([name or ""]) if isinstance(item, Columns) else {
            k: v for k, v in item.items() if k != name}
        given = None if name is None else item[name]
    elif isinstance(item, tuple | list) and len(item) == 2:
        inputs, given = item
    elif isinstance(item, tuple | list) and len(item) == 1:
        inputs = item[0]
    else:
        expect(isinstance(item, Tensor | np.ndarray), "batches (inputs, labels)", type(item).__name__,
               advise_graph(item).removeprefix("; ") or "yield a pair of tensors")
        inputs = item
    if isinstance(given, tuple | list) and given and all(isinstance(one, Mapping) for one in given):
        return inputs, None, len(given)
    labels = None if given is None else _as_labels(given)
    return inputs, labels, None if labels is None else len(labels)


def _as_labels(given: Any) -> Tensor:
    """Convert labels to a tensor. Whole numbers become int64, which the losses need."""
    if isinstance(given, np.ndarray):
        expect(given.dtype.kind in "biufc", "labels that are numbers", f"an array of {given.dtype}",
               "yield class numbers")
    try:
        labels = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError, OverflowError) as e:
        raise SutureError(f"expected labels that are numbers, got {type(given).__name__} ({e}); "
                          "yield a tensor of class numbers") from e
    expect(labels.ndim > 0, "batches of examples", "a single example with one label",
           "put a DataLoader around them, or pass tensors (inputs, labels)")
    if labels.dtype == torch.uint64 and bool((labels.view(torch.int64) < 0).any()):
        raise SutureError("expected class numbers below 2**63, got larger ones; number the classes from 0")
    return labels if labels.is_floating_point() or labels.is_complex() else labels.long()


def read_inputs(given: Any, count: int | None, listed: bool | None = None) -> Any:
    """Return inputs as a tree of dense tensors, in which lists of one tensor per example are marked.

    Such a list is one argument of the network. It has as many tensors as there are labels. Without labels,
    its tensors have several lengths, or are images (C, H, W) of 1 or 3 channels, and it lies in a tuple.

    Args:
        given: arrays of NumPy become tensors, float64 ones float32; sparse tensors become dense.
        count: number of labels or targets; None without any.
        listed: True or False if the first batch of the data had such a list or not.

    Raises:
        SutureError: nested tensors, arrays of objects, or no tensor.
    """
    tree = _stack_columns(_convert_leaves(given), count)
    if listed is not False:
        tree = _mark_lists(tree, count, listed, nested=False)
    if next(walk_tensors(tree), None) is None:
        raise _explain_no_tensor(tree)
    return tree


def has_lists(inputs: Any) -> bool:
    """Return True where an argument is a list of one tensor for each example."""
    found = isinstance(inputs, ExampleList)

    def look(part: Any) -> Any:
        nonlocal found
        found = found or has_lists(part)
        return part

    if not found:
        convert_parts(inputs, look)
    return found


def _convert_leaves(given: Any) -> Any:
    if isinstance(given, np.ndarray):
        return convert_array(given)
    if isinstance(given, Tensor):
        if given.is_nested:
            raise SutureError("expected tensors of one shape, got a nested tensor; write "
                              "torch.nested.to_padded_tensor(x, 0), with an attention_mask")
        return given if given.layout is torch.strided else given.to_dense()
    return convert_parts(given, _convert_leaves)


def convert_array(given: np.ndarray[Any, Any]) -> Tensor:
    """Convert numbers of NumPy to a tensor: float64 to float32, which networks need, unsigned to int64."""
    expect(given.dtype.kind in "biufc", "arrays of numbers", f"one of {given.dtype}",
           "yield tensors of one shape")
    if given.dtype == np.uint64 and given.size and int(given.max()) > LARGEST_CLASS:
        raise SutureError(f"expected whole numbers below 2**63, got {given.max()}; number the classes from 0")
    largest, other = {"f": (4, np.float32), "u": (1, np.int64)}.get(given.dtype.kind, (64, None))
    kept = given.dtype.newbyteorder("=") if given.dtype.itemsize <= largest else other
    # A copy, which PyTorch may write to, and whose axes run forward.
    return torch.from_numpy(given.astype(kept, order="C"))


def _stack_columns(tree: Any, count: int | None) -> Any:
    """Stack token ids that a loader without padding has turned into a list of one tensor for each place."""
    if not isinstance(tree, dict):
        return tree
    for name in [n for n in _TOKENS if isinstance(tree.get(n), list) and tree[n]]:
        places = tree[name]
        if all(isinstance(t, Tensor) and t.ndim == 1 and count in (None, len(t)) for t in places):
            tree[name] = torch.stack(places, 1)
    return tree


def _mark_lists(tree: Any, count: int | None, listed: bool | None, nested: bool) -> Any:
    plain = isinstance(tree, tuple | list) and not hasattr(tree, "_fields")
    if plain and _is_example_list(tree, count, listed, nested):
        return ExampleList(tree)
    return convert_parts(tree, lambda part: _mark_lists(part, count, listed, nested=True))


def _is_example_list(parts: Any, count: int | None, listed: bool | None, nested: bool) -> bool:
    if not parts or not (nested or count is not None):
        return False
    if all(isinstance(p, str | Mapping) for p in parts):
        return count in (None, len(parts))
    if not all(isinstance(p, Tensor) and p.ndim and p.ndim == parts[0].ndim and p.dtype == parts[0].dtype
               for p in parts):
        return False
    lengths = {len(p) for p in parts}
    if listed or count is not None:
        return count in (None, len(parts)) and (bool(listed) or lengths != {count})
    return len(lengths) > 1 or (parts[0].ndim == 3 and lengths <= _IMAGE_CHANNELS)


def _explain_no_tensor(tree: Any) -> SutureError:
    leaf = tree
    while isinstance(leaf, Mapping | tuple | list) and leaf:
        leaf = next(iter(leaf.values() if isinstance(leaf, Mapping) else leaf))
    kind = type(leaf)
    if isinstance(leaf, str):
        return SutureError("data that are text need a tokenizer, got none; give a network with its tokenizer "
                           "(hf:FOLDER), or Prepared(data, TextPreprocessing(tokenizer))")
    if kind.__module__.startswith("PIL."):
        return SutureError("images of Pillow need a preprocessing, got none; write "
                           "Prepared(data, ImagePreprocessing(size=(224, 224)))")
    instead = advise_graph(leaf) or "; yield tensors, or tuples, dictionaries or data classes of them"
    return SutureError(f"expected a tensor among the inputs, got {describe_value(leaf)}{instead}")


def advise_graph(inputs: Any) -> str:
    """Return what to write instead of one large graph, or "" for inputs without edges or adjacency."""
    found = list(walk_tensors(inputs))
    n = {len(t) for t in found if t.ndim == 2 and t.is_floating_point()}
    edges = hasattr(inputs, "edge_index") or any(
        t.ndim == 2 and ((len(t) == 2 and t.dtype == torch.int64) or ({*t.shape} == n and len(found) > 1))
        for t in found)
    return "; of graphs give dense ones: x (N, nodes, D) and adjacency (N, nodes, nodes)" if edges else ""
