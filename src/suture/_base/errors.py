"""The exception of suture, checks of values from outside that raise it, and the words of its messages."""

from __future__ import annotations

import difflib
import importlib
import math
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from types import ModuleType

import torch
from torch import Tensor

from suture._base.printing import describe_value, escape_controls, shorten, show_value


class SutureError(ValueError):
    """Error for bad input. Its message is one line: what was expected, what came, what to write instead.

    Signs that would break or hide parts of the line, from the names of a user, are escaped.
    """

    __module__ = "suture"  # as a traceback names it, and as it is to be caught

    def __init__(self, message: object = "") -> None:
        super().__init__(_make_line(message))


class SutureWarning(UserWarning):
    """Warning about something that suture had to leave open, such as a file that cannot be checked.

    Its message is one line, as that of a `SutureError`.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(_make_line(message))


def _make_line(message: object) -> str:
    return shorten(escape_controls(" ".join(str(message).splitlines())))


def summarise_error(error: BaseException) -> str:
    """Return the first line of another library's exception, or its class name where it has no message."""
    try:
        lines = str(error).splitlines()
    except Exception:  # a user's exception may fail to describe itself
        lines = []
    return next((line for line in lines if line.strip()), "") or type(error).__name__


@contextmanager
def report_errors(what: str, instead: str = "") -> Iterator[None]:
    """Turn any error of foreign code in a block into a `SutureError` of one line.

    The line begins with `what`, such as "cannot read 'a.json'". The error's class and first line follow, then
    the advice `instead`. A block that asks Python to exit is an error too; an interruption is none.
    """
    try:
        yield
    except SutureError:
        raise
    except (Exception, SystemExit) as e:
        raise SutureError(f"{what}: {type(e).__name__}: {summarise_error(e)}"
                          f"{'; ' + instead if instead else ''}") from e


_HABITS = {"layers": "sites", "modules": "sites", "verbose": "progress", "loader": "data",
           "dataloader": "data", "train": "data", "val": "test", "metrics": "indices", "measures": "indices"}
"""Names that other libraries have for options of suture."""


def make_unknown_error(what: str, name: object, options: Iterable[str], instead: str = "") -> SutureError:
    """Make the error for a name that is not among `options`. Its message lists the nearest known names."""
    known = list(options)
    near = (difflib.get_close_matches(shorten(name), known, n=3, cutoff=0.4) if isinstance(name, str)
            else []) or known[:5]
    if isinstance(name, str) and _HABITS.get(name) in known:
        near = [_HABITS[name]]
    advice = (f"; nearest: {', '.join(near)}" if near else "") + (f"; {instead}" if instead else "")
    return SutureError(f"unknown {what} {show_value(name)}{advice}")


def import_optional(module: str, extra: str, purpose: str) -> ModuleType:
    """Import a library that is not among suture's own dependencies.

    Args:
        module: such as ``"timm"``.
        extra: the extra of suture that installs it, such as ``"vision"``.
        purpose: what it is needed for, such as ``"timm:resnet18"``.

    Raises:
        SutureError: the library is not installed, or fails while it is imported.
    """
    with report_errors(f"{module}, needed for {purpose}, does not import",
                       "install a version that fits the others"):
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as e:
            if e.name != module.partition(".")[0]:
                raise
            raise SutureError(f"expected {e.name} for {purpose}, it is not installed; "
                              f"write pip install 'suture[{extra}]'") from e


def is_count(value: object) -> bool:
    """Return True for a whole number of at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def is_number(value: object) -> bool:
    """Return True for a finite int or float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and (
        isinstance(value, int) or math.isfinite(value))


def expect(holds: bool, wanted: str, got: object = "", instead: str = "") -> None:
    """Raise a `SutureError` unless a condition holds.

    Args:
        wanted: what was expected.
        got: what came: text as it is, or a value, which is described.
        instead: advice on what to write.
    """
    if not holds:
        came = got if isinstance(got, str) else show_value(got) if is_number(got) else describe_value(got)
        raise SutureError(f"expected {wanted}{', got ' + came if came else ''}"
                          f"{'; ' + instead if instead else ''}")


def check_finite(values: Tensor, what: str, instead: str = "check the inputs and weights") -> None:
    """Check that a tensor holds neither NaN nor infinity; `what` names it in the error."""
    # Of finite numbers a sum may overflow; one of them that is not finite always shows in it.
    if not bool(torch.isfinite(values.sum())) and not bool(torch.isfinite(values).all()):
        raise SutureError(f"NaN or inf in {what}; {instead}")


def check_equal_lengths(first: Sized, second: Sized, what: str, instead: str) -> None:
    """Check that two things have one entry for each of the same examples; `what` names both."""
    expect(len(first) == len(second), f"{what} of the same examples",
           f"{len(first)} and {len(second)}", instead)


def check_classes(labels: Tensor, classes: int, instead: str) -> None:
    """Check that labels are whole numbers from 0 to `classes` - 1."""
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise SutureError(f"expected labels that are class numbers, got {describe_value(labels)}; {instead}")
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        outside = int(labels[(labels < 0) | (labels >= classes)][0])
        why = (" (leave out examples without a label)" if outside < 0 else
               " (count classes from 0)" if int(labels.min()) > 0 and outside == classes else "")
        raise SutureError(f"expected labels from 0 to {classes - 1}, got {outside}{why}; {instead}")
