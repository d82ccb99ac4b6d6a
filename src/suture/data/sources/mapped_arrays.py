"""Arrays that stay in their files. Rows are read when they are asked for, so files may exceed the memory."""

from __future__ import annotations

import math
import os
import struct
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from suture._base import expect

MAPPED_BYTES = 2**26
"""Bytes from which an array of an uncompressed ``.npz`` file is mapped. Smaller ones are read as a whole."""
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class MappedArray:
    """An array in a file, mapped into memory when its first rows are asked for, in each process anew.

    Attributes:
        offset: bytes of the file before its first value.
        shape, dtype: of the array; its first axis is the examples.
        order: "C", or "F" where the first index varies fastest.
    """

    file: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: str = "C"

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Array:
        return np.asarray(self._opened[rows])

    def __getstate__(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @cached_property
    def _opened(self) -> Array:
        if not math.prod(self.shape):
            return np.empty(self.shape, self.dtype)
        return np.memmap(self.file, self.dtype, "r", self.offset, self.shape, self.order)  # type: ignore[call-overload, no-any-return]


def map_npy(file: Path) -> MappedArray:
    """Map the array of a ``.npy`` file.

    Raises:
        ValueError: no such file, pickled objects, or less in it than its header promises.
    """
    with file.open("rb") as opened:
        return _read_header(file, opened, os.path.getsize(file))


def map_member(file: Path, member: zipfile.ZipInfo) -> MappedArray | None:
    """Map an array of an ``.npz`` file; return None for one that is small, or compressed."""
    if member.compress_type != zipfile.ZIP_STORED or member.file_size < MAPPED_BYTES:
        return None
    with file.open("rb") as opened:
        # The local header of a member ends with its name and extra fields of its own; the data follow.
        opened.seek(member.header_offset + 26)
        opened.seek(sum(struct.unpack("<HH", opened.read(4))), os.SEEK_CUR)
        return _read_header(file, opened, opened.tell() + member.file_size)


def _read_header(file: Path, opened: IO[bytes], end: int) -> MappedArray:
    form = np.lib.format
    read = form.read_array_header_1_0 if form.read_magic(opened) == (1, 0) else form.read_array_header_2_0
    shape, fortran, dtype = read(opened)
    start, promised = opened.tell(), math.prod(shape) * dtype.itemsize
    if dtype.hasobject:
        raise ValueError("it holds pickled objects, which are never loaded")
    if start + promised > min(end, os.path.getsize(file)):
        raise ValueError(f"its header promises {promised} bytes, it holds {max(0, end - start)}")
    return MappedArray(file, start, tuple(shape), dtype, "F" if fortran else "C")


class ArrayStore:
    """Store of the rows of one array, or of several as if they were one.

    Args:
        parts: arrays (N, ...) of one type, and of one shape but for N; in memory or mapped.
        convert: function from rows of a part (B, ...) to raw examples (B, ...).
        names: name of each part in messages.
    """

    def __init__(self, parts: Sequence[Array | MappedArray], convert: Callable[[Array], Tensor],
                 names: Sequence[str]) -> None:
        first = parts[0]
        for part, name in zip(parts, names, strict=True):
            expect((part.dtype, part.shape[1:]) == (first.dtype, first.shape[1:]),
                   f"{first.dtype} of shape (N, {', '.join(map(str, first.shape[1:]))}) as in {names[0]}",
                   f"{part.dtype} of shape {part.shape} in {name}")
        self.parts, self.convert, self.names = tuple(parts), convert, tuple(names)
        self._starts = np.array([0, *accumulate(len(part) for part in parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def fetch(self, rows: Sequence[int]) -> Tensor:
        chosen = np.asarray(rows, dtype=np.int64)
        if len(self.parts) == 1:
            return self.convert(self.parts[0][chosen])
        own = np.searchsorted(self._starts, chosen, side="right") - 1
        found = np.empty((len(chosen), *self.parts[0].shape[1:]), self.parts[0].dtype)
        for k in np.unique(own):
            mine = own == k
            found[mine] = self.parts[k][chosen[mine] - self._starts[k]]
        return self.convert(found)

    def describe_row(self, row: int) -> str:
        k = int(np.searchsorted(self._starts, row, side="right")) - 1
        return f"{self.names[k]}, row {row - self._starts[k]}"
