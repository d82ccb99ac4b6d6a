"""Verdicts of cells: similar, artefact, shares the labels only, dissimilar, or what is not proven."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from suture._base import SutureError, make_unknown_error
from suture.numbers import METHOD_NAMES, Estimate
from suture.results.measured import Measured, label_cells, take_cells
from suture.results.standing import (
    Criterion,
    Standing,
    find_ends,
    find_standing,
    format_near,
)

if TYPE_CHECKING:
    import pandas as pd

SIMILAR, DISSIMILAR, ARTEFACT, UNPROVEN = "similar", "dissimilar", "artefact", "unproven"
LABELS_ONLY, NOT_SHOWN = "shares the labels only", "works, not shown similar"
VERDICTS = (SIMILAR, ARTEFACT, LABELS_ONLY, NOT_SHOWN, DISSIMILAR, UNPROVEN)
WORKING = (SIMILAR, ARTEFACT, LABELS_ONLY, NOT_SHOWN)
"""Verdicts of cells whose stitched network works."""
NATIVE = "the stitched representations are the native ones, up to rounding"
SAME = 1e-6
"""Share of the variance by which representations may differ for rounding alone."""
EDGE = 1.0
"""Natural distance of the outer radius."""
LEVEL = 0.001
"""Level of the test that a representation holds more than the class."""
MOST_RESIDUAL = 0.9
"""Informational residual, at its upper end, from which on a representation shares too little but the class.

Noise of the class that a network predicts tells a little within the class of the label, and reaches residuals
of 0.86 to 1.0 below its null. Chosen on one half of the controls and measured on the other
(docs/controls.md).
"""


@dataclass(frozen=True)
class CellEvidence:
    """The numbers that a cell's verdict rests on.

    Attributes:
        works: the measure by which it works.
        distance: natural distance, in units of the outer radius.
        residual: informational residual, free of offsets.
        p: p-value of the residual when examples are permuted within classes; nan where unknown.
        mark: reason why the layer has not converged; empty if it has.
    """

    works: Estimate
    distance: Estimate
    residual: Estimate
    p: float = math.nan
    mark: str = ""


@dataclass(frozen=True, eq=False)
class CellVerdicts:
    """Verdicts of all cells of one method: one of `VERDICTS` and a sentence per cell.

    Rows are source sites, columns target sites.
    """

    method: str
    words: pd.DataFrame
    reasons: pd.DataFrame

    def count(self, *words: str) -> int:
        """Return the number of cells with one of these verdicts."""
        return int(self.words.isin(words).to_numpy().sum())

    @property
    def counts(self) -> str:
        """How many cells have which verdict, in one sentence."""
        return (f"{METHOD_NAMES[self.method].capitalize()}: of {self.words.size} cells "
                f"{count_verdicts(self.words.to_numpy())}.")


def count_verdicts(words: NDArray[Any], of: Iterable[str] = VERDICTS) -> str:
    """Count verdicts, as in ``3 similar, 1 artefact, 2 sharing the labels only``."""
    names = {ARTEFACT: ("artefact", "artefacts"), LABELS_ONLY: ("sharing the labels only",) * 2,
             NOT_SHOWN: ("not shown similar",) * 2}
    return ", ".join(f"{n} {names.get(word, (word, word))[n > 1]}" for word in of
                     if (n := int((words == word).sum())))


def judge_cell(found: CellEvidence, by: Criterion) -> tuple[str, str]:
    """Return the verdict of a cell, and the reason in one sentence.

    A stitched network works if its relative accuracy is at least ``works``; without labels, its agreement;
    without predictions, if the relative error of its output is at most 1 - ``works`` (`find_standing`).

    - *Dissimilar*: it does not work. *Unproven*: a number is missing, its 95 % interval contains the
      threshold, a constant output is as good, or the layer has not converged and may still come to work.
    - *Artefact*: it works, and its natural distance is beyond the outer radius of the natural range.
    - *Similar*: it works, its natural distance is within the outer radius, and its informational residual is
      below `MOST_RESIDUAL` and below what examples permuted within classes give (p < `LEVEL`).
    - *Shares the labels only*: it works, nothing shows that it is beyond the natural range, and nothing that
      it holds more than the class.
    - *Works, not shown similar*: all other cells that work, with the reason. A mark leaves the verdict of a
      working cell as it is, because the layer exists; the reason names it.

    Distances compare with both ends of their interval. (`judge_cells` knows one exception: representations
    that equal the native ones are *similar*.)
    """
    works, why = by.decide(found.works, found.mark)
    if not works:
        return (UNPROVEN if works is None else DISSIMILAR), why
    word, reason = _judge_representations(found)
    return word, f"works ({why}), {reason}" + (f"; the cell is marked ({found.mark})" if found.mark else "")


def _judge_representations(found: CellEvidence) -> tuple[str, str]:
    if math.isnan(found.distance.value):
        return NOT_SHOWN, f"but its natural distance is missing: {found.distance.reason}"
    low, high = find_ends(found.distance)
    shown, below, above = (format_near(x, EDGE) for x in (found.distance.value, low, high))
    if low > EDGE:
        return ARTEFACT, (f"but its representations lie beyond what natural inputs reach (natural distance "
                          f"{shown}, 95 % interval {below} to {above})")
    if high <= EDGE:
        return _judge_information(found, f"within what natural inputs reach (natural distance {shown})")
    word, reason = _judge_information(found, "not clearly beyond what natural inputs reach (natural distance "
                                             f"{shown}, 95 % interval {below} to {above})")
    return (NOT_SHOWN if word == SIMILAR else word), reason


def _judge_information(found: CellEvidence, near: str) -> tuple[str, str]:
    if math.isnan(found.residual.value) or math.isnan(found.p):
        why = found.residual.reason or "too few examples of each class to permute them"
        return NOT_SHOWN, f"{near}, but its informational residual is missing: {why}"
    high = find_ends(found.residual)[1]
    words = (f"informational residual {found.residual.value:.2f}, at most "
             f"{format_near(high, MOST_RESIDUAL)}, p {found.p:.2g}")
    if found.p < LEVEL and high < MOST_RESIDUAL:
        return SIMILAR, f"{near}, and holds more than the class ({words})"
    return LABELS_ONLY, f"{near}, but nothing shows that it holds more than the class ({words})"


def judge_cells(measured: Measured, method: str) -> CellVerdicts:
    """Return the verdict of every cell of a method."""
    if method not in METHOD_NAMES:
        raise make_unknown_error("method", method, METHOD_NAMES)
    standing = find_standing(measured)
    needed = _list_needed_measures(standing, method)
    absent = [name for name in needed if name not in measured.measures]
    if absent:
        raise SutureError(f"no verdicts of {method!r}: {absent[0]!r} is not in this comparison; compare with "
                          f"methods=({method!r},) and ood=suture.OOD()")
    works, distances, residuals = (_collect_estimates(measured, name) for name in needed)
    marks, native = take_cells(measured, needed[0], "mark"), _find_native(measured, method)
    ps = measured.arrays.get(f"{method}.residual_p", np.full(marks.shape, np.nan))
    words, reasons = np.empty(marks.shape, dtype=object), np.empty(marks.shape, dtype=object)
    for i, j in np.ndindex(marks.shape):
        found = CellEvidence(works[i][j], distances[i][j], residuals[i][j], float(ps[i, j]), str(marks[i, j]))
        words[i, j], reasons[i, j] = ((UNPROVEN, standing.flaw) if standing.flaw else
                                      judge_cell(found, standing.criteria[method]))
        if words[i, j] not in (SIMILAR, DISSIMILAR) and not standing.flaw and native[i, j]:
            words[i, j], reasons[i, j] = SIMILAR, NATIVE
    return CellVerdicts(method, label_cells(measured, words), label_cells(measured, reasons))


def _find_native(measured: Measured, method: str) -> NDArray[np.bool_]:
    """Find the cells whose stitched representations equal the native ones."""
    name, shape = f"{method}.r2", (len(measured.sources), len(measured.targets))
    if name not in measured.measures:
        return np.zeros(shape, np.bool_)
    found: NDArray[np.bool_] = take_cells(measured, name) >= 1 - SAME
    return found


def _collect_estimates(measured: Measured, name: str) -> list[list[Estimate]]:
    columns = [take_cells(measured, name, what).tolist() for what in ("value", "low", "high", "reason")]
    return [[Estimate(*cell) for cell in zip(*row, strict=True)] for row in zip(*columns, strict=True)]


def _list_needed_measures(standing: Standing, method: str) -> tuple[str, str, str]:
    by = standing.criteria.get(method)
    quantity = "relative_accuracy" if by is None else by.quantity
    return f"{method}.{quantity}", f"{method}.natural_distance", f"{method}.informational_residual"


def judge_methods(measured: Measured) -> dict[str, CellVerdicts]:
    """Return the verdicts of every method whose numbers the comparison has."""
    standing = find_standing(measured)
    return {method: judge_cells(measured, method) for method in standing.criteria
            if set(_list_needed_measures(standing, method)) <= set(measured.measures)}


def find_artefacts(measured: Measured) -> dict[str, pd.DataFrame]:
    """Return for each method that has verdicts which cells are artefacts: booleans (sources, targets)."""
    return {method: found.words == ARTEFACT for method, found in judge_methods(measured).items()}


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
