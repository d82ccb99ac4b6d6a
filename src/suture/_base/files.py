"""Files that a reader never sees half-written."""

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
    """Put `data` at `path` in one step: whoever opens `path` finds all of the old or all of the new.

    Missing parent folders are made.

    Raises:
        SutureError: the place cannot be written.
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
    """The error for a place that cannot be written, in one line."""
    return SutureError(f"cannot write {str(path)!r}: {error.strerror or error}; choose a place that can be "
                       "written")


def clean_file_name(name: str) -> str:
    """A name from outside as part of a file name: letters, digits, ``._-`` only."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "unnamed"
