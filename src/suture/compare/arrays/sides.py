"""Both sides of a comparison of arrays, and the batches in which they are read in step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from suture._base import SutureError, describe_value, expect, keep_parts, make_unknown_error, show_value
from suture.compare.arrays.site_array import SiteArray, open_site
from suture.data import Batch
from suture.representations import Masks, Shape, TokenMasks

_BYTES_AT_ONCE = 1 << 27
"""Size of a batch of all arrays."""
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class ArraySide:
    """The named arrays of one side, in place of a network at its sites.

    Attributes:
        name: source or target.
        sites: names of the arrays.
    """

    name: str
    sites: tuple[str, ...]
    arrays: tuple[SiteArray, ...]
    shapes: tuple[Shape, ...]
    dtype: torch.dtype

    def front(self, inputs: Any) -> list[Tensor]:
        """Return the arrays of a batch of `ArrayReader`; NaN and infinity raise a `SutureError`."""
        found: list[Tensor] = list(inputs["arrays"])
        for array, x in zip(self.arrays, found, strict=True):
            if not bool(torch.isfinite(x).all()):
                raise array.refuse_invalid(self.dtype)
        return found

    def find_masks(self, inputs: Any) -> Masks:
        """Return the masks of a batch: one for each sequence of tokens of varying number."""
        masks: tuple[Tensor, ...] = tuple(inputs["masks"])
        return TokenMasks((None, *masks)) if masks else None


@dataclass(frozen=True, eq=False)
class ArrayReader:
    """Batches of both sides; of lists, the examples of a batch are padded to the longest.

    Attributes:
        sequences: numbers of tokens of each example, for each sequence of tokens of varying number.
        rows: examples in a batch.
    """

    source: ArraySide
    target: ArraySide
    sequences: tuple[tuple[int, ...], ...]
    labels: Tensor | None
    rows: int

    def __len__(self) -> int:
        return -(-len(self.source.arrays[0]) // self.rows)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.source.arrays[0]), self.rows):
            stop = min(start + self.rows, len(self.source.arrays[0]))
            masks = tuple(_make_mask(of[start:stop]) for of in self.sequences)
            source, target = ({"arrays": tuple(a.read(start, stop, side.dtype) for a in side.arrays),
                               "masks": masks} if side is not self.source or k == 0 else None
                              for k, side in enumerate((self.source, self.target)))
            yield Batch(source, target or source, None if self.labels is None else self.labels[start:stop])


def _make_mask(lengths: Sequence[int]) -> Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def open_sides(source: Mapping[Any, Any], target: Mapping[Any, Any] | None, kinds: Any, labels: Any,
               dtype: torch.dtype) -> ArrayReader:
    """Open the arrays of both sides; without a target, or with the same arrays, both sides are one object."""
    given = {"source": _read_names("source", source)}
    if target is not None and target is not source:
        given["target"] = _read_names("target", target)
        if list(given["target"]) == list(given["source"]) and all(
                x is given["source"][name] for name, x in given["target"].items()):
            del given["target"]
    chosen = _read_kinds(kinds, given)
    opened = {side: [open_site(f"{side} {name!r}", x) for name, x in of.items()]
              for side, of in given.items()}
    arrays = [a for of in opened.values() for a in of]
    _check_numbers(arrays)
    sequences = tuple(dict.fromkeys(a.lengths for a in arrays if a.lengths is not None))
    sides = {side: _make_side(side, list(given[side]), of, chosen[side], sequences, dtype)
             for side, of in opened.items()}
    size = sum(a.values for a in arrays) * dtype.itemsize
    first = sides["source"]
    return ArrayReader(first, sides.get("target", first), sequences, _read_labels(labels, len(arrays[0])),
                       max(1, min(_ROWS_AT_ONCE, _BYTES_AT_ONCE // max(1, size))))


def _make_side(side: str, names: list[str], arrays: list[SiteArray], kinds: Mapping[str, str],
               sequences: Sequence[tuple[int, ...]], dtype: torch.dtype) -> ArraySide:
    shapes = [a.recognise(kinds.get(name), 0 if a.lengths is None else 1 + sequences.index(a.lengths))
              for name, a in zip(names, arrays, strict=True)]
    return ArraySide(side, tuple(names), tuple(arrays), tuple(shapes), dtype)


def _read_names(side: str, given: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the arrays by name; whole numbers become text."""
    expect(len(given) > 0, f"at least one array as {side}", "none", "write {'name': array}")
    found: dict[str, Any] = {}
    for name in given:
        whole = isinstance(name, int | np.integer) and not isinstance(name, bool)
        if not (whole or (isinstance(name, str) and name)):
            raise SutureError(f"expected names of arrays that are text, got {show_value(name)} in {side}; "
                              "write {'name': array}")
        expect(str(name) not in found, f"every name once in {side}", show_value(str(name)),
               "rename one of the two")
        found[str(name)] = given[name]
    return found


def _read_kinds(kinds: Any, given: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Return the kinds by side and name."""
    parts = keep_parts(kinds)
    pair = parts if isinstance(parts, tuple) else (kinds, kinds)
    expect(len(pair) == 2, "kinds of source and target", f"{len(pair)} of them", "write two")
    found = {side: _read_side_kinds(kind, list(of)) for kind, (side, of) in zip(
        pair, given.items(), strict=False)}
    known = {n for of in given.values() for n in of}
    for kind in pair:
        for name in kind if isinstance(kind, Mapping) else ():
            if str(name) not in known:
                raise make_unknown_error("array in kinds", name, sorted(known))
    return found


def _read_side_kinds(kind: Any, names: Sequence[str]) -> dict[str, str]:
    if kind is None:
        return {}
    if not isinstance(kind, Mapping):
        expect(isinstance(kind, str), "kinds by name", show_value(kind), "write {'name': 'map'}")
        return dict.fromkeys(names, kind)
    for name, one in kind.items():
        expect(one is None or isinstance(one, str), f"the kind of {str(name)!r} as text", show_value(one),
               "write 'map', 'map:last', 'tokens', 'tokens:1' or 'vector'")
    return {str(name): one for name, one in kind.items() if one is not None}


def _check_numbers(arrays: Sequence[SiteArray]) -> None:
    """Check that all arrays have as many examples as the first one."""
    first = arrays[0]
    for other in arrays:
        if len(other) != len(first):
            raise SutureError(f"expected the same examples in every array, got {len(first):,} in "
                              f"{first.where} and {len(other):,} in {other.where}; row k of all must be of "
                              "the same example")


def _read_labels(given: Any, n: int) -> Tensor | None:
    """Return labels as whole numbers; those of names count them in alphabetical order."""
    if given is None:
        return None
    values = given.detach().cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)
    expect(values.shape == (n,), f"labels of shape ({n},)", f"shape {values.shape}" if values.ndim else
           describe_value(given), "give one class for each example")
    if values.dtype.kind in "US" or (values.dtype == object and all(isinstance(v, str) for v in values)):
        values = np.unique(values, return_inverse=True)[1]
    expect(values.dtype.kind in "iub", "labels that are whole numbers or names", f"{values.dtype}",
           "number the classes from 0")
    return torch.from_numpy(values.astype(np.int64))
