"""User code by ``module:function``: imported and called. Only use code that you trust."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from typing import Any

from suture._base import SutureError, expect, make_unknown_error, summarise_error


def load_inputs(spec: str | None) -> Any:
    """Return the result of ``module:function``, such as auxiliary data; None gives None."""
    if spec is None:
        return None
    expect(":" in spec, "a function mypackage.data:inputs that returns data", repr(spec))
    made = call_user_function(spec)
    expect(made is not None, f"inputs or data from {spec}", "None", "return them")
    return made


def call_user_function(spec: str) -> Any:
    """Import user code from the working directory or the environment and call it."""
    module, _, name = spec.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(module)
    except Exception as e:
        hint = "run from the folder that holds it" if isinstance(e, ModuleNotFoundError) else "correct it"
        raise SutureError(f"cannot import {module!r} of {spec!r}: {_describe_error(e)}; {hint}") from e
    if not callable(getattr(found, name, None)):
        raise make_unknown_error(f"function in {module}", name,
                                 [n for n in vars(found) if callable(getattr(found, n))])
    try:
        return getattr(found, name)()
    except Exception as e:
        raise SutureError(f"{spec} fails: {_describe_error(e)}; expected a function that works "
                          "without arguments") from e


def _describe_error(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    ours = last.filename == __file__ or last.filename.startswith("<")
    place = "" if ours else f" ({Path(last.filename).name}, line {last.lineno})"
    return f"{type(error).__name__}: {summarise_error(error)}{place}"
