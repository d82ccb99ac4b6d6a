"""Networks and data by what is written on a command line.

``zoo:NAME`` is a network of suture's zoo. ``module:function`` imports *your* code and calls the function: only give it
code that you trust, as with any import.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from typing import Any

from torch import nn

from suture import zoo
from suture._errors import SutureError, unknown
from suture.zoo import ImageSet

DATA = ("digits",)


def network(spec: str, *, weights: str | Path | None = None, like: Any = None, seed: int = 0) -> nn.Module:
    """The network that `spec` names.

    Args:
        spec: ``zoo:NAME``, or ``module:function`` for a function without arguments that returns an `nn.Module`.
        weights: a safetensors file, or a state dict for ``torch.load(weights_only=True)``. None: as it is made.
        like: an `ImageSet` whose channels and classes a zoo network takes over.
        seed: of a zoo network's random weights.

    Raises:
        SutureError: nothing has that name, the function fails or returns something else, weights that do not fit.
    """
    kind, _, name = spec.partition(":")
    if not name:
        raise SutureError(f"expected a network like zoo:resnet_digits or mypackage.models:build, got {spec!r}")
    if kind == "zoo":
        options = {"classes": like.classes, "in_channels": like.inputs.shape[1]} if isinstance(like, ImageSet) else {}
        made: Any = zoo.build(name, seed, **options)
    else:
        made = _call(spec)
        if not isinstance(made, nn.Module):
            raise SutureError(f"expected {spec} to return a torch.nn.Module, got {type(made).__name__}")
    if weights is not None:
        zoo.load_weights(made, weights)
    network: nn.Module = made
    return network


def data(spec: str) -> tuple[Any, Any]:
    """(training data, test data) that `spec` names.

    Args:
        spec: ``digits``, or ``module:function`` for a function without arguments that returns the two.

    Raises:
        SutureError: nothing has that name, or the function returns something else.
    """
    if spec == "digits":
        return zoo.digits("train"), zoo.digits("test")
    if ":" not in spec:
        raise unknown("data set", spec, DATA, "or write mypackage.data:splits, a function that returns (train, test)")
    made = _call(spec)
    if not isinstance(made, tuple) or len(made) != 2:
        raise SutureError(f"expected {spec} to return a pair (train, test), got {type(made).__name__}")
    return made


def inputs(spec: str | None) -> Any:
    """What the function ``module:function`` returns, such as auxiliary data; None for None.

    Raises:
        SutureError: no such function, or it fails.
    """
    if spec is None:
        return None
    if ":" not in spec:
        raise SutureError(f"expected mypackage.data:inputs, a function that returns inputs or data, got {spec!r}")
    made = _call(spec)
    if made is None:
        raise SutureError(f"expected {spec} to return inputs or data, got None; return them")
    return made


def _call(spec: str) -> Any:
    """Import user code from the working directory or the environment and call it.

    Raises:
        SutureError: whatever the code raises, with the line that raised it.
    """
    module, _, name = spec.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(module)
    except Exception as e:
        hint = "run from the folder that holds it" if isinstance(e, ModuleNotFoundError) else "mend it first"
        raise SutureError(f"cannot import {module!r} of {spec!r}: {_told(e)}; {hint}") from e
    if not callable(getattr(found, name, None)):
        raise unknown(f"function in {module}", name, [n for n in vars(found) if callable(getattr(found, n))])
    try:
        return getattr(found, name)()
    except Exception as e:
        raise SutureError(f"{spec} fails: {_told(e)}; expected a function that works without arguments") from e


def _told(error: Exception) -> str:
    """What went wrong in somebody's code and where, in one line."""
    first = str(error).splitlines()[0] if str(error) else ""
    last = traceback.extract_tb(error.__traceback__)[-1]
    ours = last.filename == __file__ or last.filename.startswith("<")
    place = "" if ours else f" ({Path(last.filename).name}, line {last.lineno})"
    return f"{type(error).__name__}: {first}{place}"
