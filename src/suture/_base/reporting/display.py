"""Where progress is shown: by default on a terminal and in a notebook, once, and never where nobody looks."""

from __future__ import annotations

import os
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Annotated, Any, Protocol

from pydantic import AfterValidator
from typing_extensions import Doc

from suture._base.foreign_code import name_callback
from suture._base.reporting.lines import Lines
from suture._base.reporting.notebook_bars import NotebookBars, has_notebook
from suture._base.reporting.terminal_bars import TerminalBars
from suture._base.runtime import Progress

SWITCH = "SUTURE_PROGRESS"
"""Variable of the environment that shows no progress by default, where it is 0."""
ProgressOption = Annotated[Progress | bool | None, AfterValidator(name_callback("progress")), Doc(
    "Function called as ``progress(stage, done, total)``. None: bars on a terminal and in a notebook. False: "
    "none. True: bars there, and lines on stderr elsewhere.")]
"""How a call tells its progress. `display_progress` reads it."""
_DECIDED: ContextVar[bool] = ContextVar("_DECIDED", default=False)
"""True within a public call, which decides what the calls within it show."""
_PLACE = threading.Lock()
"""Held while a display is open in this process; one at most, also where calls run in several threads."""


class Display(Protocol):
    """Shows stages from `start` to `stop`."""

    def start(self) -> None: ...

    def update(self, stage: str, done: int, total: int | None) -> None: ...

    def stop(self) -> None: ...


@contextmanager
def display_progress(given: Progress | bool | None) -> Iterator[Progress | None]:
    """Show the progress of a block as a `ProgressOption` says; a call within another shows nothing more.

    Yields:
        The function to tell; None where nobody listens.
    """
    make = None if callable(given) or _DECIDED.get() else _choose_display(given)
    token = _DECIDED.set(True)
    try:
        with _take_place(make is not None) as free:
            if make is None or not free:
                yield given if callable(given) else None
            else:
                with _show(make()) as shown:
                    yield shown
    finally:
        _DECIDED.reset(token)


@contextmanager
def open_display(display: Display) -> Iterator[Progress]:
    """Show progress in a block; yield the function to tell. Calls within it show nothing more."""
    with _take_place(True), _show(display) as shown:
        yield shown


@contextmanager
def _take_place(wanted: bool) -> Iterator[bool]:
    """Hold the place of the display in a block, if it is wanted and free; yield True if so."""
    held = wanted and _PLACE.acquire(blocking=False)
    try:
        yield held
    finally:
        if held:
            _PLACE.release()


@contextmanager
def _show(display: Display) -> Iterator[Progress]:
    try:
        display.start()
        yield display.update
    finally:
        display.stop()


class TellsProgress:
    """Records with a `ProgressOption` named ``progress``."""

    progress: Progress | bool | None

    @property
    def tell_progress(self) -> Progress | None:
        """The function to tell progress, if there is one."""
        return self.progress if callable(self.progress) else None


def _choose_display(given: object) -> Callable[[], Display] | None:
    """Return what makes a display; None for none."""
    if given is False or (given is None and is_switched_off()) or _is_worker():
        return None
    if has_notebook():
        return NotebookBars
    if is_terminal(sys.stderr) and not _is_pipe(sys.stdout):
        return TerminalBars
    return Lines if given is True else None


def is_switched_off() -> bool:
    """Return True where the environment asks for no progress."""
    return os.environ.get(SWITCH) == "0"


def _is_worker() -> bool:
    """Return True in a process that another one of Python has started for its work."""
    module = sys.modules.get("multiprocessing.process")
    return module is not None and module.parent_process() is not None


def is_terminal(stream: Any) -> bool:
    """Return True for a stream that shows text and can move back in it."""
    try:
        return bool(stream.isatty()) and os.environ.get("TERM") != "dumb"
    except (AttributeError, ValueError):  # None under pythonw, or closed
        return False


def _is_pipe(stream: Any) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
    except (AttributeError, OSError, ValueError):  # such as a buffer in memory
        return False
