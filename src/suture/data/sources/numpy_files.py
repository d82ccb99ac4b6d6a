"""Arrays in ``.npz`` and ``.npy`` files of NumPy; pickled objects in them are never loaded."""

from __future__ import annotations

import math
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from suture._base import SutureError, check_free_memory, expect, summarise_error
from suture.data.sources.cifar import CIFAR10_NAMES
from suture.data.sources.columns import NO_LABEL_COLUMN, ColumnNames
from suture.data.sources.mapped_arrays import Array, ArrayStore, MappedArray, map_member, map_npy
from suture.data.sources.splits import SPLIT_NAMES
from suture.data.sources.stores import DataSource, ExampleKind, StoredSplit

INPUT_NAMES = ("x", "images", "image", "inputs", "data", "features", "imgs", "arr_0")
_ERRORS = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What NumPy raises on files that are empty, cut off, broken or encrypted."""
LABEL_NAMES = ("y", "labels", "label", "targets", "target", "arr_1")


_PART = re.compile(r"(.*?)part[_-]?(\d+)")
"""Names of files that are parts of one split, such as cifar5m_part0."""


def open_numpy(files: Mapping[str, list[Path]], name: str, columns: ColumnNames) -> DataSource:
    """Open the splits in `files`; in a single ``.npz`` names of arrays give them (x_train, test_images).

    uint8 (N, H, W), (N, H, W, C) or (N, C, H, W) with 1, 3 or 4 channels are images; the fourth channel,
    alpha, is dropped. Anything else is read as arrays: float64 becomes float32, which networks need, unsigned
    integers of more than 8 bits become int64, other dtypes stay. Large arrays stay in their files.

    Files ``cifar5m_part0.npz``, ``cifar5m_part1.npz``, ... are one split, in the order of their numbers.
    """
    splits: dict[str, Callable[[], StoredSplit]] = {}
    for split, ones in files.items():
        parts = _order_parts(ones)
        if parts[0].suffix.lower() == ".npy":
            splits[split] = partial(_read_single, parts)
            continue
        held = _open_file(parts[0]).files if len(parts) == 1 else []
        inner = {s: None for n in held for s in SPLIT_NAMES if s in n.lower().split("_")}
        splits.update({s or split: partial(_read_split, parts, s, columns) for s in inner or [""]})
    return DataSource(name, splits)


def _order_parts(files: list[Path]) -> list[Path]:
    """Return the files of one split in the order of their numbers."""
    found = [_PART.fullmatch(file.stem) for file in files]
    if len(files) > 1 and (None in found or len({m[1] for m in found if m}) > 1):
        raise SutureError(f"several {files[0].suffix} files for one split: {files[0].name}, {files[1].name}; "
                          f"name them train{files[0].suffix} and test{files[0].suffix}")
    numbered = dict(sorted((int(m[2]) if m else 0, file) for m, file in zip(found, files, strict=True)))
    gone = next((k for k in range(min(numbered), max(numbered)) if k not in numbered), None)
    if gone is not None:
        raise SutureError(f"part {gone} of {files[0].name} to {files[-1].name} is missing in "
                          f"{str(files[0].parent)!r}; fetch it, or number the parts one by one")
    return list(numbered.values())


def _note_parts(files: Sequence[Path]) -> str:
    return f"joined from {', '.join(file.name for file in files)}" if len(files) > 1 else ""


def _read_single(files: Sequence[Path]) -> StoredSplit:
    """Read a split of arrays without names, and so without labels."""
    arrays = []
    for file in files:
        try:
            arrays.append(map_npy(file))
        except _ERRORS as e:
            raise SutureError(f"cannot read {str(file)!r} as .npy ({summarise_error(e)}); write numbers with "
                              "numpy.save") from e
    kind, store = _make_store(arrays, files, [repr(str(file)) for file in files])
    return StoredSplit(store, kind, note=_note_parts(files))


def _make_store(arrays: Sequence[Array | MappedArray], files: Sequence[Path],
                names: Sequence[str]) -> tuple[ExampleKind, ArrayStore]:
    for array, name in zip(arrays, names, strict=True):
        expect(bool(array.shape) and array.dtype.kind in "uifb",
               f"numbers with the examples along the first axis in {name}",
               f"{array.dtype} of shape {array.shape}", "store uint8 images or floats")
    store = ArrayStore(arrays, _convert_rows, [file.name for file in files])
    return _as_raw(np.empty((0, *arrays[0].shape[1:]), arrays[0].dtype))[0], store


def _convert_rows(rows: Array) -> Tensor:
    return _as_raw(rows)[1]


def _read_split(files: Sequence[Path], split: str, columns: ColumnNames) -> StoredSplit:
    xs, ys, names, label = list[Array | MappedArray](), list[Array](), list[str](), ""
    for file in files:
        x, y, what, label = _read_file(file, split, columns)
        xs.append(x)
        names.append(what)
        ys += [] if y is None else [y]
    expect(len(ys) in (0, len(xs)), f"labels in each of {files[0].name} to {files[-1].name}",
           f"{len(ys)} with labels", "store y in all of them")
    kind, store = _make_store(xs, files, names)
    labels = None if not ys else np.concatenate(ys).tolist()
    known = CIFAR10_NAMES if files[0].stem.lower().startswith("cifar5m") and labels is not None else None
    return StoredSplit(store, kind, labels, known, column=label, note=_note_parts(files))


def _read_file(file: Path, split: str, columns: ColumnNames
               ) -> tuple[Array | MappedArray, Array | None, str, str]:
    """Return (examples, labels, words for the examples, name of the labels) of a split in a file."""
    arrays = _open_file(file)
    x = _find_array(arrays.files, INPUT_NAMES, split, columns.image)
    y = (None if columns.label == NO_LABEL_COLUMN
         else _find_array(arrays.files, LABEL_NAMES, split, columns.label))
    if x is None or (y is None and columns.label not in (None, NO_LABEL_COLUMN)):
        wanted, option = ((columns.image or "x", "image_column") if x is None
                          else (columns.label, "label_column"))
        raise SutureError(f"{str(file)!r} has no array {wanted!r}, only {', '.join(arrays.files) or 'none'}; "
                          f"name one with {option}")
    values = _read_array(arrays, x, file, maps=True)
    labels = None if y is None else _read_array(arrays, y, file)
    if labels is not None:
        labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
        n = len(values) if values.shape else 0
        expect(labels.shape == (n,), f"one class number for each of {n} examples in {y!r} of {str(file)!r}",
               f"{labels.shape}", f"store labels of shape ({n},)")
    return values, labels, f"{x!r} of {str(file)!r}", y or ""


def _find_array(names: list[str], usual: tuple[str, ...], split: str, given: str | None) -> str | None:
    """Find the array `given`, else one with a usual name; either may be joined with the split's name."""
    spelt = [s for one in (usual if given is None else (given,))
             for s in ((f"{one}_{split}", f"{split}_{one}") if split else (one,))]
    known = {n.lower(): n for n in reversed(names)}
    return next((known[s.lower()] for s in spelt if s.lower() in known), None)


def _open_file(file: Path) -> Any:
    try:
        # A map, so that a single array with a false header is not allocated.
        opened = np.load(file, allow_pickle=False, mmap_mode="r")
    except _ERRORS as e:
        why = "it holds pickled objects" if "pickle" in str(e) else summarise_error(e)
        raise SutureError(f"cannot read {str(file)!r} as .npz ({why}); write it with numpy.savez") from e
    expect(hasattr(opened, "files"), "named arrays", f"a single array in {str(file)!r}",
           "write numpy.savez(file, x=..., y=...)")
    return opened


def _read_array(arrays: Any, key: str, file: Path, maps: bool = False) -> Any:
    """Read an array; with `maps`, a large one that is not compressed stays in the file."""
    try:
        member = arrays.zip.getinfo(key if key in arrays.zip.namelist() else f"{key}.npy")
        mapped = map_member(file, member) if maps else None
        if mapped is not None:
            return mapped
        _check_size(arrays, member, key, file)
        return arrays[key]
    except SutureError:
        raise
    except _ERRORS as e:
        why = ("holds pickled objects, which are never loaded" if "pickle" in str(e)
               else f"is broken ({summarise_error(e)})")
        raise SutureError(f"array {key!r} of {str(file)!r} {why}; store numbers or strings") from e


def _check_size(arrays: Any, member: zipfile.ZipInfo, key: str, file: Path) -> None:
    """Check that the file holds what an array's header promises, and that this fits the memory."""
    with arrays.zip.open(member) as opened:
        form = np.lib.format
        read = (form.read_array_header_1_0 if form.read_magic(opened) == (1, 0)
                else form.read_array_header_2_0)
        shape, _, dtype = read(opened)
    promised, held = math.prod(shape) * dtype.itemsize, member.file_size
    if not dtype.hasobject and promised > held:
        raise ValueError(f"its header promises {promised} bytes, it holds {held}")
    check_free_memory(held, torch.device("cpu"), f"array {key!r} of {str(file)!r}", "store fewer examples")


def _as_raw(x: Array) -> tuple[ExampleKind, Tensor]:
    """Return the kind of rows (B, ...) of an array of numbers, and them as raw examples."""
    if x.dtype == np.uint8 and x.ndim == 3:
        return "images", torch.from_numpy(x)[:, None]
    if x.dtype == np.uint8 and x.ndim == 4:
        pixels = torch.from_numpy(x)
        for channels in ((1, 3), (4,)):
            if x.shape[3] in channels:
                return "images", pixels.permute(0, 3, 1, 2)[:, :3]
            if x.shape[1] in channels:
                return "images", pixels[:, :3]
    wide = {"f": np.float32 if x.dtype.itemsize > 4 else None,
            "u": np.int64 if x.dtype.itemsize > 1 else None}
    return ("arrays",
            torch.from_numpy(x.astype(wide.get(x.dtype.kind) or x.dtype.newbyteorder("="), copy=False)))
