"""Marks: reasons not to trust cells, as texts ``cause: numbers; cause: numbers``, counted and described."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


def list_causes(mark: str) -> list[str]:
    """List the causes in a mark, without their numbers."""
    return [part.split(": ")[0] for part in mark.split("; ") if part]


def describe_marks(marks: Iterable[str], cells: int) -> str:
    """Describe how many cells are marked and why.

    An example is ``3 of 64 cells are marked (still improving: 2, one epoch: 1)``.

    Args:
        marks: one mark for each cell; empty where the cell has none.
        cells: number of cells.
    """
    found = [m for m in marks if m]
    counts = Counter(cause for m in found for cause in list_causes(m))
    why = ", ".join(f"{cause}: {n}" for cause, n in counts.items())
    noun = "cell" if cells == 1 else "cells"
    return (f"{len(found)} of {cells} {noun} {'is' if len(found) == 1 else 'are'} marked"
            + (f" ({why})" if why else ""))
