"""Verdict of a cell: similar, dissimilar, unproven, or an artefact.

An artefact solves the task with another representation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from suture._base import SutureError, make_unknown_error
from suture.numbers import METHOD_NAMES, Estimate
from suture.ood import Thresholds
from suture.results.measured import Measured, label_cells

if TYPE_CHECKING:
    import pandas as pd

SIMILAR, DISSIMILAR, ARTEFACT, UNPROVEN = "similar", "dissimilar", "artefact", "unproven"
VERDICTS = (SIMILAR, ARTEFACT, DISSIMILAR, UNPROVEN)


@dataclass(frozen=True, eq=False)
class CellVerdicts:
    """Verdicts of all cells of one method.

    Attributes:
        words: one of `VERDICTS` for each cell: rows are source sites, columns target sites.
        reasons: one sentence for each cell that says why.
        counts: one sentence that counts the verdicts.
    """

    words: pd.DataFrame
    reasons: pd.DataFrame
    counts: str


def judge_cell(accuracy: Estimate, outlying: Estimate, weakness: str, mark: str, detector: str,
               thresholds: Thresholds) -> tuple[str, str]:
    """Decide the verdict of a cell, and say why in one sentence.

    - A cell that does not work (relative accuracy below ``works``) is *dissimilar*. It is *unproven* where
      the layer is marked as not converged, because it might still come to work. A layer that works, works,
      converged or not.
    - A cell that works is *unproven* where the detector is too weak at its target site (`explain_weakness`).
    - Else it is an *artefact* where its representations are out of distribution: two-sided AUROC of ``out``
      or more, or of 1 - ``out`` or less. The latter means that they are crowded at the middle of the native
      scores, which is a difference too.
    - Else it is *similar*.
    - Any cell is *unproven* where a 95 % interval holds a threshold, so that its ends give different words,
      and where a number is missing.

    A value equal to a threshold reaches it.

    Args:
        accuracy: relative accuracy.
        outlying: two-sided AUROC of the detector's scores, in [0, 1], 0.5 where nothing tells them apart.
        weakness: sentence of `explain_weakness` for the target site.
        mark: why the layer has not converged; empty where it has.
        detector: its name, for the sentence.
        thresholds: see `Thresholds`.

    Returns:
        The word and the reason.
    """
    if math.isnan(accuracy.value):
        return UNPROVEN, f"the relative accuracy is missing: {accuracy.reason}"
    works, ends = thresholds.works, _find_ends(accuracy)
    share, low, high = (format_near(x, works) for x in (accuracy.value, *ends))
    if accuracy.value < works and mark:
        return UNPROVEN, (f"relative accuracy {share} is below {works:g}, but the stitching layer has not "
                          f"converged ({mark})")
    if ends[1] < works:
        return DISSIMILAR, f"relative accuracy {share} is below {works:g}"
    if ends[0] < works:
        return UNPROVEN, (f"relative accuracy {share} is not clearly above or below {works:g} "
                          f"(95 % interval {low} to {high})")
    if weakness:
        return UNPROVEN, weakness
    if math.isnan(outlying.value):
        return UNPROVEN, f"the out-of-distribution score of {detector} is missing: {outlying.reason}"
    return _judge_representations(share, outlying, detector, thresholds.out)


def _judge_representations(share: str, outlying: Estimate, detector: str, out: float) -> tuple[str, str]:
    """Decide the verdict of a cell that works with relative accuracy `share`."""
    lower, ends = round(1 - out, 9), _find_ends(outlying)
    # Comparing 1 - x with out avoids a rounding error: 1 - 0.2 is 0.8, but 1 - 0.8 is not 0.2.
    reaches_out, reaches_lower = ends[1] >= out, 1 - ends[0] >= out
    near = out if reaches_out or (not reaches_lower and outlying.value >= 0.5) else lower
    score, low, high = (format_near(x, near) for x in (outlying.value, *ends))
    if ends[0] >= out:
        return ARTEFACT, (f"the stitched network works (relative accuracy {share}), but its representations "
                          f"are out of distribution (two-sided AUROC of {detector} {score}, at least "
                          f"{out:g})")
    if 1 - ends[1] >= out:
        return ARTEFACT, (f"the stitched network works (relative accuracy {share}), but its representations "
                          f"are more typical than native ones (two-sided AUROC of {detector} {score}, at "
                          f"most {lower:g})")
    if reaches_out or reaches_lower:
        return UNPROVEN, (f"two-sided AUROC of {detector} {score} is not clearly above or below {near:g} "
                          f"(95 % interval {low} to {high})")
    return SIMILAR, (f"the stitched network works (relative accuracy {share}), and its representations look "
                     f"like native ones (two-sided AUROC of {detector} {score})")


def _find_ends(estimate: Estimate) -> tuple[float, float]:
    """Find the lowest and the highest number of value and interval."""
    known = [x for x in (estimate.value, estimate.low, estimate.high) if not math.isnan(x)]
    return min(known), max(known)


def explain_weakness(quality: Mapping[str, float | None], detector: str, least: float) -> str:
    """Say why a detector proves nothing at a site; return "" where it does.

    It proves nothing where the worse of its two-sided AUROCs on ``"auxiliary"`` and ``"unseen"`` data is
    below `least`, or where `quality` has neither.
    """
    there = {kind: float(v) for kind in ("auxiliary", "unseen")
             if (v := quality.get(kind)) is not None and not math.isnan(v)}
    if not there:
        return f"no auxiliary data test the detector {detector} at this site"
    kind = min(there, key=there.__getitem__)
    if there[kind] >= least:
        return ""
    return (f"the detector {detector} is too weak at this site: its AUROC on {kind} data is "
            f"{format_near(there[kind], least)}, below {least:g}")


def format_near(value: float, threshold: float, digits: int = 2) -> str:
    """Format a number with enough digits to show on which side of a threshold it is, at least `digits`."""
    for places in range(digits, 17):
        text = f"{value:.{places}f}"
        if (float(text) < threshold, float(text) > threshold) == (value < threshold, value > threshold):
            return text
    return repr(float(value))


def get_detector(meta: Mapping[str, Any]) -> str:
    """Return the detector that verdicts rest on, from a comparison's meta; "" where none was run."""
    return str((meta.get("ood") or {}).get("verdict", ""))


def get_thresholds(about: Mapping[str, Any]) -> Thresholds:
    """Return the thresholds in ``meta["ood"]`` of a comparison."""
    return Thresholds(**about.get("thresholds", {}))


def judge_cells(measured: Measured, method: str) -> CellVerdicts:
    """Judge every cell of a method.

    Raises:
        SutureError: no such method, or the comparison lacks the numbers.
    """
    if method not in METHOD_NAMES:
        raise make_unknown_error("method", method, METHOD_NAMES)
    needed = _list_needed_measures(method, measured.meta)
    absent = [name for name in needed if name not in measured.measures]
    if absent:
        raise SutureError(f"no verdicts of {method!r}: {absent[0]!r} is not in this comparison; compare with "
                          f'methods=({method!r},), labels and ood=suture.OOD(detectors=("mahalanobis",))')
    about, detector = measured.meta["ood"], get_detector(measured.meta)
    thresholds = get_thresholds(about)
    weak = [explain_weakness(q, detector, thresholds.quality)
            for q in about["quality"].get(detector, [{}] * len(measured.targets))]
    accuracies, outlying = (_collect_estimates(measured, name) for name in needed)
    marks = measured.marks(needed[0]).to_numpy()
    words, reasons = np.empty(marks.shape, dtype=object), np.empty(marks.shape, dtype=object)
    for i, j in np.ndindex(marks.shape):
        words[i, j], reasons[i, j] = judge_cell(accuracies[i][j], outlying[i][j], weak[j], str(marks[i, j]),
                                                detector, thresholds)
    return CellVerdicts(label_cells(measured, words), label_cells(measured, reasons),
                        _describe_counts(method, words.ravel().tolist(), detector))


def _collect_estimates(measured: Measured, name: str) -> list[list[Estimate]]:
    """Collect the estimates of a measure, as rows of source sites."""
    columns = [measured.matrix(name, what).to_numpy().tolist() for what in ("value", "low", "high", "reason")]
    return [[Estimate(*cell) for cell in zip(*row, strict=True)] for row in zip(*columns, strict=True)]


def _list_needed_measures(method: str, meta: Mapping[str, Any]) -> tuple[str, str]:
    return f"{method}.relative_accuracy", f"{method}.ood_{get_detector(meta)}"


def _describe_counts(method: str, words: list[str], detector: str) -> str:
    artefact, similar, dissimilar, unproven = map(words.count, (ARTEFACT, SIMILAR, DISSIMILAR, UNPROVEN))
    return (f"{METHOD_NAMES[method].capitalize()}: {artefact} artefact, {similar} similar, {dissimilar} "
            f"dissimilar, {unproven} unproven, of {len(words)} cells (detector {detector}). An artefact "
            "works, but is out of distribution.")


def judge_methods(measured: Measured) -> dict[str, CellVerdicts]:
    """Judge the cells of every method that the comparison has the numbers for."""
    return {method: judge_cells(measured, method) for method in METHOD_NAMES
            if set(_list_needed_measures(method, measured.meta)) <= set(measured.measures)}


def find_artefacts(measured: Measured) -> dict[str, pd.DataFrame]:
    """Find the artefacts of each method that has verdicts: booleans (sources, targets)."""
    return {method: found.words == ARTEFACT for method, found in judge_methods(measured).items()}
