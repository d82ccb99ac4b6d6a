"""Labels become class numbers, or the message says which one cannot."""

from __future__ import annotations

from typing import Any

import pytest

from suture import SutureError
from suture.data.sources.labels import number_labels
from suture.data.sources.stores import MemoryStore, StoredSplit
from tests.support.pictures import NAMES

LABELS: dict[str, tuple[list[Any], tuple[str, ...] | None, list[int | None] | None, int,
                        tuple[str, ...] | None]] = {
    "numbers": ([2, 0, 1], None, [2, 0, 1], 4, None),
    "named": ([2, 0, 1], NAMES, [2, 0, 1], 3, NAMES),
    "whole floats": ([2.0, 0.0], None, [2, 0], 4, None),
    "truths": ([True, False], None, [1, 0], 4, None),
    "strings": (["bee", "ant"], None, [1, 0], 3, NAMES),
    "digits in strings": (["2", "0"], None, [2, 0], 4, None),
    "missing": ([1, None, float("nan"), -1], None, [1, None, None, None], 4, None),
    "all missing": ([-1, -1], NAMES, None, 0, None),
    "none": ([], None, None, 0, None),
}


@pytest.mark.parametrize("case", LABELS)
def test_labels_become_class_numbers(case: str) -> None:
    values, names, expected, classes, found_names = LABELS[case]
    part = StoredSplit(MemoryStore([""] * len(values), "x"), "text", values, names)
    other = ["cat"] if case == "strings" else ["3"] if case == "digits in strings" else [3]
    found = number_labels(part, lambda: [part, StoredSplit(MemoryStore([""], "x"), "text", other)], "x")
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert (found.numbers, found.classes, found.names) == (expected, classes, found_names)


@pytest.mark.parametrize(("values", "names", "message"), [
    ([0, 0.5], None, r"expected class numbers from 0 in column 'label' of x, got 0.5 at m, row 1"),
    ([0, -2], None, "got -2 at m, row 1"), ([0, [1, 0]], None, r"got \[1, 0\] at m, row 1"),
    ([float("inf")], None, "got inf"),
    ([0, 3], NAMES, "from 0 to 2 in .*, got 3 at m, row 1"),
    (["a", 3], None, "one type .*, got strings and 3")])
def test_labels_that_are_none(values: list[Any], names: tuple[str, ...] | None, message: str) -> None:
    part = StoredSplit(MemoryStore([""] * len(values), "m"), "text", values, names)
    with pytest.raises(SutureError, match=message):
        number_labels(part, lambda: [part], "x")
