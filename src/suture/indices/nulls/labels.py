"""Groups and classes of examples, as a user gives them."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import PlainValidator
from torch import Tensor

from suture._base import describe_value, expect, refuse, show_value
from suture.numbers import Ints

_NO_CLASS = (-1, -100)  # what data sets without a label write


def number_labels(given: Any) -> Ints | None:
    """Return labels of examples, whole numbers or names, as numbers (n,) from 0; None stays.

    Those without a label (None, NaN, -1, -100) have -1.
    """
    if given is None:
        return None
    values = _read_array(given)
    if values.ndim == 1 and values.dtype.kind in "fO":
        missing = np.array([v is None or v != v for v in values.tolist()], bool)
        known = _read_known(values[~missing])
    else:
        missing, known = np.zeros(len(values) if values.ndim else 0, bool), values
    if known.ndim != 1 or known.dtype.kind not in "iubUS":
        raise refuse("a whole number or a name for each example", _describe(given), "write one for each")
    numbers = np.full(len(missing), -1)
    found = np.unique(known, return_inverse=True)[1].astype(np.int64)
    numbers[~missing] = np.where(np.isin(known, _NO_CLASS), -1, found) if known.dtype.kind == "i" else found
    return numbers


def number_groups(given: Any) -> Ints | None:
    """Return groups of examples as numbers (n,), as `number_labels` does; every example is in one."""
    numbers = number_labels(given)
    if numbers is not None and (numbers < 0).any():
        missing = int((numbers < 0).sum())
        raise refuse("a group for each example", f"none (None, NaN, -1, -100) for {missing} of them",
                     "write a number of its own for each")
    return numbers


def _read_array(given: Any) -> NDArray[Any]:
    if isinstance(given, Tensor):
        given = given.detach().cpu()
        return np.asarray((given.double() if given.is_floating_point() else given).numpy())
    if hasattr(given, "__array__"):
        return np.asarray(given)
    if isinstance(given, str | bytes) or not hasattr(given, "__iter__"):
        return np.asarray(None)
    parts = list(given)
    made = np.empty(len(parts), object)  # NumPy would write NaN beside names as a name
    made[:] = [part.item() if getattr(part, "ndim", None) == 0 else part for part in parts]
    return made


def _read_known(values: NDArray[Any]) -> NDArray[Any]:
    """Return labels as an array of names or of whole numbers if they are such; otherwise as they are."""
    parts = values.tolist()
    if all(isinstance(v, str) for v in parts):
        return np.asarray(parts, str)
    if all(isinstance(v, int) or (isinstance(v, float) and v.is_integer()) for v in parts):
        return np.asarray([int(v) for v in parts], np.int64)
    return values


def _describe(given: Any) -> str:
    if isinstance(given, np.ndarray):
        return f"{given.dtype} of shape {given.shape}"
    return describe_value(given) if isinstance(given, Tensor) else show_value(given)


def check_count(labels: Ints | None, n: int, name: str) -> None:
    """Raise `SutureError` unless there is a label for each of `n` examples."""
    if labels is not None:
        expect(len(labels) == n, f"{name} with one label for each of {n} examples", len(labels))


Labels = Annotated[Any, PlainValidator(number_labels)]
"""One label for each example, whole numbers or names; None for none."""
Groups = Annotated[Any, PlainValidator(number_groups)]
"""One group for each example; None for none."""
