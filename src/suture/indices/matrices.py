"""Indices of matrices on disk: files or folders of arrays."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import PlainValidator
from safetensors import SafetensorError, safe_open
from torch import Tensor

from suture._base import (
    Count,
    Draws,
    FilePath,
    Seed,
    SutureError,
    Whole,
    check_file,
    checked,
    expect,
    read_path,
)
from suture.indices.computation import Streaming
from suture.indices.definition import Value
from suture.indices.nulls.labels import Groups, Labels
from suture.indices.requests import Names
from suture.indices.row_sketch import RUNS, RowSketcher
from suture.indices.saved_moments import save_moments
from suture.numbers import SAMPLE_ROWS

CHUNK_ROWS = 4096
"""Number of rows that are read at once."""
_ENDINGS = (".npy", ".npz", ".safetensors")


def _read_source(given: Any) -> Any:
    return read_path(given) if isinstance(given, str | PathLike) else given


ArraySource = Annotated[Any, PlainValidator(_read_source)]
"""An array, a tensor, or the path of a file or folder of arrays."""


@checked
def compare_arrays(source: ArraySource, target: ArraySource, indices: Names = "default", *,
                   jackknife: Whole = 0, sample: Count = SAMPLE_ROWS, seed: Seed = 0,
                   nulls: Draws = 0, groups: Groups = None, within: Labels = None,
                   save: FilePath | None = None) -> dict[str, Value]:
    """Compute structural indices of two matrices with the same rows, from arrays or files.

    >>> indices.compare_arrays("layer3", "layer4", ["cka", "svcca", "r2_folds"], jackknife=20)

    Args:
        source, target: (n, p) and (n, q): an array or tensor, a ``.npy``, ``.npz`` or ``.safetensors`` file
            with one array, or a folder of such files. Both folders have the same file names, whose order is
            that of the rows. Files are read in pieces of `CHUNK_ROWS` rows, never unpickled.
        indices, jackknife, sample, seed, nulls, groups, within: see `suture.indices.of_matrices`.
        save: ``.safetensors`` file for the moments, to be merged with those of other rows (`merged_moments`).

    Raises:
        SutureError: files without such matrices, folders of different files, different numbers of rows.
    """
    if save is not None:
        check_file(save, ".safetensors")
    streaming = Streaming(indices, jackknife=jackknife, sample=sample, seed=seed, nulls=nulls, groups=groups,
                          within=within)
    streaming.keeps_moments |= save is not None
    sketchers = [RowSketcher(length) for length in RUNS] if save is not None else []
    for x, y in _read_together(source, target):
        streaming.update(x, y)
        for sketcher in sketchers:
            sketcher.update(x, y)
    found = streaming.values()
    if save is not None:
        save_moments(save, streaming.blocks, [s.sketch for s in sketchers])
    return found


def _read_together(source: Any, target: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the rows of both, piece by piece."""
    for x, y in _pair_files(source, target):
        a, b = _open_array(x), _open_array(y)
        expect(len(a) == len(b), "the same rows on both sides",
               f"{len(a)} in {_describe(x)} and {len(b)} in {_describe(y)}",
               "row k of both must be of the same example")
        for start in range(0, max(1, len(a)), CHUNK_ROWS):
            yield _copy_piece(a, start), _copy_piece(b, start)


def _copy_piece(array: Any, start: int) -> Any:
    """Copy rows into memory, because a mapped file is read-only and tensors must be writable."""
    piece = array[start:start + CHUNK_ROWS]
    return piece if isinstance(piece, Tensor) else np.array(piece)


def _pair_files(source: Any, target: Any) -> list[tuple[Any, Any]]:
    given = [Path(s) if isinstance(s, str | PathLike) else s for s in (source, target)]
    folders = [s for s in given if isinstance(s, Path) and s.is_dir()]
    if not folders:
        return [(given[0], given[1])]
    both = " and ".join(map(_describe, given))
    expect(len(folders) == 2, "two folders or two arrays", both, "give both in one form")
    a, b = ({p.name: p for p in sorted(s.iterdir()) if p.suffix in _ENDINGS} for s in folders)
    odd = sorted(set(a) ^ set(b))
    expect(bool(a) and not odd, f"files of the same names ({', '.join(_ENDINGS)}) in {both}",
           f"{odd[0]!r} in one of them only" if odd else "none",
           "write each batch of rows under one name in both")
    return [(a[name], b[name]) for name in a]


def _describe(given: Any) -> str:
    return repr(str(given)) if isinstance(given, Path) else "an array"


def _open_array(given: Any) -> Any:
    """Open a matrix; a file is mapped or read, never unpickled."""
    try:
        array = (open_array_file(given) if isinstance(given, Path)
                 else given if isinstance(given, Tensor) else np.asarray(given))
    except SutureError:
        raise
    except (ValueError, RuntimeError) as e:  # lists of several lengths, tensors that need a gradient
        raise SutureError("expected a matrix (n, columns), got parts of several shapes; give one array, or "
                          "several by name, {'name': array}") from e
    expect(array.ndim == 2, "a matrix (n, columns)", f"shape {tuple(array.shape)} in {_describe(given)}",
           "pool or flatten it first")
    return array


def open_array_file(path: Path) -> Any:
    """Map a ``.npy`` file, or read the one array of another file; nothing is unpickled."""
    expect(path.suffix in _ENDINGS and path.is_file(),
           f"a file of arrays ({', '.join(_ENDINGS)}) or a folder of them", f"{str(path)!r}")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as opened:
                return opened.get_tensor(_find_single(path, list(opened.keys())))
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        return found if isinstance(found, np.ndarray) else found[_find_single(path, found.files)]
    except SutureError:
        raise
    except (OSError, ValueError, SafetensorError, EOFError) as e:
        raise SutureError(f"expected an array in {str(path)!r}, got {type(e).__name__}: "
                          f"{e}; write it again") from e


def _find_single(path: Path, names: list[str]) -> str:
    expect(len(names) == 1, f"one array in {str(path)!r}", f"{len(names)}",
           "give all by name: numpy.load or safetensors.numpy.load_file")
    return names[0]
