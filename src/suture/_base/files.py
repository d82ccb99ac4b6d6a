"""Files written in one step, and the one file format: safetensors with a description and a digest.

docs/files.md describes the format.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor

from suture._base.errors import SutureError
from suture._base.hashing import hash_tensors

_OTHER_DIGEST = "suture.shelf/1"
"""Kind of file that older versions wrote with a digest of another formula."""


def write_new_file(path: Path, data: bytes) -> None:
    """Write a new file and flush it to the disk."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, data: bytes) -> None:
    """Write `data` to `path` in one step: a reader finds all of the old file or all of the new one.

    Missing parent folders are made. A `SutureError` says why `path` cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_new_file(temporary, data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise make_unwritable_error(path, error) from error


def make_unwritable_error(path: Path, error: OSError) -> SutureError:
    return SutureError(f"cannot write {str(path)!r}: {error.strerror or error}; choose a place that can be "
                       "written")


def clean_file_name(name: str) -> str:
    """Turn any name into part of a file name: only letters, digits and ``._-`` remain."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "unnamed"


class TensorFile(NamedTuple):
    """Contents of a file: tensors by name, on the CPU, and the description that was written with them."""

    tensors: dict[str, Tensor]
    about: dict[str, Any]


def save_tensors(path: Path, kind: str, tensors: Mapping[str, Tensor | NDArray[Any]],
                 about: Mapping[str, Any]) -> None:
    """Write tensors and a description into one file, all or nothing.

    Args:
        path: file to write; missing parent folders are made.
        kind: what the file holds, with the version of its layout, such as "suture.moments/2".
        tensors: tensors from any device, or arrays.
        about: description, as JSON.

    Raises:
        SutureError: the file cannot be written, or JSON does not allow the description.
    """
    # Copies, because safetensors refuses tensors that share memory.
    kept = {name: torch.from_numpy(np.array(t, order="C")) if isinstance(t, np.ndarray)
            else t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
    try:
        words = json.dumps(about, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SutureError(f"expected a description that JSON can hold, got: {error}") from error
    meta = {"format": kind, "about": words, "digest": _compute_digest(kind, words, kept)}
    replace_file(path, safetensors.save(kept, meta))


def load_tensors(path: Path, *kinds: str) -> TensorFile:
    """Load a file of one of the given kinds that `save_tensors` wrote.

    Raises:
        SutureError: the file is missing, of another kind, or damaged.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SutureError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    try:
        meta = json.loads(data[8:8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
        tensors = safetensors.load(data)
    except (SafetensorError, ValueError, AttributeError) as error:
        raise SutureError(f"{str(path)!r} is damaged: it is cut off or no safetensors file; remove it and "
                          "compute it again") from error
    kind, words = meta.get("format"), meta.get("about", "")
    if kind not in kinds:
        raise SutureError(f"expected a file of the kind {kinds[0]}, got {kind} in {str(path)!r}; "
                          "choose another file")
    # Files of a first version were written before there was this digest.
    old = kind.endswith("/1") and ("digest" not in meta or kind == _OTHER_DIGEST)
    if not old and meta.get("digest") != _compute_digest(kind, words, tensors):
        raise SutureError(f"{str(path)!r} is damaged: its contents are not what was written; remove it and "
                          "compute it again")
    return TensorFile(tensors, json.loads(words or "{}"))


def _compute_digest(kind: str, words: str, tensors: Mapping[str, Tensor]) -> str:
    return hash_tensors(sorted(tensors.items()), f"{kind}\0{words}\0")
