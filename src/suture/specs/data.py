"""Data by what is written on a command line."""

from __future__ import annotations

from typing import Any

from suture import zoo
from suture._errors import SutureError, unknown
from suture.specs.code import call

DATA = ("digits",)


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
    made = call(spec)
    if not isinstance(made, tuple) or len(made) != 2:
        raise SutureError(f"expected {spec} to return a pair (train, test), got {type(made).__name__}")
    return made
