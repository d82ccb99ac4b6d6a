"""Class numbers from stored labels: numbers, numbers with names, or strings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from suture._base import SutureError
from suture.data.sources.stores import StoredSplit

NO_LABEL = -1
"""Label that hubs write for examples without one, as in test splits with secret labels."""


@dataclass(frozen=True)
class Labels:
    """Class numbers of one split: (N,) from 0 to classes - 1, None for an example without a label."""

    numbers: list[int | None]
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
            bounds = "" if known is None else f" to {known - 1}"
            raise SutureError(f"expected class numbers from 0{bounds} in {what}, got {v!r} at "
                              f"{part.store.describe_row(row)}; name another column with label_column, or "
                              "write label_column='none'")
    if known is None:
        known = 1 + max(int(v) for p in everywhere() for v in _as_plain(p.labels)
                        if v is not None and _is_class(v))
    return Labels([None if v is None else int(v) for v in values], known, part.names)


def _as_plain(values: Sequence[Any] | None) -> list[Any]:
    """Convert labels to Python's numbers and strings; missing labels, -1, NaN and "" become None."""
    found = [v.item() if isinstance(v, np.generic) else v for v in values or ()]
    return [None if v is None or v in ("", NO_LABEL) or v != v else v for v in found]


def _is_class(value: Any) -> bool:
    return isinstance(value, int | float) and float(value).is_integer() and value >= 0


def _number_strings(values: list[Any], everywhere: list[Any], what: str) -> Labels:
    odd = next((v for v in everywhere if v is not None and not isinstance(v, str)), None)
    if odd is not None:
        raise SutureError(f"expected labels of one type in {what}, got strings and {odd!r}; write strings")
    present = {v for v in everywhere if v is not None}
    if all(v.isdecimal() for v in present):
        return Labels([None if v is None else int(v) for v in values], 1 + max(map(int, present)), None)
    names = tuple(sorted(present))
    place = {name: k for k, name in enumerate(names)}
    return Labels([None if v is None else place[v] for v in values], len(names), names)
