"""Files written in one step, and the one file format: safetensors with a description and a digest.

docs/files.md describes the format.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor

from suture._base.errors import SutureError
from suture._base.hashing import hash_tensors

_NO_DIGEST = "0" * 64
_DIGEST = re.compile(rb':"([0-9a-f]{64})"')
"""The digest in a header. In other values the quotes before it would be escaped."""
_SHELF = "suture.shelf/1"
"""Kind of file whose digest does not cover the kind."""


def write_new_file(path: Path, data: bytes | bytearray) -> None:
    """Write a new file and flush it to the disk."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, data: bytes | bytearray) -> None:
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


@dataclass(frozen=True)
class TensorFile:
    """Contents of a file.

    Attributes:
        tensors: by name, on the CPU.
        about: the description that was written with them.
        note: says that a file of an early version has no digest; empty for a file that was checked.
    """

    tensors: dict[str, Tensor]
    about: dict[str, Any]
    note: str = ""


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
    data = bytearray(safetensors.save(kept, {"format": kind, "about": words, "digest": _NO_DIGEST}))
    _sort_metadata(data)
    digest = _compute_digest(data)
    if digest is None:
        raise RuntimeError("safetensors wrote a header without the digest")
    data[digest.place] = digest.computed
    replace_file(path, data)


def _sort_metadata(data: bytearray) -> None:
    """Sort the strings of a file, which safetensors orders at random, so that equal files are equal."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    words = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    words += b" " * (-len(words) % 8)
    data[:end] = len(words).to_bytes(8, "little") + words


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
        header = _read_header(data)
        meta = json.loads(header).get("__metadata__", {})
        tensors = safetensors.load(data)
    except (SafetensorError, ValueError, AttributeError) as error:
        raise SutureError(f"{str(path)!r} is damaged: it is cut off or no safetensors file; remove it and "
                          "compute it again") from error
    kind, words = meta.get("format"), meta.get("about", "")
    if kind not in kinds:
        raise SutureError(f"expected a file of the kind {kinds[0]}, got {kind} in {str(path)!r}; "
                          "choose another file")
    found, note = _compute_digest(data), ""
    if found is None and kind.endswith("/1") and "digest" not in meta:
        note = (f"{path.name} was written by an early version without a digest, so damage to it "
                "cannot be noticed")
    elif found is None or not (found.written == found.computed
                               or found.written in _compute_early_digests(header, meta, tensors)):
        raise SutureError(f"{str(path)!r} is damaged: its contents are not what was written; remove it and "
                          "compute it again")
    about = json.loads(words) if words else {k: v for k, v in meta.items() if k != "format"}
    return TensorFile(tensors, about, note)


def is_own_file(metadata: Mapping[str, str]) -> bool:
    """Return True for the metadata of a safetensors file of suture, also if one entry of it is damaged."""
    return {"about", "digest"} <= metadata.keys() or any(v.startswith("suture.") for v in metadata.values())


@dataclass(frozen=True)
class _Digest:
    """Digest of a file: where it is written, what is written there, and the SHA-256 of the rest."""

    place: slice
    written: bytes
    computed: bytes


def _read_header(data: bytes | bytearray) -> bytes:
    return bytes(data[8:8 + int.from_bytes(data[:8], "little")])


def _compute_digest(data: bytes | bytearray) -> _Digest | None:
    """Compute the SHA-256 of a whole file with zeros in place of the digest; None if it has no digest."""
    found = _DIGEST.search(_read_header(data))
    if found is None:
        return None
    place, whole = slice(8 + found.start(1), 8 + found.end(1)), memoryview(data)
    digest = hashlib.sha256(whole[:place.start])
    digest.update(_NO_DIGEST.encode())
    digest.update(whole[place.stop:])
    return _Digest(place, found[1], digest.hexdigest().encode())


def _compute_early_digests(header: bytes, meta: Mapping[str, str],
                           tensors: Mapping[str, Tensor]) -> list[bytes]:
    """Compute the digests that earlier versions wrote: of kind, description and tensors."""
    # The rest of the header is covered by its form: three entries, and blanks alone after the last brace.
    if "digest" not in meta or not header.rstrip(b" ").endswith(b"}"):
        return []
    kind, words = meta["format"], meta.get("about", "")
    besides = [f"{kind}\0{words}\0"] + [words] * (kind == _SHELF)
    return [hash_tensors(sorted(tensors.items()), beside).encode() for beside in besides]
