"""Verdicts of cells (similar, dissimilar, artefact, unproven), and sentences that summarise a comparison."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from suture._base import SutureError, make_unknown_error
from suture.numbers import METHOD_NAMES, Estimate
from suture.ood import Thresholds
from suture.results.measured import Measured, label_cells
from suture.results.sanity import Verdict, is_clean, run_sanity_battery
from suture.results.standing import (
    Criterion,
    Standing,
    find_ends,
    find_standing,
    format_near,
    get_detector,
    get_thresholds,
)

if TYPE_CHECKING:
    import pandas as pd

SIMILAR, DISSIMILAR, ARTEFACT, UNPROVEN = "similar", "dissimilar", "artefact", "unproven"
NATIVE = "the stitched representations are the native ones, up to rounding"
SAME = 1e-6
"""Share of the variance by which representations may differ for rounding alone."""
VERDICTS = (SIMILAR, ARTEFACT, DISSIMILAR, UNPROVEN)


@dataclass(frozen=True, eq=False)
class CellVerdicts:
    """Verdicts of all cells of one method: one of `VERDICTS` and a sentence per cell, and a sentence on all.

    Rows are source sites, columns target sites.
    """

    words: pd.DataFrame
    reasons: pd.DataFrame
    counts: str


def judge_cell(value: Estimate, outlying: Estimate, weakness: str, mark: str, detector: str,
               thresholds: Thresholds, by: Criterion | None = None) -> tuple[str, str]:
    """Return the verdict of a cell, and the reason in one sentence.

    - A cell works if its relative accuracy is at least ``works``; without labels, its agreement; without
      predictions, if the relative error of its output is at most 1 - ``works`` (`find_standing`). Otherwise
      it is *dissimilar*, or *unproven* if its layer has not converged and so may still come to work.
    - A working cell is *unproven* where the detector is too weak at its target site.
    - A working cell is an *artefact* if its representations are out of distribution: the two-sided AUROC is
      at least ``out``, or at most 1 - ``out``. In the latter case they crowd in the middle of the native
      scores.
    - Any other working cell is *similar*.
    - A mark leaves the verdict of a working cell as it is, because the layer exists; the reason names it.
    - A cell is *unproven* where a number is missing, where its 95 % interval contains a threshold, or where
      a constant output is as good. (`judge_cells` knows one exception: representations that equal the native
      ones are *similar*.)

    Args:
        value: the measure by which it works.
        outlying: two-sided AUROC of the detector's scores, in [0, 1]; 0.5 means indistinguishable.
        weakness: result of `explain_weakness` for the target site.
        mark: reason why the layer has not converged; empty if it has.
        detector: name of the detector, for the sentence.
        thresholds: see `Thresholds`.
        by: by which measure it works. Default: relative accuracy.
    """
    works, why = (by or Criterion("relative_accuracy", thresholds.works)).decide(value, mark)
    if not works:
        return (UNPROVEN if works is None else DISSIMILAR), why
    if weakness:
        return UNPROVEN, weakness
    if math.isnan(outlying.value):
        return UNPROVEN, f"the out-of-distribution score of {detector} is missing: {outlying.reason}"
    word, reason = _judge_representations(why, outlying, detector, thresholds.out)
    return word, reason + (f"; the cell is marked ({mark})" if mark else "")


def _judge_representations(works: str, outlying: Estimate, detector: str, out: float) -> tuple[str, str]:
    lower, ends = round(1 - out, 9), find_ends(outlying)
    # Compares 1 - x with `out` because of rounding: 1 - 0.2 is 0.8, but 1 - 0.8 is not 0.2.
    reaches_out, reaches_lower = ends[1] >= out, 1 - ends[0] >= out
    near = out if reaches_out or (not reaches_lower and outlying.value >= 0.5) else lower
    score, low, high = (format_near(x, near) for x in (outlying.value, *ends))
    if ends[0] >= out:
        return ARTEFACT, (f"the stitched network works ({works}), but its representations "
                          f"are out of distribution (two-sided AUROC of {detector} {score}, at least "
                          f"{out:g})")
    if 1 - ends[1] >= out:
        return ARTEFACT, (f"the stitched network works ({works}), but its representations "
                          f"are more typical than native ones (two-sided AUROC of {detector} {score}, at "
                          f"most {lower:g})")
    if reaches_out or reaches_lower:
        return UNPROVEN, (f"two-sided AUROC of {detector} {score} is not clearly above or below {near:g} "
                          f"(95 % interval {low} to {high})")
    return SIMILAR, (f"the stitched network works ({works}), and its representations look "
                     f"like native ones (two-sided AUROC of {detector} {score})")


def explain_weakness(quality: Mapping[str, float | None], detector: str, least: float) -> str:
    """Return the reason why a detector proves nothing at a site; "" if it is strong enough.

    `quality` holds its two-sided AUROCs on ``"auxiliary"`` and ``"unseen"`` data. At least one must be there,
    and the worse must reach `least`.
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


def judge_cells(measured: Measured, method: str) -> CellVerdicts:
    """Return the verdict of every cell of a method."""
    if method not in METHOD_NAMES:
        raise make_unknown_error("method", method, METHOD_NAMES)
    standing = find_standing(measured)
    needed = _list_needed_measures(standing, method, measured.meta)
    absent = [name for name in needed if name not in measured.measures]
    if absent:
        raise SutureError(f"no verdicts of {method!r}: {absent[0]!r} is not in this comparison; compare with "
                          f'methods=({method!r},), labels and ood=suture.OOD(detectors=("mahalanobis",))')
    about, detector = measured.meta["ood"], get_detector(measured.meta)
    thresholds, by = get_thresholds(about), standing.criteria[method]
    weak = [explain_weakness(q, detector, thresholds.quality)
            for q in about["quality"].get(detector, [{}] * len(measured.targets))]
    values, outlying = (_collect_estimates(measured, name) for name in needed)
    marks = measured.marks(needed[0]).to_numpy()
    words, reasons = np.empty(marks.shape, dtype=object), np.empty(marks.shape, dtype=object)
    native = _find_native(measured, method)
    for i, j in np.ndindex(marks.shape):
        words[i, j], reasons[i, j] = (UNPROVEN, standing.flaw) if standing.flaw else judge_cell(
            values[i][j], outlying[i][j], weak[j], str(marks[i, j]), detector, thresholds, by)
        if words[i, j] == UNPROVEN and not standing.flaw and native[i, j]:
            words[i, j], reasons[i, j] = SIMILAR, NATIVE
    return CellVerdicts(label_cells(measured, words), label_cells(measured, reasons),
                        _describe_counts(method, words.ravel().tolist(), detector,
                                         int(((marks != "") & (words != UNPROVEN)).sum())))


def _find_native(measured: Measured, method: str) -> NDArray[np.bool_]:
    """Find the cells whose stitched representations equal the native ones, which no detector need show."""
    name, shape = f"{method}.r2", (len(measured.sources), len(measured.targets))
    if name not in measured.measures:
        return np.zeros(shape, np.bool_)
    found: NDArray[np.bool_] = measured.matrix(name).to_numpy() >= 1 - SAME
    return found


def _collect_estimates(measured: Measured, name: str) -> list[list[Estimate]]:
    columns = [measured.matrix(name, what).to_numpy().tolist() for what in ("value", "low", "high", "reason")]
    return [[Estimate(*cell) for cell in zip(*row, strict=True)] for row in zip(*columns, strict=True)]


def _list_needed_measures(standing: Standing, method: str, meta: Mapping[str, Any]) -> tuple[str, str]:
    by = standing.criteria.get(method)
    quantity = "relative_accuracy" if by is None else by.quantity
    return f"{method}.{quantity}", f"{method}.ood_{get_detector(meta)}"


def _describe_counts(method: str, words: list[str], detector: str, marked: int) -> str:
    artefact, similar, dissimilar, unproven = map(words.count, (ARTEFACT, SIMILAR, DISSIMILAR, UNPROVEN))
    return (f"{METHOD_NAMES[method].capitalize()}: {artefact} artefact, {similar} similar, {dissimilar} "
            f"dissimilar, {unproven} unproven, of {len(words)} cells (detector {detector}). An artefact "
            "works, but is out of distribution."
            + (f" Of those that are not unproven, {marked} are marked." if marked else ""))


def judge_methods(measured: Measured) -> dict[str, CellVerdicts]:
    """Return the verdicts of every method whose numbers the comparison has."""
    standing = find_standing(measured)
    return {method: judge_cells(measured, method) for method in standing.criteria
            if set(_list_needed_measures(standing, method, measured.meta)) <= set(measured.measures)}


def find_artefacts(measured: Measured) -> dict[str, pd.DataFrame]:
    """Return for each method that has verdicts which cells are artefacts: booleans (sources, targets)."""
    return {method: found.words == ARTEFACT for method, found in judge_methods(measured).items()}


@dataclass(frozen=True, eq=False)
class Findings:
    """Findings of the sanity battery and verdicts of the cells, as sentences.

    Attributes:
        first: what to read before all else; see `suture.results.standing.Standing`.
        shown: sentences on measures that fail, that cannot be judged, or that rest on marked cells.
        passed: sentences on measures that pass.
        summary: number of measures that pass, in one line; empty if none does.
        gap: see `Verdict`.
        cells: one sentence for each method with verdicts.
        verdict: result of the sanity battery.
        methods: verdicts of the cells by method.
    """

    first: str
    shown: tuple[str, ...]
    passed: tuple[str, ...]
    summary: str
    gap: str
    cells: tuple[str, ...]
    verdict: Verdict
    methods: dict[str, CellVerdicts]


def summarise_findings(measured: Measured) -> Findings:
    """Summarise the verdicts of a comparison in sentences."""
    verdict, methods = run_sanity_battery(measured), judge_methods(measured)
    rows = verdict.table.to_dict("records")
    texts = verdict.words[bool(verdict.first):]
    # Without a table the only sentence gives the reason, so it is shown.
    show = [not is_clean(row) for row in rows] or [True] * len(texts)
    shown, passed = (tuple(words for words, on in zip(texts, show, strict=True) if on == wanted)
                     for wanted in (True, False))
    finding = ("every layer is most similar to itself" if measured.same_network else
               "every corresponding layer is the most similar one")
    summary = f"{len(passed)} of {len(show)} measures: {finding}." if passed else ""
    return Findings(verdict.first, shown, passed, summary, verdict.gap,
                    tuple(found.counts for found in methods.values()), verdict, methods)


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
