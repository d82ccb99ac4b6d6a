"""CIFAR-10 and CIFAR-100 in their binary version: records of labels and pixels, mapped and not copied."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from suture._base import SutureError
from suture.data.sources.mapped_arrays import Array, ArrayStore, MappedArray
from suture.data.sources.stores import DataSource, StoredSplit

CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""Classes of CIFAR-10 and CIFAR-5M in the order of their numbers."""
_PIXELS = 3 * 32 * 32
_TENS: Mapping[str, tuple[str, ...]] = {"train": tuple(f"data_batch_{k}" for k in range(1, 6)),
                                        "test": ("test_batch",)}
_HUNDREDS: Mapping[str, tuple[str, ...]] = {"train": ("train",), "test": ("test",)}


def open_cifar(files: Sequence[Path], name: str) -> DataSource:
    """Open binary files of CIFAR-10 (``data_batch_1.bin``, ..., ``test_batch.bin``) or CIFAR-100.

    A record is one byte of the class (in CIFAR-100 the coarse, then the fine class, which is used), then
    3,072 of the image (3, 32, 32).

    Raises:
        SutureError: files of other names, a batch that is missing, or a length that is no number of records.
    """
    stems = {file.stem.lower(): file for file in files}
    hundred = not any(stem in stems for ones in _TENS.values() for stem in ones)
    parts = _HUNDREDS if hundred else _TENS
    if not any(stem in stems for ones in parts.values() for stem in ones):
        raise SutureError(f"expected data_batch_1.bin to test_batch.bin of CIFAR, got {files[0].name}; "
                          "pickled files, such as weights of PyTorch, are no data")
    splits = {}
    for split, ones in parts.items():
        if len(files) == 1 and not any(stem in stems for stem in ones):
            continue
        gone = [stem for stem in ones if stem not in stems]
        if gone and len(files) > 1:
            raise SutureError(f"{gone[0]}.bin is missing in {str(files[0].parent)!r}; unpack "
                              f"cifar-{'100' if hundred else '10'}-binary.tar.gz again")
        found = [stems[stem] for stem in ones if stem in stems]
        splits[split if len(files) > 1 else ""] = partial(_read_records, found, 2 if hundred else 1)
    return DataSource(name, splits)


def _read_records(files: Sequence[Path], before: int) -> StoredSplit:
    """Read records with `before` bytes of classes in front of the pixels."""
    arrays = []
    for file in files:
        size, record = os.path.getsize(file), before + _PIXELS
        if not size or size % record:
            raise SutureError(f"expected records of {record} bytes in {str(file)!r}, got {size} bytes; "
                              "unpack the archive of CIFAR again")
        arrays.append(MappedArray(file, 0, (size // record, record), np.dtype(np.uint8)))
    labels = [int(label) for array in arrays for label in array[:, before - 1]]
    names = _read_names(files[0].parent, before) or (CIFAR10_NAMES if before == 1 else None)
    store = ArrayStore(arrays, _cut_pixels, [file.name for file in files])
    return StoredSplit(store, "images", labels, names, 10 if before == 1 else 100)


def _cut_pixels(records: Array) -> Tensor:
    return torch.from_numpy(records)[:, -_PIXELS:].reshape(-1, 3, 32, 32)


def _read_names(folder: Path, before: int) -> tuple[str, ...] | None:
    """Read the names of the classes, where their file lies beside the records."""
    file = folder / ("batches.meta.txt" if before == 1 else "fine_label_names.txt")
    lines = file.read_text(encoding="utf-8", errors="replace").split() if file.is_file() else []
    return tuple(lines) if len(lines) == (10 if before == 1 else 100) else None


def refuse_pickled_cifar(path: Path) -> None:
    """Raise a `SutureError` for the Python version of CIFAR, a folder or a file of it, which is pickled."""
    folders = [path, *(d for d in path.iterdir() if d.is_dir())] if path.is_dir() else [path.parent]
    for folder in folders:
        ten, hundred = ((folder / f).is_file() for f in ("data_batch_1", "fine_label_names"))
        hundred = not hundred and all((folder / f).is_file() for f in ("train", "test", "meta"))
        if ten or hundred:
            kind = "10" if ten else "100"
            raise SutureError(f"{str(folder)!r} is the Python version of CIFAR-{kind}, whose files are "
                              f"pickled and never loaded; unpack cifar-{kind}-binary.tar.gz")
