"""User code by ``module:function``: imported and called. Only use code that you trust, as with any import."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from typing import Any

from suture._base import SutureError, make_unknown_error


def load_inputs(spec: str | None) -> Any:
    """Return the result of ``module:function``, such as auxiliary data; None gives None.

    Raises:
        SutureError: no such function, or it fails.
    """
    if spec is None:
        return None
    if ":" not in spec:
        raise SutureError("expected mypackage.data:inputs, a function that returns inputs or "
                          f"data, got {spec!r}")
    made = call_user_function(spec)
    if made is None:
        raise SutureError(f"expected {spec} to return inputs or data, got None; return them")
    return made


def call_user_function(spec: str) -> Any:
    """Import user code from the working directory or the environment and call it.

    Raises:
        SutureError: any error of the code, with the line that raised it.
    """
    module, _, name = spec.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(module)
    except Exception as e:
        hint = "run from the folder that holds it" if isinstance(e, ModuleNotFoundError) else "mend it first"
        raise SutureError(f"cannot import {module!r} of {spec!r}: {describe_error(e)}; {hint}") from e
    if not callable(getattr(found, name, None)):
        raise make_unknown_error(f"function in {module}", name,
                                 [n for n in vars(found) if callable(getattr(found, n))])
    try:
        return getattr(found, name)()
    except Exception as e:
        raise SutureError(f"{spec} fails: {describe_error(e)}; expected a function that works "
                          "without arguments") from e


def describe_error(error: Exception) -> str:
    """Return one line on an error in a user's code, with its place."""
    first = str(error).splitlines()[0] if str(error) else ""
    last = traceback.extract_tb(error.__traceback__)[-1]
    ours = last.filename == __file__ or last.filename.startswith("<")
    place = "" if ours else f" ({Path(last.filename).name}, line {last.lineno})"
    return f"{type(error).__name__}: {first}{place}"
