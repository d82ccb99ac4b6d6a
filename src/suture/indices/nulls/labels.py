"""Groups and classes of examples, as a user gives them."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from pydantic import PlainValidator
from torch import Tensor

from suture._base import expect, refuse, show_value
from suture.numbers import Ints

_NO_CLASS = (-1, -100)  # what data sets without a label write


def number_labels(given: Any) -> Ints | None:
    """Return labels of examples, whole numbers or names, as numbers (n,) from 0, -1 for none; None stays."""
    if given is None:
        return None
    if isinstance(given, Tensor):
        given = given.detach().cpu().numpy()
    values = np.asarray(given if hasattr(given, "__array__") else list(given)
                        if hasattr(given, "__iter__") and not isinstance(given, str | bytes) else [None])
    if values.ndim != 1 or values.dtype.kind not in "iubUS":
        raise refuse("a whole number or a name for each example", show_value(given), "write one for each")
    numbers = np.unique(values, return_inverse=True)[1].astype(np.int64)
    return np.where(np.isin(values, _NO_CLASS), -1, numbers) if values.dtype.kind == "i" else numbers


def check_count(labels: Ints | None, n: int, name: str) -> None:
    """Raise `SutureError` unless there is a label for each of `n` examples."""
    if labels is not None:
        expect(len(labels) == n, f"{name} with one label for each of {n} examples", len(labels))


Labels = Annotated[Any, PlainValidator(number_labels)]
"""One label for each example, whole numbers or names; None for none."""
