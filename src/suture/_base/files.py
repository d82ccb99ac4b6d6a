"""File writing that never leaves a half-written file for a reader."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from suture._base.errors import SutureError


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
