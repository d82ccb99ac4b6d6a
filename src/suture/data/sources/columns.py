"""Choice of the columns of a table that hold the examples and their labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from suture._base import SutureError, make_unknown_error
from suture.data.sources.decoding import ExampleKind

ColumnType = Literal["image", "bytes", "string", "classes", "int", "other"]
"""Content of a column. "image" is a struct of bytes and path; "classes" are class numbers with names."""

IMAGE_COLUMNS = ("image", "img", "images", "pixel_values")
TEXT_COLUMNS = ("text", "sentence", "content", "document", "review", "line")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "target", "targets", "category", "y")
NO_LABEL_COLUMN = "none"


@dataclass(frozen=True)
class ColumnNames:
    """Names of columns that the user gave. None: found by name and type."""

    image: str | None = None
    label: str | None = None
    text: str | None = None

    @property
    def given(self) -> list[str]:
        return [c for c in (self.image, self.text, self.label) if c not in (None, NO_LABEL_COLUMN)]


def choose_columns(types: Mapping[str, ColumnType], columns: ColumnNames,
                   name: str) -> tuple[ExampleKind, str, str | None]:
    """Return (kind, column of the examples, column of the labels or None) of a table.

    A column is chosen by a usual name, or because it is the only one of its type. Images come before texts.
    """
    for given in columns.given:
        if given not in types:
            raise make_unknown_error(f"column of {name}", given, types)
    kind, column = _choose_example_column(types, columns, name)
    if columns.label is not None:
        return kind, column, None if columns.label == NO_LABEL_COLUMN else columns.label
    fit = [c for c, t in types.items() if c != column and t in ("classes", "int", "string")]
    named = [c for c in fit if types[c] == "classes"]
    return kind, column, _choose(fit, LABEL_COLUMNS) or (named[0] if len(named) == 1 else None)


def _choose_example_column(types: Mapping[str, ColumnType], columns: ColumnNames,
                           name: str) -> tuple[ExampleKind, str]:
    if columns.image is not None:
        return "images", columns.image
    if columns.text is not None:
        return "text", columns.text
    for held in ("image", "bytes"):
        images = [c for c, t in types.items() if t == held]
        if images:
            return "images", _choose(images, IMAGE_COLUMNS) or images[0]
    texts = [c for c, t in types.items() if t == "string" and c != columns.label]
    left = [c for c in texts if c not in LABEL_COLUMNS]
    known = _choose(texts, TEXT_COLUMNS) or (left[0] if len(left) == 1 else None)
    if known is not None:
        return "text", known
    if left:
        raise SutureError(f"several text columns in {name}: {', '.join(left)}; choose one with text_column")
    held_all = ", ".join(f"{c} ({t})" for c, t in types.items()) or "no columns"
    raise SutureError(f"expected a column of images or texts in {name}, got {held_all}; name one with "
                      "image_column or text_column")


def _choose(names: list[str], usual: tuple[str, ...]) -> str | None:
    return next((c for c in usual if c in names), None)
