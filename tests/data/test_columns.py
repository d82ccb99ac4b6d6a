"""Which columns of a table hold the examples and their labels."""

from __future__ import annotations

from typing import Any

import pytest

from suture import SutureError
from suture.data.sources.columns import ColumnNames, choose_columns


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
