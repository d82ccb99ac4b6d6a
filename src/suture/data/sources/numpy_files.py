"""Arrays in ``.npz`` files of NumPy; pickled objects in them are never loaded."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from suture._base import SutureError, check_free_memory, expect, summarise_error
from suture.data.sources.columns import NO_LABEL_COLUMN, ColumnNames
from suture.data.sources.splits import SPLIT_NAMES
from suture.data.sources.stores import DataSource, ExampleKind, MemoryStore, StoredSplit

INPUT_NAMES = ("x", "images", "image", "inputs", "data", "features", "imgs", "arr_0")
_ERRORS = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What NumPy raises on files that are empty, cut off, broken or encrypted."""
LABEL_NAMES = ("y", "labels", "label", "targets", "target", "arr_1")


def open_numpy(files: Mapping[str, list[Path]], name: str, columns: ColumnNames) -> DataSource:
    """Open the splits in `files`; in a single file the arrays' names give the splits (x_train, test_images).

    uint8 (N, H, W), (N, H, W, C) or (N, C, H, W) with 1, 3 or 4 channels are images; the fourth channel,
    alpha, is dropped. Anything else is read as arrays: float64 becomes float32, which networks need, unsigned
    integers of more than 8 bits become int64, other dtypes stay.
    """
    splits: dict[str, Callable[[], StoredSplit]] = {}
    for split, ones in files.items():
        if len(ones) > 1:
            raise SutureError(f"several .npz files for one split: {ones[0].name}, {ones[1].name}; name them "
                              "train.npz and test.npz")
        inner = {s: None for n in _open_file(ones[0]).files for s in SPLIT_NAMES if s in n.lower().split("_")}
        splits.update({s or split: partial(_read_split, ones[0], s, columns) for s in inner or [""]})
    return DataSource(name, splits)


def _read_split(file: Path, split: str, columns: ColumnNames) -> StoredSplit:
    arrays = _open_file(file)
    x = _find_array(arrays.files, INPUT_NAMES, split, columns.image)
    y = (None if columns.label == NO_LABEL_COLUMN
         else _find_array(arrays.files, LABEL_NAMES, split, columns.label))
    if x is None or (y is None and columns.label not in (None, NO_LABEL_COLUMN)):
        wanted, option = ((columns.image or "x", "image_column") if x is None
                          else (columns.label, "label_column"))
        raise SutureError(f"{str(file)!r} has no array {wanted!r}, only {', '.join(arrays.files) or 'none'}; "
                          f"name one with {option}")
    kind, values = _as_raw(_read_array(arrays, x, file), f"{x!r} of {str(file)!r}")
    labels = None if y is None else _read_array(arrays, y, file)
    if labels is not None:
        labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
        expect(labels.shape == (len(values),),
               f"one class number for each of {len(values)} examples in {y!r} of {str(file)!r}",
               f"{labels.shape}", f"store labels of shape ({len(values)},)")
    return StoredSplit(MemoryStore(values, file.name), kind, None if labels is None else labels.tolist(),
                       column=y or "")


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


def _read_array(arrays: Any, key: str, file: Path) -> Any:
    try:
        _check_size(arrays, key, file)
        return arrays[key]
    except SutureError:
        raise
    except _ERRORS as e:
        why = ("holds pickled objects, which are never loaded" if "pickle" in str(e)
               else f"is broken ({summarise_error(e)})")
        raise SutureError(f"array {key!r} of {str(file)!r} {why}; store numbers or strings") from e


def _check_size(arrays: Any, key: str, file: Path) -> None:
    """Check that the file holds what an array's header promises, and that this fits the memory."""
    name = key if key in arrays.zip.namelist() else f"{key}.npy"
    with arrays.zip.open(name) as opened:
        form = np.lib.format
        read = (form.read_array_header_1_0 if form.read_magic(opened) == (1, 0)
                else form.read_array_header_2_0)
        shape, _, dtype = read(opened)
    promised, held = math.prod(shape) * dtype.itemsize, arrays.zip.getinfo(name).file_size
    if not dtype.hasobject and promised > held:
        raise ValueError(f"its header promises {promised} bytes, it holds {held}")
    check_free_memory(held, torch.device("cpu"), f"array {key!r} of {str(file)!r}", "store fewer examples")


def _as_raw(x: Any, what: str) -> tuple[ExampleKind, Tensor]:
    expect(x.ndim > 0 and x.dtype.kind in "uifb", f"numbers with the examples along the first axis in {what}",
           f"{x.dtype} of shape {x.shape}", "store uint8 images or floats")
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
