"""The exception of suture, and functions that word its messages."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType


class SutureError(ValueError):
    """Error for bad input. Its message is one line: what was expected, what came, what to write instead."""


def summarise_error(error: BaseException) -> str:
    """Return the first line of another library's exception, or its class name where the message is empty."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


@contextmanager
def report_errors(what: str, instead: str = "") -> Iterator[None]:
    """Turn any error of foreign code in a block into a `SutureError` of one line.

    The line begins with `what`, such as "cannot read 'a.json'". The error's class and first line follow, then
    the advice `instead`.
    """
    try:
        yield
    except SutureError:
        raise
    except Exception as e:
        raise SutureError(f"{what}: {type(e).__name__}: {summarise_error(e)}"
                          f"{'; ' + instead if instead else ''}") from e


def make_unknown_error(what: str, name: str, options: Iterable[str], instead: str = "") -> SutureError:
    """Make the error for a name that is not among `options`. Its message lists the nearest known names."""
    known = list(options)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[:5]
    hint = f"; nearest: {', '.join(near)}" if near else ""
    return SutureError(f"unknown {what} {name!r}{hint}{'; ' + instead if instead else ''}")


def import_optional(module: str, extra: str, purpose: str) -> ModuleType:
    """Import a library that is not among suture's own dependencies.

    Args:
        module: such as ``"timm"``.
        extra: the extra of suture that installs it, such as ``"vision"``.
        purpose: what it is needed for, such as ``"timm:resnet18"``.

    Raises:
        SutureError: the library is not installed, or fails while it is imported.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as e:
        if e.name == module.partition(".")[0]:
            raise SutureError(f"expected {e.name} for {purpose}, it is not installed; "
                              f"write pip install 'suture[{extra}]'") from e
        raise _make_import_error(module, purpose, e) from e
    except Exception as e:
        raise _make_import_error(module, purpose, e) from e


def _make_import_error(module: str, purpose: str, error: Exception) -> SutureError:
    return SutureError(f"{module}, needed for {purpose}, does not import: {type(error).__name__}: "
                       f"{summarise_error(error)}; install a version that fits the others")
