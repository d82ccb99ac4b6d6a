"""Checks, before any work, that a folder or a file can be written."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from suture._base.errors import SutureError, expect
from suture._base.files import make_unwritable_error, write_new_file

_TRIED_BYTES = 1 << 16
"""A disk without space for so little has no space for a result."""
_TRIALS = 10


def check_folder(folder: str | os.PathLike[str]) -> Path:
    """Return a folder after a check that it can be made and written; nothing of the trial remains.

    Raises:
        SutureError: a file or a link to nothing is there or above it, or it cannot be written.
    """
    path = Path(folder)
    _refuse_obstacles(path)
    _try_to_write(path / "trial", path)
    return path


def check_file(path: str | os.PathLike[str], suffix: str = "") -> Path:
    """Return the path of a file after a check that it can be made or replaced; nothing of the trial remains.

    Raises:
        SutureError: another ending than `suffix`, a folder or a link to nothing is there, a file is above it,
            or it cannot be written.
    """
    path = Path(path)
    expect(bool(path.name), "a file to write", repr(str(path)), "write its name")
    if suffix and path.suffix != suffix:
        raise SutureError(f"expected a {suffix} file to write, got {path.name!r}; write {path.stem}{suffix}")
    expect(not os.path.isdir(path), "a file to write", f"the folder {str(path)!r}", "write a file in it")
    _refuse_link(path)
    _refuse_obstacles(path.parent)
    _try_to_write(path, path)
    return path


def _refuse_link(path: Path) -> None:
    if os.path.islink(path) and not os.path.exists(path):
        raise SutureError(f"{str(path)!r} is a link to {os.readlink(path)!r}, which is missing; remove the "
                          "link, or choose another place")


def _refuse_obstacles(folder: Path) -> None:
    for part in (folder, *folder.absolute().parents):
        with suppress(OSError):  # such as a name that is too long, which the trial reports
            _refuse_link(part)
            if part.exists() and not part.is_dir():
                raise SutureError(f"cannot write to {str(folder)!r}: {str(part)!r} is a file; choose another "
                                  "folder")


def _try_to_write(file: Path, place: Path) -> None:
    """Write a trial beside a file, and remove it; the error names `place`."""
    trial = file.with_name(f".{file.name}.{secrets.token_hex(8)}")  # as long as the name of a file in writing
    for left in reversed(range(_TRIALS)):
        try:
            with make_folder(file.parent):
                try:
                    write_new_file(trial, bytes(_TRIED_BYTES))
                finally:
                    trial.unlink(missing_ok=True)
        except OSError as error:
            # Another process may have made the folder for its own trial, and removed it.
            if not left or not isinstance(error, FileNotFoundError):
                raise make_unwritable_error(place, error) from error
        else:
            return


@contextmanager
def make_folder(folder: Path) -> Iterator[None]:
    """Make a folder and those above it; what was made and is empty after the block is removed."""
    missing = [part for part in (folder, *folder.parents) if not part.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for part in missing:
            with suppress(OSError):
                part.rmdir()
_TRIALS = 10
