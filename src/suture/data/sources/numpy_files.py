"""Arrays in ``.npz`` files of NumPy; pickled objects in them are never loaded."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from suture._base import SutureError, summarise_error
from suture.data.sources.columns import NO_LABEL_COLUMN, ColumnNames
from suture.data.sources.decoding import ExampleKind
from suture.data.sources.splits import SPLIT_NAMES
from suture.data.sources.stores import DataSource, MemoryStore, StoredSplit

INPUT_NAMES = ("x", "images", "image", "inputs", "data", "features", "imgs", "arr_0")
LABEL_NAMES = ("y", "labels", "label", "targets", "target", "arr_1")


def open_numpy(files: Mapping[str, list[Path]], name: str, columns: ColumnNames) -> DataSource:
    """Open the splits in `files`; in a single file the arrays' names give the splits (x_train, test_images).

    uint8 (N, H, W), (N, H, W, C) or (N, C, H, W) with 1, 3 or 4 channels are images (the fourth, alpha, is
    dropped). Anything else is read as arrays, as stored, with two exceptions: float64 becomes float32, which
    networks need, and unsigned integers of more than 8 bits become int64.

    Raises:
        SutureError: no such file, pickled objects in it, no inputs among the arrays, or several files of one
            split.
    """
    many = next((f for f in files.values() if len(f) > 1), None)
    if many is not None:
        raise SutureError(f"expected one .npz file for each split in {str(many[0].parent)!r}, got "
                          f"{many[0].name} and {many[1].name}; name them train.npz and test.npz, "
                          "or give one file")
    splits: dict[str, Callable[[], StoredSplit]] = {}
    for split, (file,) in files.items():
        splits.update({inner or split: cache(partial(_read_split, file, inner, name, columns))
                       for inner in _list_splits(file)})
    return DataSource(name, splits)


def _list_splits(file: Path) -> list[str]:
    found = {s: None for n in _open_file(file).files for s in SPLIT_NAMES if s in n.lower().split("_")}
    return list(found) or [""]


def _read_split(file: Path, split: str, name: str, columns: ColumnNames) -> StoredSplit:
    arrays = _open_file(file)
    x = _find_array(arrays.files, INPUT_NAMES, split, columns.image, name)
    if x is None:
        raise SutureError(f"expected an array of inputs in {str(file)!r}, such as x or x_train, got "
                          f"{', '.join(arrays.files) or 'none'}; name one with image_column")
    y = (None if columns.label == NO_LABEL_COLUMN
         else _find_array(arrays.files, LABEL_NAMES, split, columns.label, name))
    inputs = _read_array(arrays, x, file)
    kind, values = _as_raw(inputs, x, file)
    labels = None if y is None else _read_array(arrays, y, file)
    if labels is not None and labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels is not None and (labels.ndim != 1 or len(labels) != len(inputs)):
        raise SutureError(f"expected one class number for each of {len(inputs)} examples in {y!r} of "
                          f"{str(file)!r}, got {labels.shape}; store labels of shape ({len(inputs)},)")
    return StoredSplit(MemoryStore(values, file.name), kind, None if labels is None else labels.tolist(),
                       column=y or "")


def _find_array(names: list[str], usual: tuple[str, ...], split: str, given: str | None,
                name: str) -> str | None:
    """Find the array that is meant: `given`, else one of the usual names.

    Either may be joined with the split's name.
    """
    for one in usual if given is None else (given,):
        for spelt in (f"{one}_{split}", f"{split}_{one}") if split else (one,):
            found = next((n for n in names if n.lower() == spelt.lower()), None)
            if found is not None:
                return found
    if given is None:
        return None
    raise SutureError(f"expected an array {given!r} in {name}, got {', '.join(names)}; name one of these")


def _open_file(file: Path) -> Any:
    try:
        opened = np.load(file, allow_pickle=False)
    except (OSError, ValueError, zipfile.BadZipFile) as e:
        raise SutureError(f"expected an .npz file, got {str(file)!r} that cannot be read "
                          f"({summarise_error(e)}); write it with numpy.savez") from e
    if not hasattr(opened, "files"):
        raise SutureError(f"expected an .npz file with named arrays, got a single array in {str(file)!r}; "
                          "write it with numpy.savez(file, x=..., y=...)")
    return opened


def _read_array(arrays: Any, key: str, file: Path) -> Any:
    try:
        return arrays[key]
    except (OSError, ValueError, zipfile.BadZipFile) as e:
        why = ("holds pickled objects, which are never loaded" if "pickle" in str(e)
               else f"is broken ({summarise_error(e)})")
        raise SutureError(f"expected an array of numbers or strings, got {key!r} of {str(file)!r}, which "
                          f"{why}; store it with a dtype of its own") from e


def _as_raw(x: Any, key: str, file: Path) -> tuple[ExampleKind, Tensor]:
    if x.ndim < 1 or x.dtype.kind not in "uifb":
        raise SutureError(f"expected numbers with the examples along the first axis in {key!r} of "
                          f"{str(file)!r}, got {x.dtype} of shape {x.shape}; store uint8 images or floats")
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
