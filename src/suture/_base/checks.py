"""Checks of values from outside, and short descriptions of them."""

from __future__ import annotations

import math
from collections.abc import Sized

import torch
from torch import Tensor

from suture._base.errors import SutureError


def is_count(value: object) -> bool:
    """Return True for a whole number of at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def is_number(value: object) -> bool:
    """Return True for a finite int or float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def describe_value(value: object) -> str:
    """Describe a tensor by dtype and shape, and any other value by its class name."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    return type(value).__name__


def expect(holds: bool, wanted: str, got: object = "", instead: str = "") -> None:
    """Raise a `SutureError` unless a condition holds.

    Args:
        wanted: what was expected.
        got: what came: text as it is, or a value, which is described.
        instead: advice on what to write.
    """
    if not holds:
        came = got if isinstance(got, str) else repr(got) if is_number(got) else describe_value(got)
        raise SutureError(f"expected {wanted}{', got ' + came if came else ''}"
                          f"{'; ' + instead if instead else ''}")


def check_finite(values: Tensor, what: str, instead: str = "check the inputs and weights") -> None:
    """Check that a tensor holds neither NaN nor infinity; `what` names it in the error."""
    if not bool(torch.isfinite(values).all()):
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
        outside = labels[(labels < 0) | (labels >= classes)]
        raise SutureError(f"expected labels from 0 to {classes - 1}, got {int(outside[0])}; {instead}")
