"""Detectors on disk: tensors under keys that identify their inputs. This module uses no networks."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor

from suture._base import SutureError, replace_file

FORMAT = "suture.shelf/1"
_KEY = re.compile(r"[0-9a-f]{16}")


class DetectorCache:
    """A folder of tensors by key, one file for each: ``KEY.safetensors``.

    A file is written as a whole or not at all. If several processes write the same key, the last file
    remains.

    Args:
        folder: created by the first `put`.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def locate(self, key: str) -> Path:
        """Return the path of a key's file, which may not exist yet.

        Raises:
            SutureError: the key is not 16 hex digits.
        """
        if not _KEY.fullmatch(key):
            raise SutureError(f"expected a key of 16 hex digits, got {key!r}; write hash_parts(parts)")
        return self.folder / f"{key}.safetensors"

    def check(self) -> None:
        """Check that the folder can be created and written, before the work starts.

        Raises:
            SutureError: it cannot.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise SutureError(f"cannot write detectors to {str(self.folder)!r}: {error.strerror or error}; "
                              "choose another store") from error

    def put(self, key: str, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
        """Write tensors from any device under a key.

        Args:
            key: from `hash_parts`.
            tensors: such as a state dict.
            about: a description for readers of the file.

        Raises:
            SutureError: the key is not 16 hex digits, or the folder cannot be written.
        """
        path, words = self.locate(key), json.dumps(dict(about), sort_keys=True)
        # Copies, because safetensors refuses tensors that share memory.
        kept = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
        meta = {"format": FORMAT, "key": key, "about": words, "digest": _hash_tensors(kept, words)}
        replace_file(path, safetensors.save(kept, meta))

    def get(self, key: str) -> dict[str, Tensor] | None:
        """Return the tensors of a key on the CPU, or None where there are none.

        Raises:
            SutureError: the file cannot be read, is damaged, or holds another key.
        """
        found = self._read(key)
        return None if found is None else found[0]

    def read_about(self, key: str) -> dict[str, str] | None:
        """Return the description of a key's tensors, or None where there are none.

        Raises:
            SutureError: as by `get`.
        """
        found = self._read(key)
        return None if found is None else found[1]

    def _read(self, key: str) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        path = self.locate(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SutureError(f"cannot read {str(path)!r}: {error.strerror or error}; "
                              "choose another shelf") from error
        try:
            tensors = safetensors.load(data)
            meta = json.loads(data[8:8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
        except (SafetensorError, ValueError) as error:
            raise _make_damaged_error(path, "it is cut off or no safetensors file") from error
        if meta.get("format") != FORMAT:
            raise SutureError(f"expected a file that suture wrote, got {str(path)!r} of the format "
                              f"{meta.get('format')!r}; delete it or choose another shelf")
        if meta.get("key") != key:
            raise SutureError(f"expected the key {key!r} in {str(path)!r}, got {meta.get('key')!r}: the file "
                              "was renamed; delete it and compute it again")
        if meta.get("digest") != _hash_tensors(tensors, meta.get("about", "")):
            raise _make_damaged_error(path, "its contents are not what was written")
        return tensors, json.loads(meta["about"])


def _make_damaged_error(path: Path, why: str) -> SutureError:
    return SutureError(f"{str(path)!r} is damaged: {why}; delete it and compute it again")


def _hash_tensors(tensors: Mapping[str, Tensor], about: str) -> str:
    """Return a digest that reveals a flipped bit, because safetensors does not check its contents."""
    digest = hashlib.sha256(about.encode())
    for name, t in sorted(tensors.items()):
        digest.update(f"{name}\0{t.dtype}\0{tuple(t.shape)}\0".encode())
        digest.update(t.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
