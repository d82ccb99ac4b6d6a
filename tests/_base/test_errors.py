"""Shared checks: what they let through, and the value that they name when they do not; optional libraries."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from suture._base import (
    SutureError,
    check_classes,
    check_equal_lengths,
    check_finite,
    expect,
    import_optional,
)
from suture._base.errors import is_number


@pytest.mark.parametrize(("value", "wanted"), [(1, True), (0.5, True), (True, False), (math.nan, False),
                                               (math.inf, False), ("1", False), (None, False)])
def test_a_number_is_finite_and_no_boolean(value: Any, wanted: bool) -> None:
    assert is_number(value) is wanted


@pytest.mark.parametrize(("got", "shown"), [
    ("text", "got text"), (3, "got 3"), ([1], "got list"), ("", "expected x;"),
    (torch.ones(2), r"float32 of shape \(2,\)"),
])
def test_expect_names_what_came(got: Any, shown: str) -> None:
    expect(True, "x", got, "write y")
    with pytest.raises(SutureError, match=shown):
        expect(False, "x", got, "write y")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused(bad: float) -> None:
    check_finite(torch.ones(3), "the inputs")
    with pytest.raises(SutureError, match="NaN or inf in the inputs"):
        check_finite(torch.tensor([1.0, bad]), "the inputs")


def test_lengths_differ() -> None:
    check_equal_lengths([1], (2,), "inputs and labels", "write pairs")
    with pytest.raises(SutureError, match=r"inputs and labels.*1 and 2; write pairs"):
        check_equal_lengths([1], (2, 3), "inputs and labels", "write pairs")


@pytest.mark.parametrize(("labels", "got"), [
    (torch.tensor([0, 3]), "got 3"), (torch.tensor([-1, 0]), "got -1"), (torch.tensor([0.0]), "float32"),
    (torch.tensor([True]), "bool"), (torch.tensor([1j]), "complex"),
])
def test_labels_outside_the_classes_are_refused(labels: torch.Tensor, got: str) -> None:
    check_classes(torch.tensor([0, 2]), 3, "")
    check_classes(torch.zeros(0, dtype=torch.int64), 3, "")
    with pytest.raises(SutureError, match=got):
        check_classes(labels, 3, "give class numbers")


def test_a_library_by_its_name() -> None:
    assert import_optional("json", "vision", "a test") is json
