"""The one exception of suture, and the words it speaks in."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SutureError(ValueError):
    """Bad input. The message is one line: what was expected, what came, what to write instead."""


def first_line(error: BaseException) -> str:
    """What somebody else's exception says, in one line; its class where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def unknown(what: str, name: str, options: Iterable[str], instead: str = "") -> SutureError:
    """An error for a name that is not among `options`; it names the nearest ones."""
    known = list(options)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[:5]
    hint = f"; nearest: {', '.join(near)}" if near else ""
    return SutureError(f"unknown {what} {name!r}{hint}{'; ' + instead if instead else ''}")
