"""Checks of options that are names: of methods, and of the networks."""

from __future__ import annotations

from typing import Any

from suture._base import keep_parts, make_unknown_error, refuse
from suture.numbers import METHOD_NAMES


def choose_methods(given: Any) -> Any:
    """Return the names of methods, each once, as a tuple; None means none."""
    listed = (given,) if isinstance(given, str) else () if given is None else keep_parts(given)
    if not isinstance(listed, tuple):
        raise refuse("names of methods", "", 'write methods=["dm", "tlm"]')
    for name in listed:
        if not isinstance(name, str) or name not in METHOD_NAMES:
            raise make_unknown_error("method", name, METHOD_NAMES)
    return tuple(dict.fromkeys(listed))


def read_network_names(given: Any) -> Any:
    """Return the names of source and target, or None."""
    if given is None:
        return None
    found = keep_parts(given)
    if not isinstance(found, tuple) or len(found) != 2 or not all(isinstance(n, str) for n in found):
        raise refuse("two names, of source and target", "", 'write names=("A", "B")')
    return found
