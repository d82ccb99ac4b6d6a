"""A lock on a folder or a file to write: a file that names process and host, also where no flock exists."""

from __future__ import annotations

import errno
import json
import os
import secrets
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from suture._base.errors import SutureError
from suture._base.files import make_unwritable_error
from suture._base.keeping.places import make_folder
from suture._base.runtime import format_times, get_time

LOCK = ".suture.lock"
"""Name of the lock of a folder."""
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
"""Errors of file systems without hard links."""
_HELD: dict[Path, tuple[int, Mapping[str, Any]]] = {}
"""Locks of this process, with the thread that holds each and what their files say."""
BEAT = 20.0
"""Seconds between two signs of life of a lock that beats."""
SILENT = 300.0
"""Seconds without one after which it is taken over; more than file systems keep old times for, about 60."""


class LockedError(SutureError):
    """Another process that is running holds the lock."""


@contextmanager
def hold_lock(place: Path, what: str = "", *, beats: bool = False) -> Iterator[str]:
    """Hold the lock of a folder, or of a file, while a block writes to it; reading needs no lock.

    A block inside a block of the same thread shares its lock. The lock of a process of this host that has
    ended is taken over.

    Args:
        place: the folder, made if it is missing; or a file, with `what`.
        what: part of the lock's name for a file, which the lock lies beside.
        beats: show every `BEAT` seconds that the holder lives. Then a lock of any host that was silent for
            `SILENT` seconds is taken over too, and a holder that was suspended for so long has lost it
            (`still_holds`). All who hold this lock must say so.

    Yields:
        A sentence on a lock that was taken over; usually empty.

    Raises:
        LockedError: another process holds the lock.
        SutureError: the place cannot be written.
    """
    path = _find_lock(place, what)
    own = {"process": os.getpid(), "host": socket.gethostname(), "started": find_start(os.getpid()),
           "since": get_time()}
    key, me = path.absolute(), threading.get_ident()
    if key in _HELD and _HELD[key][0] == me:
        yield ""
        return
    with ExitStack() as folders:  # without a result no trace remains
        try:
            folders.enter_context(make_folder(path.parent))
            note = _take(path, own, beats)
        except OSError as error:
            raise make_unwritable_error(path, error) from error
        _HELD[key] = me, own
        try:
            with _show_life(path, own) if beats else nullcontext():
                yield note
        finally:
            _HELD.pop(key, None)
            if _read(path) == own:  # else somebody removed it by hand, and another process holds it now
                path.unlink(missing_ok=True)


def still_holds(place: Path, what: str = "") -> bool:
    """Return False if another process took over the lock that this block holds."""
    path = _find_lock(place, what)
    return _read(path) == _HELD[path.absolute()][1]


def is_held(place: Path, what: str = "", *, beats: bool = False) -> bool:
    """Return True if a process that lives holds the lock of a folder or file; arguments as for `hold_lock`.
    """
    path = _find_lock(place, what)
    held = _read(path)
    return held is not None and not _is_stale(held) and not (beats and _is_silent(path))


def refuse_held(folder: Path) -> None:
    """Raise a `SutureError` if another running process holds the lock of a folder."""
    held, me = _read(folder / LOCK), (os.getpid(), socket.gethostname())
    if held is not None and (held.get("process"), held.get("host")) != me and not _is_stale(held):
        raise SutureError(_describe_holder(folder / LOCK, held))


def find_start(process: int) -> str:
    """Return when a process started, in ticks since the named boot of Linux; "" where this is not known.

    The number of a process is given again after its end, but not with the same start.
    """
    try:
        ticks = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
        return f"{ticks} of {Path('/proc/sys/kernel/random/boot_id').read_text().strip()}"
    except (OSError, IndexError):
        return ""


def _find_lock(place: Path, what: str) -> Path:
    return place.with_name(f".{place.name}.{what}.lock") if what else place / LOCK


@contextmanager
def _show_life(path: Path, own: Mapping[str, Any]) -> Iterator[None]:
    """Refresh the time of a lock in a block, by the clock of its file system, while it is this holder's."""
    ended = threading.Event()

    def refresh() -> None:
        while not ended.wait(BEAT):
            with suppress(OSError):
                if _read(path) == own:
                    os.utime(path)

    threading.Thread(target=refresh, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _is_silent(path: Path) -> bool:
    """Return True if a lock was not refreshed for long, by the clock of its own file system."""
    trial = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        trial.touch()
        return trial.stat().st_mtime - path.stat().st_mtime > SILENT
    except OSError:  # such as a lock that is gone by now
        return False
    finally:
        trial.unlink(missing_ok=True)


def _take(path: Path, own: Mapping[str, Any], beats: bool) -> str:
    note = ""
    while not _write_new(path, json.dumps(own)):
        held = _read(path)
        if held is None:
            continue  # the holder has just ended
        if not (_is_stale(held) or (beats and _is_silent(path))):
            raise LockedError(_describe_holder(path, held))
        aside = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        try:
            path.rename(aside)
        except FileNotFoundError:
            continue
        if _read(aside) == held:
            note = f"the lock of process {held.get('process', 'unknown')}, which has ended, was taken over"
        else:  # another process was faster, and this was its lock
            with suppress(OSError):
                os.link(aside, path)
        aside.unlink(missing_ok=True)
    return note


def _write_new(path: Path, text: str) -> bool:
    """Write a file that nobody sees unfinished; return False if it exists."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        temporary.write_text(text)
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if not temporary.exists() or error.errno not in _NO_LINKS:
            raise
        try:
            with path.open("x") as file:
                file.write(text)
        except FileExistsError:
            return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _read(path: Path) -> dict[str, Any] | None:
    """Return what a lock says; {} if it is damaged, None if there is none."""
    try:
        held = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError):
        return {}
    known = isinstance(held, dict) and isinstance(held.get("process"), int) and held["process"] > 0
    return held if known else {}


def _is_stale(held: Mapping[str, Any]) -> bool:
    """Return True if the holder was a process of this host that has ended."""
    if not held or held.get("host") != socket.gethostname():
        return False
    try:
        os.kill(held["process"], 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    started = find_start(held["process"])
    return bool(started) and bool(held.get("started")) and started != held["started"]


def _describe_holder(path: Path, held: Mapping[str, Any]) -> str:
    if not held:
        return (f"{str(path.parent)!r} is locked by a damaged {path.name}; if nothing writes there, remove "
                f"{path}")
    since = ""
    with suppress(Exception):
        since = f" since {format_times([held['since']])}"
    if held.get("host") != socket.gethostname():
        return (f"{str(path.parent)!r} is in use by process {held['process']} on host {held.get('host')}"
                f"{since}; if that has ended, remove {path}")
    return (f"{str(path.parent)!r} is in use by process {held['process']} of this host{since}; wait for it, "
            "or choose another folder")
