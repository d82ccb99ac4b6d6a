"""Moments on disk: written for some rows on one machine, and merged with those of other rows."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from suture._base import FilePath, SutureError, SutureWarning, checked, expect, load_tensors, save_tensors
from suture.indices.computation import of_blocks
from suture.indices.definition import Value
from suture.indices.requests import Names
from suture.indices.row_sketch import RUNS, RowSketch, find_overlap
from suture.numbers import Cross, MomentBlock, Moments, Side, UnitRowSums, merge_all

KINDS = "suture.moments/2", "suture.moments/1"
_PRECISIONS = {str(d): d for d in (torch.float64, torch.float32)}
_SAME = 1e-6
"""Relative difference of the moments of one pass computed twice, in another order or other batches."""
P = TypeVar("P", Side, Cross)


@dataclass(frozen=True)
class SavedMoments:
    """Moments of disjoint blocks of rows in a file, and sketches of these rows; early files have none."""

    path: Path
    blocks: Sequence[MomentBlock]
    sketches: Mapping[int, RowSketch]


@checked
def merged_moments(paths: Sequence[FilePath], indices: Names = "default", *,
                   intervals: bool = False) -> dict[str, Value]:
    """Compute indices from the moments that `compare_arrays` saved, over the rows of all files.

    Args:
        paths: files of disjoint rows of the same two matrices.
        indices: indices that need no rows.
        intervals: add 95 % intervals by the jackknife over the blocks of all files.

    Raises:
        SutureError: files without moments, of other widths or with the same rows, or an index that needs
            rows.
    """
    expect(bool(paths), "at least one file of moments", "none", "write them with compare_arrays(save=...)")
    files = [load_moments(path) for path in paths]
    blocks = [block for file in files for block in file.blocks]
    shapes = {tuple(b.moments.sxy.shape) for b in blocks}
    expect(len(shapes) == 1, "moments of the same two matrices", f"widths {sorted(shapes)}",
           "merge files of disjoint rows only")
    _check_disjoint(files)
    return of_blocks(blocks, indices, intervals=intervals)


def save_moments(path: str | PathLike[str], blocks: Sequence[MomentBlock],
                 sketches: Sequence[RowSketch] = ()) -> Path:
    """Write blocks of moments to one ``.safetensors`` file, whole or not at all."""
    path = Path(path)
    expect(path.suffix == ".safetensors", "a file for moments that ends in .safetensors", f"{path.name!r}",
           f"write {path.stem}.safetensors")
    tensors: dict[str, Tensor] = {f"rows/{s.length}": s.as_tensor() for s in sketches}
    for k, block in enumerate(blocks):
        for name, m in (("moments", block.moments), ("standard", block.standard)):
            for part, sums in (("x", m.x), ("y", m.y), ("cross", m.cross)) if m is not None else ():
                tensors |= {f"{k}/{name}/{part}.{key}": t for key, t in vars(sums).items() if key != "n"}
        for side, unit in zip("xy", block.unit or (), strict=False):
            tensors |= {f"{k}/unit/{side}.total": unit.total,
                        f"{k}/unit/{side}.zeros": torch.tensor(unit.zeros)}
    save_tensors(path, KINDS[0], tensors, {"n": [b.moments.n for b in blocks],
                                           "precision": str(blocks[0].moments.precision)})
    return path


def load_moments(path: str | PathLike[str]) -> SavedMoments:
    """Load what `save_moments` wrote; a `SutureWarning` says if the file is too early to be checked."""
    file = load_tensors(Path(path), *KINDS)
    if file.note:
        warnings.warn(file.note, SutureWarning, stacklevel=5)
    try:
        counts = file.about["n"]
        blocks = [_build_block(f"{k}/", int(n), _PRECISIONS[file.about["precision"]], file.tensors)
                  for k, n in enumerate(json.loads(counts) if isinstance(counts, str) else counts)]
    except (KeyError, TypeError, ValueError) as error:
        raise SutureError(f"the moments in {str(path)!r} are damaged: {error}; compute them again") from error
    sketches = {length: RowSketch.from_tensor(length, file.tensors[f"rows/{length}"])
                for length in RUNS if f"rows/{length}" in file.tensors}
    return SavedMoments(Path(path), blocks, sketches)


def _build_block(prefix: str, n: int, precision: torch.dtype, tensors: dict[str, Tensor]) -> MomentBlock:
    def build_part(kind: type[P], name: str, **given: Any) -> P:
        sums: dict[str, Any] = {f.name: tensors[f"{prefix}{name}.{f.name}"] for f in fields(kind)
                                if f.name not in given}
        return kind(**given, **sums)

    def build_moments(name: str) -> Moments:
        return Moments(build_part(Side, f"{name}/x", n=n), build_part(Side, f"{name}/y", n=n),
                       build_part(Cross, f"{name}/cross"), precision)

    if f"{prefix}unit/x.total" not in tensors:
        return MomentBlock(build_moments("moments"))
    x, y = (UnitRowSums(n, tensors[f"{prefix}unit/{side}.total"], int(tensors[f"{prefix}unit/{side}.zeros"]))
            for side in "xy")
    return MomentBlock(build_moments("moments"), (x, y), build_moments("standard"))


def _check_disjoint(files: Sequence[SavedMoments]) -> None:
    """Refuse two files of the same rows: one file twice, one pass saved twice, or overlapping shards."""
    totals = [merge_all(file.blocks).moments for file in files]
    order = sorted(range(len(files)), key=lambda k: (totals[k].n, float(totals[k].sxx.trace())))
    pairs = [(a, b) for a, b in pairwise(order) if _have_same_rows(totals[a], totals[b])]
    for length in RUNS:
        sketched = [k for k, file in enumerate(files) if length in file.sketches]
        shared = find_overlap([files[k].sketches[length] for k in sketched])
        pairs += [] if shared is None else [(sketched[shared[0]], sketched[shared[1]])]
    for a, b in pairs:
        one, other = (str(files[k].path) for k in sorted((a, b)))
        raise SutureError(f"expected files of disjoint rows, got the same rows in {one!r} and {other!r}; "
                          "give each row once")


def _have_same_rows(a: Moments, b: Moments) -> bool:
    """Return True where moments of rows that vary are equal up to rounding."""
    if a.n != b.n or not (bool(a.sxx.any()) and bool(a.syy.any())):
        return False
    pairs = [(a.sxx, b.sxx), (a.syy, b.syy), (a.sxy, b.sxy)]
    # A mean may be nothing but rounding, so it is compared on the scale of the rows.
    for side, other, scatter in ((a.x, b.x, a.sxx), (a.y, b.y, a.syy)):
        spread = (scatter.diagonal() / a.n).sqrt()
        pairs.append((torch.cat([spread, side.mean]), torch.cat([spread, other.mean])))
    return all(bool((one - other).abs().max() <= _SAME * one.abs().max()) for one, other in pairs)
