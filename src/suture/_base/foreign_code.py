"""Errors of code that is not suture's: whose it was, and one line in place of their traceback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch

from suture._base.code_hashing import is_library_file
from suture._base.errors import SutureError, summarise_error

_OWNER = "__suture_owner__"
FOREIGN: tuple[type[BaseException], ...] = (Exception, SystemExit, GeneratorExit)
"""What foreign code may raise. An interruption by the user and signals of test runners are not among it."""


def note_owner(error: BaseException, owner: str) -> None:
    """Note on an error whose code raised it, such as "the network ResNet"; the first note stays."""
    if not isinstance(error, SutureError) and not hasattr(error, _OWNER):
        with suppress(AttributeError, TypeError):  # a class may allow no further attributes
            setattr(error, _OWNER, owner)


@contextmanager
def run_foreign(owner: str) -> Iterator[None]:
    """Note on every error of a block whose code it runs; `explain_foreign_errors` turns it into one line."""
    try:
        yield
    except FOREIGN as error:
        note_owner(error, owner)
        raise


@dataclass(frozen=True)
class Callback:
    """A user's function that suture calls, under the name of its argument."""

    name: str
    function: Callable[..., Any]

    def __call__(self, *given: Any) -> Any:
        with run_foreign(f"the function given as {self.name}"):
            return self.function(*given)


def name_callback(name: str) -> Callable[[Any], Any]:
    """Return a function that wraps what was given as the argument `name`, if anything, in a `Callback`."""
    def wrap(given: Any) -> Any:
        plain = given is None or isinstance(given, bool | Callback)
        return given if plain else Callback(name, given)

    return wrap


@contextmanager
def explain_foreign_errors() -> Iterator[None]:
    """Turn the errors that `run_foreign` has noted into a `SutureError`; all others are suture's own."""
    try:
        yield
    except FOREIGN as error:
        # Python turns a StopIteration into the cause of another error.
        owner = getattr(error, _OWNER, None) or getattr(error.__cause__, _OWNER, None)
        # Who calls suture may free memory and go on.
        if owner is None or isinstance(error, SutureError | MemoryError | torch.OutOfMemoryError):
            raise
        with suppress(AttributeError):  # where the note is on the cause
            delattr(error, _OWNER)
        raise SutureError(f"{owner} fails with {describe_error(error)}") from error


def describe_error(error: BaseException) -> str:
    """Describe an error by its class, its first line, and the last place in a user's code that it passed."""
    words = summarise_error(error)
    kind = type(error).__name__
    return f"{kind}{'' if words == kind else ': ' + words}{_find_place(error.__traceback__)}"


def _find_place(trace: TracebackType | None) -> str:
    """Return the innermost file and line that belong to no library, in brackets; "" if there are none."""
    place = ""
    while trace is not None:
        code = trace.tb_frame.f_code
        if not is_library_file(code.co_filename):
            place = f" ({code.co_filename.replace(chr(92), '/').rpartition('/')[2]}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return place
