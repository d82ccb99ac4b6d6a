"""Marks: reasons not to trust a cell, as texts ``cause: numbers; cause: numbers``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


def list_causes(mark: str) -> list[str]:
    return [part.split(": ")[0] for part in mark.split("; ") if part]


def describe_marks(marks: Iterable[str], cells: int) -> str:
    """Describe how many cells are marked and why, as in ``3 of 64 cells are marked (still improving: 3)``.

    Empty marks are not counted. `cells` is the number of all cells.
    """
    found = [m for m in marks if m]
    counts = Counter(cause for m in found for cause in list_causes(m))
    why = ", ".join(f"{cause}: {n}" for cause, n in counts.items())
    noun = "cell" if cells == 1 else "cells"
    return (f"{len(found)} of {cells} {noun} {'is' if len(found) == 1 else 'are'} marked"
            + (f" ({why})" if why else ""))
