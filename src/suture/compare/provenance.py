"""The origin of a result: names, versions, and a key of all that decides its numbers."""

from __future__ import annotations

import hashlib
import platform
from typing import Any

import numpy as np
import torch
from torch import nn

from suture._base import convert_tensors, list_tensors
from suture.data import Batches, Prepared


def choose_display_names(source: nn.Module, target: nn.Module, same: bool) -> tuple[str, str]:
    """Return the names of two networks in tables: their classes, made distinct if equal."""
    a, b = type(source).__name__, type(target).__name__
    return (f"{a} (source)", f"{b} (target)") if a == b and not same else (a, b)


def hash_inputs(about: object, *data: Batches) -> str:
    """Hash settings (repr of `about`) and data (number of batches, first batch) into 16 hex digits."""
    digest = hashlib.sha256()
    digest.update(repr((about, *(d.count_batches() for d in data))).encode())
    for batches in data:
        batch = next(iter(batches))
        for t in (*list_tensors(batch.source), *list_tensors(batch.target),
                  *([] if batch.labels is None else [batch.labels])):
            digest.update(repr(tuple(t.shape)).encode() + convert_tensors(t, _view_bytes).numpy().tobytes())
    return digest.hexdigest()[:16]


def _view_bytes(t: torch.Tensor) -> torch.Tensor:
    return t.detach().cpu().contiguous().reshape(-1).view(torch.uint8)


def describe_data(data: Any) -> dict[str, Any]:
    """Return the description of examples of `suture.sources`, also inside ``Prepared``; {} for other data.

    Fingerprints are included only where they are cheap: texts, arrays, and images that stay decoded.
    """
    of = data.data if isinstance(data, Prepared) else data
    if not hasattr(of, "is_small"):
        return {}
    prints = {"fingerprint": of.fingerprint, "content": of.content} if of.is_small else {}
    how = ({} if of is data
           else {"prepared": [_name_preprocessing(data.source), _name_preprocessing(data.target)]})
    return {"name": of.name, "examples": len(of), "note": of.note, **prints, **how}


def _name_preprocessing(how: Any) -> str:
    """Return the repr of a preprocessing, or its name if the repr holds a memory address, which varies."""
    text = repr(how)
    return getattr(how, "__qualname__", type(how).__qualname__) if " at 0x" in text else text


def collect_versions() -> dict[str, str]:
    """Return the versions of the software that computes."""
    from importlib.metadata import version

    return {"suture": version("suture"), "python": platform.python_version(), "torch": torch.__version__,
            "numpy": np.__version__, "machine": platform.machine()}
