"""Indices of matrices on disk: two files or folders of arrays, or moments saved on several machines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors import torch as safetensors
from torch import Tensor

from suture._base import SutureError, replace_file
from suture.indices.computation import of_blocks
from suture.indices.definition import Value
from suture.indices.streaming import Streaming
from suture.indices.table import Named
from suture.numbers import SAMPLE_ROWS, Cross, MomentBlock, Moments, Side, UnitRowSums

MOMENTS_FORMAT = "suture.moments/1"
CHUNK_ROWS = 4096
"""Number of rows that are read at once."""
_ENDINGS = (".npy", ".npz", ".safetensors")
_PRECISIONS = {str(d): d for d in (torch.float64, torch.float32)}


def compare_arrays(source: Any, target: Any, indices: Iterable[Named] | Named = "default", *,
                   jackknife: int = 0, sample: int = SAMPLE_ROWS, seed: int = 0,
                   save: str | Path | None = None) -> dict[str, Value]:
    """Compute structural indices of two matrices with the same rows, from arrays or files.

    No network is needed.

    >>> suture.compare_arrays("layer3", "layer4", ["cka", "svcca", "r2_folds"], jackknife=20)

    Args:
        source, target: (n, p) and (n, q): an array or tensor; a ``.npy``, ``.npz`` or ``.safetensors`` file
            with one array; or a folder of such files. Both folders have the same file names, and rows follow
            each other in their order. Files are read in pieces of `CHUNK_ROWS` rows, never unpickled.
        indices: see `suture.indices.of_matrices`, as jackknife, sample and seed.
        save: file for the moments, ``.safetensors``, to be merged with those of other rows
            (`merged_moments`).

    Raises:
        SutureError: files that hold no such matrices, folders of different files, different numbers of rows.
    """
    streaming = Streaming(indices, jackknife=jackknife, sample=sample, seed=seed)
    for x, y in _read_together(source, target):
        streaming.update(x, y)
    found = streaming.values()
    if save is not None:
        save_moments(save, streaming.blocks)
    return found


def merged_moments(paths: Sequence[str | Path], indices: Iterable[Named] | Named = "default", *,
                   intervals: bool = False) -> dict[str, Value]:
    """Compute indices from moments that `compare_arrays` saved, of the rows of all files together.

    Args:
        paths: files of disjoint rows of the same two matrices.
        indices: those that need no rows.
        intervals: 95 % intervals by the jackknife over the blocks of all files.

    Raises:
        SutureError: files that hold no moments, of other widths; an index that needs rows.
    """
    if not paths:
        raise SutureError("expected at least one file of moments, got none; write them with "
                          "compare_arrays(save=...)")
    blocks = [block for path in paths for block in load_moments(path)]
    shapes = {tuple(b.moments.sxy.shape) for b in blocks}
    if len(shapes) > 1:
        raise SutureError(f"expected moments of the same two matrices, got widths {sorted(shapes)}; merge "
                          "files of disjoint rows only")
    return of_blocks(blocks, indices, intervals=intervals)


def save_moments(path: str | Path, blocks: Sequence[MomentBlock]) -> Path:
    """Write blocks of moments to one file, whole or not at all.

    Args:
        path: ends in ``.safetensors``.
        blocks: of `suture.indices.Streaming.blocks`.

    Raises:
        SutureError: another ending, or the path cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise SutureError(f"moments are saved as .safetensors, got {path.name!r}; write "
                          f"{path.stem}.safetensors")
    tensors = {f"{k}/{key}": t for k, block in enumerate(blocks)
               for key, t in _name_block_tensors(block).items()}
    about = {"format": MOMENTS_FORMAT, "blocks": str(len(blocks)),
             "precision": str(blocks[0].moments.precision), "n": json.dumps([b.moments.n for b in blocks])}
    replace_file(path, safetensors.save({k: t.contiguous() for k, t in tensors.items()}, about))
    return path


def load_moments(path: str | Path) -> list[MomentBlock]:
    """Load the blocks that `save_moments` wrote.

    Raises:
        SutureError: the file is missing, damaged, or holds something else.
    """
    path = Path(path)
    try:
        with safe_open(path, "pt") as opened:
            about = opened.metadata() or {}
            if about.get("format") != MOMENTS_FORMAT:
                raise SutureError(f"expected moments that suture saved, got {path.name!r}; write them with "
                                  "compare_arrays(save=...)")
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
        numbers, precision = json.loads(about["n"]), _PRECISIONS[about["precision"]]
        return [_build_block(k, int(n), precision, tensors) for k, n in enumerate(numbers)]
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as e:
        raise SutureError(f"expected a file of moments at {str(path)!r}, got {type(e).__name__}: {e}; "
                          "compute them again") from e


def _name_block_tensors(part: MomentBlock) -> dict[str, Tensor]:
    named = {f"moments/{key}": t for key, t in _name_tensors(part.moments).items()}
    if part.standard is not None:
        named |= {f"standard/{key}": t for key, t in _name_tensors(part.standard).items()}
    for side, d in zip("xy", part.unit or (), strict=False):
        named |= {f"unit/{side}.total": d.total, f"unit/{side}.zeros": torch.tensor(d.zeros)}
    return named


def _name_tensors(m: Moments) -> dict[str, Tensor]:
    named: dict[str, Side | Cross] = {"x": m.x, "y": m.y, "cross": m.cross}
    return {f"{name}.{f.name}": getattr(part, f.name) for name, part in named.items() for f in fields(part)
            if f.name != "n"}


def _build_block(k: int, n: int, precision: torch.dtype, tensors: dict[str, Tensor]) -> MomentBlock:
    def moments(name: str) -> Moments | None:
        if f"{k}/{name}/x.gram" not in tensors:
            return None
        sides = [Side(n, *(tensors[f"{k}/{name}/{s}.{f.name}"] for f in fields(Side)[1:]))
                 for s in ("x", "y")]
        cross = Cross(*(tensors[f"{k}/{name}/cross.{f.name}"] for f in fields(Cross)))
        return Moments(sides[0], sides[1], cross, precision)

    whole = moments("moments")
    if whole is None:
        raise KeyError(f"{k}/moments/x.gram")
    unit = None
    if f"{k}/unit/x.total" in tensors:
        a, b = (UnitRowSums(n, tensors[f"{k}/unit/{s}.total"], int(tensors[f"{k}/unit/{s}.zeros"]))
                for s in "xy")
        unit = a, b
    return MomentBlock(whole, unit, moments("standard"))


def _read_together(source: Any, target: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the rows of both, piece by piece."""
    pairs = _pair_files(source, target)
    for x, y in pairs:
        a, b = _open_array(x), _open_array(y)
        if len(a) != len(b):
            raise SutureError(f"expected the same rows on both sides, got {len(a)} in {_describe_input(x)} "
                              f"and {len(b)} in {_describe_input(y)}; row k of both must be of "
                              "the same example")
        for start in range(0, max(1, len(a)), CHUNK_ROWS):
            yield _copy_piece(a, start), _copy_piece(b, start)


def _copy_piece(array: Any, start: int) -> Any:
    """Copy rows into memory: a mapped file is read-only, and tensors must be writable."""
    piece = array[start:start + CHUNK_ROWS]
    return piece if isinstance(piece, Tensor) else np.array(piece)


def _pair_files(source: Any, target: Any) -> list[tuple[Any, Any]]:
    x, y = (Path(s) if isinstance(s, str | Path) else s for s in (source, target))
    folders = [isinstance(s, Path) and s.is_dir() for s in (x, y)]
    if not any(folders):
        return [(x, y)]
    if not all(folders):
        raise SutureError(f"expected two folders or two arrays, got {_describe_input(x)} and "
                          f"{_describe_input(y)}; give both in one form")
    a, b = ({p.name: p for p in sorted(s.iterdir()) if p.suffix in _ENDINGS}
            for s in (cast(Path, x), cast(Path, y)))
    if not a or list(a) != list(b):
        odd = sorted(set(a) ^ set(b))
        raise SutureError(f"expected files of the same names ({', '.join(_ENDINGS)}) in {_describe_input(x)} "
                          f"and {_describe_input(y)}, got "
                          + (f"{odd[0]!r} in one of them only" if odd else "none")
                          + "; write each batch of rows under one name in both")
    return [(a[name], b[name]) for name in a]


def _describe_input(given: Any) -> str:
    return repr(str(given)) if isinstance(given, Path) else "an array"


def _open_array(given: Any) -> Any:
    """Open an array of rows; a file is mapped or read, never unpickled."""
    if not isinstance(given, Path):
        found = given if isinstance(given, Tensor) else np.asarray(given)
        if found.ndim != 2:
            raise SutureError(f"expected a matrix (n, columns), got shape {tuple(found.shape)}; pool or "
                              "flatten it first")
        return found
    if given.suffix not in _ENDINGS or not given.is_file():
        raise SutureError(f"expected a file of arrays ({', '.join(_ENDINGS)}) or a folder of them, got "
                          f"{str(given)!r}")
    try:
        array = _read_safetensors(given) if given.suffix == ".safetensors" else _read_numpy(given)
    except (OSError, ValueError, SafetensorError, EOFError) as e:
        raise SutureError(f"expected an array in {str(given)!r}, got {type(e).__name__}: "
                          f"{e}; write it again") from e
    if array.ndim != 2:
        raise SutureError(f"expected a matrix (n, columns) in {str(given)!r}, got shape "
                          f"{tuple(array.shape)}; pool or flatten it first")
    return array


def _read_safetensors(path: Path) -> Tensor:
    with safe_open(path, "pt") as opened:
        names = list(opened.keys())
        _check_single(path, names)
        return cast(Tensor, opened.get_tensor(names[0]))


def _read_numpy(path: Path) -> NDArray[Any]:
    found = np.load(path, mmap_mode="r", allow_pickle=False)
    if isinstance(found, np.ndarray):
        return found
    with found:
        _check_single(path, list(found.files))
        return cast(NDArray[Any], found[found.files[0]])


def _check_single(path: Path, names: list[str]) -> None:
    if len(names) != 1:
        raise SutureError(f"expected one array in {str(path)!r}, got {len(names)}; write each into "
                          "a file of its own")


