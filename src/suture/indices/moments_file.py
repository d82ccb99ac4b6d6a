"""Files of moments: blocks of rows, to be merged with those of other rows or other machines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from suture._base import expect, load_tensors, save_tensors
from suture.numbers import Cross, MomentBlock, Moments, Side, UnitRowSums

MOMENTS_FORMAT = "suture.moments/2"
_OLD_FORMAT = "suture.moments/1"
_PRECISIONS = {str(d): d for d in (torch.float64, torch.float32)}
P = TypeVar("P", Side, Cross)


def save_moments(path: str | Path, blocks: Sequence[MomentBlock]) -> Path:
    """Write blocks of moments to one file, whole or not at all.

    Args:
        path: ends in ``.safetensors``.
        blocks: of `suture.indices.Streaming.blocks`.

    Raises:
        SutureError: another ending, or the path cannot be written.
    """
    path = Path(path)
    expect(path.suffix == ".safetensors", "a file for moments that ends in .safetensors", f"{path.name!r}",
           f"write {path.stem}.safetensors")
    tensors: dict[str, Tensor] = {}
    for k, block in enumerate(blocks):
        for name, m in (("moments", block.moments), ("standard", block.standard)):
            for part, sums in (("x", m.x), ("y", m.y), ("cross", m.cross)) if m is not None else ():
                tensors |= {f"{k}/{name}/{part}.{key}": t for key, t in vars(sums).items() if key != "n"}
        for side, unit in zip("xy", block.unit or (), strict=False):
            tensors |= {f"{k}/unit/{side}.total": unit.total,
                        f"{k}/unit/{side}.zeros": torch.tensor(unit.zeros)}
    save_tensors(path, MOMENTS_FORMAT, tensors, {"n": [b.moments.n for b in blocks],
                                                 "precision": str(blocks[0].moments.precision)})
    return path


def load_moments(path: str | Path) -> list[MomentBlock]:
    """Load the blocks that `save_moments` wrote.

    Raises:
        SutureError: the file is missing, damaged, or holds something else.
    """
    path = Path(path)
    old = _load_old(path)
    tensors, about = load_tensors(path, MOMENTS_FORMAT) if old is None else old
    return [_build_block(f"{k}/", int(n), _PRECISIONS[about["precision"]], tensors)
            for k, n in enumerate(about["n"])]


def _load_old(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Load tensors and description of the first format, which has no digest; None for any other file."""
    try:
        with safe_open(path, "pt") as opened:
            about = opened.metadata() or {}
            if about.get("format") != _OLD_FORMAT:
                return None
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return None
    return tensors, about | {"n": json.loads(about["n"])}


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
