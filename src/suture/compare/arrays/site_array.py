"""One named array: opened without a copy, its shape and kind, and its reading by rows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from suture._base import SutureError, describe_value, expect, run_foreign, show_value, summarise_error
from suture.indices import open_array_file
from suture.representations import Kind, Shape, ShapeOverride

_KINDS = {2: Kind.VECTOR, 3: Kind.TOKENS, 4: Kind.MAP, 5: Kind.MAP}
"""Kinds by number of axes."""
_AT_ONCE = 1 << 24
"""Values that are looked at together when invalid ones are counted."""


@dataclass(frozen=True, eq=False)
class SiteArray:
    """One array with the examples along the first axis.

    Attributes:
        where: side and name, for messages.
        given: what is cut by rows.
        dims: axes of one example; (T, D) with the largest T where lengths vary.
        lengths: number of tokens of each example where they vary; None for arrays of one shape.
    """

    where: str
    given: Any
    dims: tuple[int, ...]
    lengths: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.lengths) if self.lengths is not None else _find_shape(self.given)[0]

    @property
    def looks_cut(self) -> bool:
        """True for a list that may hold batches (n, D) of one matrix, rather than examples (T, D)."""
        if not isinstance(self.given, list) or len(self.dims) != 2:
            return False
        *most, last = [len(one) for one in self.given]
        return len(set(most)) == 1 and last <= most[0]

    @cached_property
    def values(self) -> int:
        """Number of values of one example, padding included."""
        return int(np.prod(self.dims, dtype=np.int64))

    def read(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """Copy some examples into a tensor on the CPU; shorter ones are padded with zeros."""
        try:
            with run_foreign(f"reading {self.where}"):
                part = self.given[start:stop]
            if not isinstance(part, list):
                x = _as_tensor(part, dtype)
                expect(x.shape == (stop - start, *self.dims), f"examples of shape {self.dims}", x)
                return x
            examples = [_as_tensor(one, dtype) for one in part]
        except (OSError, RuntimeError, TypeError, ValueError) as e:
            raise SutureError(f"{self.where} cannot be read: {summarise_error(e)}; check the file") from e
        if self.lengths is None:
            return torch.stack(examples)
        return torch.nn.utils.rnn.pad_sequence(examples, batch_first=True)

    def recognise(self, kind: str | None, sequence: int = 0) -> Shape:
        """Return the shape by the given kind, or else by the number of axes.

        Args:
            sequence: number of the sequence that tokens of varying number are of.
        """
        like = torch.empty((len(self), *self.dims), device="meta")
        if kind is None and like.ndim > 3 and self.dims[-3] == self.dims[-2] != self.dims[-1]:
            raise SutureError(f"shape {tuple(like.shape)} of {self.where} does not tell where the channels "
                              "are; write kinds='map' for (N, C, H, W), or kinds='map:last' for (N, H, W, C)")
        how = ShapeOverride(_KINDS[like.ndim]) if kind is None else _parse_kind(self.where, kind)
        try:
            if self.lengths is not None:
                expect(how.kind is Kind.TOKENS, "tokens", kind, "write tokens, or leave it out")
            made = how.build_shape(like, lengths=() if self.lengths is None else self.dims[:1])
        except SutureError as e:
            raise SutureError(f"{self.where}: {e}") from None
        return replace(made, sequence=sequence)

    def refuse_invalid(self, dtype: torch.dtype) -> SutureError:
        """Make the error for NaN and infinity, with how many there are, and where the first one is."""
        counts, rows, first = [0, 0], 0, -1
        step = max(1, _AT_ONCE // self.values)
        for start in range(0, len(self), step):
            x = self.read(start, min(start + step, len(self)), dtype).flatten(1)
            bad = (~torch.isfinite(x)).any(1)
            counts[0] += int(x.isnan().sum())
            counts[1] += int(x.isinf().sum())
            rows += int(bad.sum())
            if first < 0 and bool(bad.any()):
                first = start + int(bad.int().argmax())
        found = " and ".join(f"{n:,} {word}" for n, word in zip(counts, ("NaN", "inf"), strict=True) if n)
        return SutureError(f"expected finite numbers in {self.where}, got {found} in {rows:,} of "
                           f"{len(self):,} examples, the first in number {first}; leave these examples out "
                           "everywhere")


def _parse_kind(where: str, kind: str) -> ShapeOverride:
    try:
        return ShapeOverride.parse(kind)
    except SutureError:
        raise SutureError(f"expected map, map:last, tokens, tokens:1, tokens:1,14x14 or vector as the kind "
                          f"of {where}, got {show_value(kind)}") from None


def open_site(where: str, given: Any) -> SiteArray:
    """Open an array by what it is; files are mapped, never unpickled.

    Raises:
        SutureError: no array of real numbers with examples along the first of two to five axes.
    """
    opened = _open(where, given)
    if isinstance(opened, list):
        return _open_examples(where, opened)
    shape = _find_shape(opened)
    expect(2 <= len(shape) <= 5, f"(N, D), (N, T, D) or (N, C, H, W) in {where}", f"shape {shape}",
           "write x[:, None] for one number per example" if len(shape) == 1 else "give another shape")
    expect(min(shape) > 0, f"at least one example and column in {where}", f"shape {shape}",
           "leave it out")
    return SiteArray(where, opened, shape[1:])


def _open(where: str, given: Any) -> Any:
    """Return what is cut by rows: a tensor, an array, a list of one array per example, or an own kind."""
    if isinstance(given, str | os.PathLike):
        given = open_array_file(Path(given))
    if isinstance(given, Tensor):
        expect(not given.is_nested, f"a tensor of one shape in {where}", "a nested one", "write x.unbind()")
        expect(not (given.is_complex() or given.is_quantized or given.is_meta), f"real numbers in {where}",
               given, "give a tensor of floats")
        return given.detach() if given.layout is torch.strided else given.detach().to_dense()
    if isinstance(given, np.ndarray) and given.dtype == object and given.ndim == 1:
        given = list(given)
    if isinstance(given, list | tuple):
        return _open_list(where, given)
    if not isinstance(given, np.ndarray) and hasattr(given, "to_numpy"):
        with run_foreign(f"reading {where}"):
            given = given.to_numpy()
    with run_foreign(f"reading {where}"):
        named = hasattr(given, "shape") and hasattr(given, "dtype") and hasattr(given, "__getitem__")
    if not named:
        raise SutureError(f"expected an array in {where}, got {describe_value(given)}; give a NumPy array, "
                          "a tensor, or a path")
    _refuse_other_numbers(where, given)
    return given


def _open_list(where: str, given: Sequence[Any]) -> Any:
    """Return a list of arrays, one for each example; nested lists of numbers become one array."""
    expect(len(given) > 0, f"at least one example in {where}", "none", "leave it out")
    arrays = all(isinstance(one, Tensor | np.ndarray) or hasattr(one, "__array__") for one in given)
    if not arrays:
        try:
            made = np.asarray(given)
        except ValueError:  # of several lengths
            return [_read_numbers(where, one) for one in given]
        _refuse_other_numbers(where, made)
        return made
    for one in given:
        _refuse_other_numbers(where, one)
    return list(given)


def _read_numbers(where: str, given: Any) -> Any:
    try:
        made = np.asarray(given)
    except ValueError:
        raise SutureError(f"expected one array (T, D) for each example in {where}, got lists of several "
                          "lengths within one") from None
    _refuse_other_numbers(where, made)
    return made


def _open_examples(where: str, parts: list[Any]) -> SiteArray:
    shapes = [tuple(map(int, one.shape)) for one in parts]
    first = shapes[0]
    if all(s == first for s in shapes):
        shape = (len(parts), *first)
        expect(2 <= len(shape) <= 5 and min(shape) > 0, f"examples (D,), (T, D) or (C, H, W) in {where}",
               f"shape {first}", "give another shape")
        return SiteArray(where, parts, first)
    odd = next((s for s in shapes if len(s) != 2 or s[1:] != first[1:]), None)
    if odd is not None or not first[1]:
        raise SutureError(f"expected examples of one shape, or (T, D) of one width, in {where}, got {first} "
                          f"and {odd or shapes[1]}; pool or crop them")
    lengths = tuple(s[0] for s in shapes)
    return SiteArray(where, parts, (max(lengths), first[1]), lengths)


def _find_shape(given: Any) -> tuple[int, ...]:
    if isinstance(given, list):
        return len(given), *tuple(given[0].shape)
    return tuple(map(int, given.shape))


def _refuse_other_numbers(where: str, given: Any) -> None:
    dtype = getattr(given, "dtype", None)
    if isinstance(given, Tensor) and not given.is_complex():
        return
    kind = getattr(dtype, "kind", "f")  # other libraries' kinds of floats have none
    name = str(dtype)
    expect(kind in "fiub" or (kind == "V" and "float" in name), f"real numbers in {where}",
           f"an array of {name}", "give floats")


def _as_tensor(part: Any, dtype: torch.dtype) -> Tensor:
    if isinstance(part, Tensor):
        expect(not part.is_complex(), "real numbers", part)
        return part.detach().cpu().to(dtype)
    with np.errstate(over="ignore"):
        # A copy, because mapped files are read-only.
        return torch.from_numpy(np.array(part, dtype=str(dtype).removeprefix("torch."), order="C", ndmin=1))
