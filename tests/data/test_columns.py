"""Columns of a table that hold the examples and their labels; class numbers of the labels."""

from __future__ import annotations

from typing import Any

import pytest

from suture import SutureError
from suture.data.sources.columns import ColumnNames, choose_columns, number_labels
from suture.data.sources.stores import MemoryStore, StoredSplit
from tests.support.pictures import NAMES


@pytest.mark.parametrize(("types", "wanted", "found"), [
    ({"img": "image", "label": "classes"}, {}, ("images", "img", "label")),
    ({"id": "int", "photo": "image", "kind": "classes"}, {}, ("images", "photo", "kind")),
    ({"text": "string", "label": "int", "idx": "int"}, {}, ("text", "text", "label")),
    ({"sentence": "string", "idx": "int"}, {}, ("text", "sentence", None)),
    ({"body": "string", "label": "string"}, {}, ("text", "body", "label")),
    ({"title": "string", "text": "string"}, {}, ("text", "text", None)),
    ({"image": "image", "thumb": "image", "text": "string"}, {}, ("images", "image", None)),
    ({"image": "image", "text": "string"}, {"text": "text"}, ("text", "text", None)),
    ({"img": "image", "fine_label": "classes", "coarse_label": "classes"}, {},
     ("images", "img", "fine_label")),
    ({"img": "image", "a": "classes", "b": "classes"}, {}, ("images", "img", None)),
    ({"img": "image", "a": "classes", "b": "classes"}, {"label": "b"}, ("images", "img", "b")),
    ({"img": "image", "label": "classes"}, {"label": "none"}, ("images", "img", None)),
    ({"x": "bytes", "y": "int"}, {}, ("images", "x", "y")),
    ({"img": "image", "label": "other"}, {}, ("images", "img", None)),
])
def test_columns_are_found_by_name_and_type(types: Any, wanted: Any, found: Any) -> None:
    assert choose_columns(types, ColumnNames(**wanted), "x") == found


@pytest.mark.parametrize(("types", "wanted", "message"), [
    ({"a": "string", "b": "string"}, {},
     "several text columns in x: a, b; choose one with text_column"),
    ({"a": "int", "b": "other"}, {}, r"a column of images or texts in x, got a \(int\), b \(other\)"),
    ({"label": "string"}, {}, "images or texts"),
    ({"text": "string"}, {"label": "lable"}, "unknown column of x 'lable'"),
    ({"text": "string", "label": "int"}, {"text": "texts"}, "unknown column of x 'texts'; nearest: text"),
])
def test_columns_that_are_not_there(types: Any, wanted: Any, message: str) -> None:
    with pytest.raises(SutureError, match=message):
        choose_columns(types, ColumnNames(**wanted), "x")


LABELS: dict[str, tuple[list[Any], tuple[str, ...] | None, list[int | None] | None, int,
                        tuple[str, ...] | None]] = {
    "numbers": ([2, 0, 1], None, [2, 0, 1], 4, None),
    "named": ([2, 0, 1], NAMES, [2, 0, 1], 3, NAMES),
    "whole floats": ([2.0, 0.0], None, [2, 0], 4, None),
    "truths": ([True, False], None, [1, 0], 4, None),
    "strings": (["bee", "ant"], None, [1, 0], 3, NAMES),
    "digits in strings": (["2", "0"], None, [2, 0], 4, None),
    "missing": ([1, None, float("nan"), -1], None, [1, -1, -1, -1], 4, None),
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
        assert (found.numbers.tolist(), found.classes, found.names) == (expected, classes, found_names)


@pytest.mark.parametrize(("values", "names", "message"), [
    ([0, 0.5], None, r"expected class numbers from 0 in column 'label' of x, got 0.5 at m, row 1"),
    ([0, -2], None, "got -2 at m, row 1"), ([0, [1, 0]], None, r"got \[1, 0\] at m, row 1"),
    ([float("inf")], None, "got inf"),
    ([0, 3], NAMES, "from 0 to 2 in .*, got 3 at m, row 1"),
    (["a", 3], None, "one type .*, got strings and 3")])
def test_labels_that_are_none(values: list[Any], names: tuple[str, ...] | None, message: str) -> None:
    part = StoredSplit(MemoryStore([""] * len(values), "m"), "text", values, names, column="label")
    with pytest.raises(SutureError, match=message):
        number_labels(part, lambda: [part], "x")
