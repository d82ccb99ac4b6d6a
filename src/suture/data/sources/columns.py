"""Columns of a table: which one holds the examples, and which one their labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from suture._base import SutureError, make_unknown_error
from suture.data.sources.decoding import ExampleKind

ColumnType = Literal["image", "bytes", "string", "classes", "int", "other"]
"""Content of a column.

It is images (a struct of bytes and path), bytes, strings, class numbers with names, or whole numbers.
"""

IMAGE_COLUMNS = ("image", "img", "images", "pixel_values")
TEXT_COLUMNS = ("text", "sentence", "content", "document", "review", "line")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "target", "targets", "category", "y")
NO_LABEL_COLUMN = "none"
"""Name of the label column that means: no labels."""


@dataclass(frozen=True)
class ColumnNames:
    """Names of columns as the user gave them; None: found by name and type."""

    image: str | None = None
    label: str | None = None
    text: str | None = None


def choose_columns(types: Mapping[str, ColumnType], columns: ColumnNames,
                   name: str) -> tuple[ExampleKind, str, str | None]:
    """Return (kind, column of the examples, column of the labels or None) of a table.

    A column is chosen by its well-known name, or because it is the only one of its type. Images come before
    texts.

    Args:
        types: content of each column.
        columns: names given by the user.
        name: name of the data in messages.

    Raises:
        SutureError: a column that is not there, no column that can hold examples, or several texts of unknown
            names.
    """
    for given in (columns.image, columns.text, columns.label if columns.label != NO_LABEL_COLUMN else None):
        if given is not None and given not in types:
            raise make_unknown_error(f"column of {name}", given, types)
    kind, column = _choose_example_column(types, columns, name)
    if columns.label is not None:
        return kind, column, None if columns.label == NO_LABEL_COLUMN else columns.label
    return kind, column, _choose_label_column({c: t for c, t in types.items() if c != column})


def _choose_example_column(types: Mapping[str, ColumnType], columns: ColumnNames,
                           name: str) -> tuple[ExampleKind, str]:
    if columns.image is not None:
        return "images", columns.image
    if columns.text is not None:
        return "text", columns.text
    for held in ("image", "bytes"):
        images = [c for c, t in types.items() if t == held]
        if images:
            return "images", next((c for c in IMAGE_COLUMNS if c in images), images[0])
    texts = [c for c, t in types.items() if t == "string" and c != columns.label]
    known = next((c for c in TEXT_COLUMNS if c in texts), None)
    left = [c for c in texts if c not in LABEL_COLUMNS]
    if known is None and len(left) == 1:
        known = left[0]
    if known is not None:
        return "text", known
    held_all = ", ".join(f"{c} ({t})" for c, t in types.items()) or "no columns"
    if left:
        raise SutureError(f"expected one text column in {name}, got {', '.join(left)}; say which "
                          "with text_column")
    raise SutureError(f"expected a column of images or texts in {name}, got {held_all}; name one with "
                      "image_column or text_column")


def _choose_label_column(types: Mapping[str, ColumnType]) -> str | None:
    fit = [c for c, t in types.items() if t in ("classes", "int", "string")]
    found = next((c for c in LABEL_COLUMNS if c in fit), None)
    named = [c for c in fit if types[c] == "classes"]
    return found if found is not None or len(named) != 1 else named[0]
