"""Columns of a table: the choice of examples and labels, and class numbers from stored labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from suture._base import SutureError, make_unknown_error
from suture.data.sources.stores import ExampleKind, StoredSplit

ColumnType = Literal["image", "bytes", "string", "classes", "int", "other"]
"""Content of a column. "image" is a struct of bytes and path; "classes" are class numbers with names."""

IMAGE_COLUMNS = ("image", "img", "images", "pixel_values")
TEXT_COLUMNS = ("text", "sentence", "content", "document", "review", "line")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "target", "targets", "category", "y")
NO_LABEL_COLUMN = "none"
_DIGITS = 19
"""Strings of this many digits are names, because int64 does not hold every such number."""


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
    """Return (kind, column of the examples, column of the labels or None), by usual names, then by type."""
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


LARGEST_CLASS = 2**63 - 1
"""The largest class number that int64 holds."""
NO_LABEL = -1
"""Label that hubs write for examples without one, as in test splits with secret labels."""


class Labels(NamedTuple):
    """Class numbers of one split: (N,) from 0 to classes - 1, or `NO_LABEL`."""

    numbers: Tensor
    classes: int
    names: tuple[str, ...] | None


def number_labels(part: StoredSplit, everywhere: Callable[[], list[StoredSplit]], name: str) -> Labels | None:
    """Convert the labels of a split to class numbers; return None where every label is missing or -1.

    Strings are numbered in sorted order over all splits (`everywhere` opens them). Numbers stay as they are;
    without names the largest number of any split decides the number of classes.
    """
    values = _as_plain(part.labels)
    if all(v is None for v in values):
        return None
    what = f"column {part.column!r} of {name}" if part.column else name
    if any(isinstance(v, str) for v in values):
        return _number_strings(values, [v for p in everywhere() for v in _as_plain(p.labels)], what)
    known = len(part.names) if part.names is not None else part.classes
    for row, v in enumerate(values):
        if v is not None and not (_is_class(v) and (known is None or v < known)):
            bounds = f" to {known - 1}" if known is not None else " below 2**63" if _is_too_large(v) else ""
            raise SutureError(f"expected class numbers from 0{bounds} in {what}, got {v!r} at "
                              f"{part.store.describe_row(row)}; name another column with label_column, or "
                              "write label_column='none'")
    if known is None:
        known = 1 + max(int(v) for p in everywhere() for v in _as_plain(p.labels)
                        if v is not None and _is_class(v))
    return Labels(torch.tensor([NO_LABEL if v is None else int(v) for v in values]), known, part.names)


def _as_plain(values: Sequence[Any] | None) -> list[Any]:
    """Convert labels to Python's numbers and strings; missing labels, -1, NaN and "" become None."""
    found = [v.item() if isinstance(v, np.generic) else v for v in values or ()]
    return [None if v is None or v in ("", NO_LABEL) or v != v else v for v in found]


def _is_too_large(value: Any) -> bool:
    return isinstance(value, int) and value > LARGEST_CLASS


def _is_class(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value <= LARGEST_CLASS and float(value).is_integer()


def _number_strings(values: list[Any], everywhere: list[Any], what: str) -> Labels:
    odd = next((v for v in everywhere if v is not None and not isinstance(v, str)), None)
    if odd is not None:
        raise SutureError(f"expected labels of one type in {what}, got strings and {odd!r}; write strings")
    present = {v for v in everywhere if v is not None}
    numbers = all(v.isdecimal() and len(v) < _DIGITS for v in present)
    names = None if numbers else tuple(sorted(present))
    place = {v: int(v) for v in present} if names is None else {v: k for k, v in enumerate(names)}
    return Labels(torch.tensor([place.get(v, NO_LABEL) for v in values]), 1 + max(place.values()), names)
