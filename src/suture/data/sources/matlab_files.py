"""Files of MATLAB: the numbers in them, and SVHN, whose cropped digits are published as such."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from suture._base import SutureError, check_free_memory, expect, summarise_error
from suture.data.sources.stores import DataSource, MemoryStore, StoredSplit

_ENDING = "_32x32"


def read_variables(file: Path, names: Sequence[str], **how: Any) -> dict[str, Any]:
    """Read variables of a file in MATLAB's version 5; ``scipy.io.loadmat`` never unpickles.

    Args:
        how: further options of ``loadmat``.

    Raises:
        SutureError: another file, or one that is damaged; it lacks a variable, or does not fit the memory.
    """
    from scipy import io

    try:
        held = {name: shape for name, shape, _ in io.whosmat(file)}
        for name in names:
            expect(name in held, f"{name} in {str(file)!r}", ", ".join(held) or "nothing", "check the file")
        size = sum(math.prod(held[name]) for name in names)
        check_free_memory(size, torch.device("cpu"), repr(str(file)), "use a split with fewer examples")
        found: dict[str, Any] = io.loadmat(file, variable_names=list(names), **how)
    except SutureError:
        raise
    # scipy raises errors of any type on broken files, such as TypeError, KeyError or zlib.error.
    except Exception as e:
        raise SutureError(f"cannot read {str(file)!r} as a file of MATLAB 5 ({summarise_error(e)}); fetch it "
                          "again") from e
    return found


def open_svhn(files: Mapping[str, list[Path]], name: str) -> DataSource:
    """Open SVHN's cropped digits: ``train_32x32.mat``, ``test_32x32.mat``, ``extra_32x32.mat``.

    Each holds X, uint8 (32, 32, 3, N), and y, (N, 1), where 10 is the digit 0, as torchvision reads it too.
    The split ``extra`` is used where it is named.
    """
    splits = {}
    for split, ones in files.items():
        if len(ones) > 1:
            raise SutureError(f"several .mat files for one split: {ones[0].name}, {ones[1].name}; give "
                              f"SVHN's train{_ENDING}.mat and test{_ENDING}.mat")
        splits[split.removesuffix(_ENDING)] = partial(_read_digits, ones[0])
    return DataSource(name, splits)


def _read_digits(file: Path) -> StoredSplit:
    found = read_variables(file, ("X", "y"))
    x, y = found["X"], found["y"]
    expect(x.ndim == 4 and x.shape[2] == 3 and x.dtype == np.uint8,
           f"X of {str(file)!r} as uint8 (32, 32, 3, N)", f"{x.dtype} of shape {x.shape}")
    expect(y.size == x.shape[3] and y.dtype.kind in "uif",
           f"y of {str(file)!r} as {x.shape[3]} class numbers", f"{y.dtype} of shape {y.shape}")
    labels = y.reshape(-1)
    bad = np.flatnonzero((labels < 1) | (labels > 10) | (labels % 1 != 0))
    if len(bad):
        raise SutureError(f"expected class numbers from 1 to 10 in y of {str(file)!r}, got {labels[bad[0]]} "
                          f"at row {bad[0]}; fetch the file again")
    images = torch.from_numpy(x).permute(3, 2, 0, 1)
    return StoredSplit(MemoryStore(images, file.name), "images", (labels.astype(np.int64) % 10).tolist(),
                       classes=10, column="y")
