"""Trees of tensors: nested tuples, lists, mappings and data classes, as a network uses for its inputs."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from suture._base.errors import SutureError

_EXAMPLES_AT_ONCE = 256


class ExampleList(list[Any]):
    """One argument of a network: a list of one tensor (or mapping) for each example, such as of images."""

    def __getitem__(self, rows: Any) -> Any:
        if isinstance(rows, Tensor | list):
            return ExampleList(list.__getitem__(self, int(k)) for k in rows)
        found = super().__getitem__(rows)
        return ExampleList(found) if isinstance(rows, slice) else found

    def repeat(self, copies: int) -> ExampleList:
        """Return `copies` copies of the list, one after the other."""
        return ExampleList(self * copies)


def count_examples(inputs: Any) -> int:
    """Count the examples in a batch: the length of the first list of examples, or of the first axis.

    The axis is that of the first tensor that has one.

    Raises:
        SutureError: there is no such tensor.
    """
    size = _find_size(inputs)
    if size is None:
        list_tensors(inputs)  # raises an error where there is no tensor
        raise SutureError("expected inputs with the examples along the first axis, got a single number; "
                          "yield tensors (N, ...)")
    return size


def _find_size(inputs: Any) -> int | None:
    if isinstance(inputs, ExampleList):
        return len(inputs)
    if isinstance(inputs, Tensor):
        return len(inputs) if inputs.ndim else None
    return next((n for part in _list_parts(inputs) if (n := _find_size(part)) is not None), None)


def convert_examples(inputs: Any, size: int, fn: Callable[[Any], Any]) -> Any:
    """Apply `fn` to every part of inputs that has one entry for each of `size` examples.

    These are lists of examples, and tensors whose first axis has this length.
    """
    if isinstance(inputs, ExampleList):
        return fn(inputs)
    if isinstance(inputs, Tensor):
        return fn(inputs) if inputs.ndim and len(inputs) == size else inputs
    return convert_parts(inputs, lambda part: convert_examples(part, size, fn))


def list_tensors(inputs: Any) -> Iterator[Tensor]:
    """Return the tensors in nested inputs, depth first; raise a `SutureError` if there is none."""
    found = list(walk_tensors(inputs))
    if not found:
        raise SutureError(f"expected a tensor among the inputs, got {type(inputs).__name__}; "
                          "yield tensors, or tuples, dictionaries or data classes of them")
    return iter(found)


def walk_tensors(inputs: Any, by_name: bool = False) -> Iterator[Tensor]:
    """Yield the tensors in nested inputs, depth first; `by_name` sorts the values of a mapping by key."""
    if isinstance(inputs, Tensor):
        yield inputs
    for part in _list_parts(inputs, by_name):
        yield from walk_tensors(part, by_name)


def _list_parts(inputs: Any, by_name: bool = False) -> list[Any]:
    if isinstance(inputs, Mapping):
        return [inputs[key] for key in (sorted(inputs, key=str) if by_name else inputs)]
    if is_dataclass(inputs) and not isinstance(inputs, type):
        return [getattr(inputs, f.name) for f in fields(inputs)]
    return list(inputs) if isinstance(inputs, tuple | list) else []


def convert_tensors(inputs: Any, fn: Callable[[Tensor], Tensor]) -> Any:
    """Apply `fn` to every tensor in nested inputs and return the new inputs."""
    return fn(inputs) if isinstance(inputs, Tensor) else convert_parts(
        inputs, lambda part: convert_tensors(part, fn))


def replace_input(inputs: Any, old: Any, new: Any) -> Any:
    """Return nested inputs with their part `old` replaced by `new`."""
    return new if inputs is old else convert_parts(inputs, lambda part: replace_input(part, old, new))


def convert_parts(inputs: Any, fn: Callable[[Any], Any]) -> Any:
    """Apply `fn` to the parts of a tree and return one of the same type; anything else is returned."""
    if isinstance(inputs, MutableMapping):
        made = copy.copy(inputs)
        for key, part in inputs.items():
            made[key] = fn(part)
        return made
    if isinstance(inputs, Mapping):
        return {k: fn(v) for k, v in inputs.items()}
    if is_dataclass(inputs) and not isinstance(inputs, type):
        record = copy.copy(inputs)
        for f in fields(inputs):
            object.__setattr__(record, f.name, fn(getattr(inputs, f.name)))  # may be frozen
        return record
    if isinstance(inputs, tuple) and hasattr(inputs, "_fields"):
        return type(inputs)(*map(fn, inputs))
    return type(inputs)(map(fn, inputs)) if isinstance(inputs, tuple | list) else inputs


def find_only_input(inputs: Any) -> Any:
    """Return the one part of nested inputs that holds all of their tensors.

    This part is a tensor, or a mapping with "input_ids". Return None where no single part holds all tensors.
    """
    if isinstance(inputs, Tensor) or (isinstance(inputs, Mapping) and "input_ids" in inputs):
        return inputs
    found = [p for p in _list_parts(inputs) if any(True for _ in walk_tensors(p))]
    return find_only_input(found[0]) if len(found) == 1 else None


def count_duplicates(one: Iterable[Any], other: Iterable[Any]) -> int:
    """Count the examples of `one` that are equal, number for number, to some example in `other`.

    Examples are compared by 128-bit hashes of their shapes and of their values as float64. So dtype, memory
    layout and the sign of zero make no difference, and integers beyond 2^53 may count as equal. Memory: one
    hash for each example of `other`.

    Args:
        one, other: batches of inputs of a network (tensors, nested or not), without labels.

    Raises:
        SutureError: inputs without a tensor, or with tensors of unequal length.
    """
    known = {d for batch in other for d in hash_examples(batch)}
    return sum(d in known for batch in one for d in hash_examples(batch))


def hash_examples(inputs: Any) -> Iterator[bytes]:
    """Yield a hash of the shapes and values of each example's tensors, in the order of their names.

    Raises:
        SutureError: no tensor, or tensors of unequal length.
    """
    found = list(walk_tensors(inputs, by_name=True))
    lengths = sorted({len(t) if t.ndim else 0 for t in found})
    if len(lengths) != 1:
        got = f"{' and '.join(map(str, lengths))} in one batch" if lengths else type(inputs).__name__
        raise SutureError(f"expected tensors with the same number of examples, got {got}; give "
                          "tensors (N, ...)")
    for start in range(0, lengths[0], _EXAMPLES_AT_ONCE):
        for example in zip(*(_to_float64(t[start:start + _EXAMPLES_AT_ONCE]) for t in found), strict=True):
            digest = hashlib.blake2b(digest_size=16)
            for values in example:
                digest.update(f"{values.shape}".encode() + values.tobytes())
            yield digest.digest()


def _to_float64(x: Tensor) -> Any:
    """Convert to a NumPy array of float64 in which -0.0 becomes 0.0."""
    x = torch.view_as_real(x) if x.is_complex() else x
    return (x.detach().cpu().double() + 0.0).numpy()


def remember_lengths(list_all: Callable[[], Iterable[list[Any]]]) -> Callable[[], None]:
    """Return a function that removes what is appended from now on to the lists that `list_all` returns."""
    before = {id(of): len(of) for of in list_all()}

    def undo() -> None:
        for of in list_all():
            del of[before.get(id(of), 0):]

    return undo
