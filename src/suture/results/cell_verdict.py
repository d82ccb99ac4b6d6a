"""Verdict of a cell: similar, dissimilar, unproven, or an artefact.

An artefact solves the task with another representation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from suture._base import SutureError, make_unknown_error
from suture.numbers import Floats, Strings
from suture.ood import Thresholds
from suture.representations import Cell
from suture.results.report.compared import ComparisonLike
from suture.results.table import FLOAT_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

SIMILAR, DISSIMILAR, ARTEFACT, UNPROVEN = "similar", "dissimilar", "artefact", "unproven"
VERDICTS = (SIMILAR, ARTEFACT, DISSIMILAR, UNPROVEN)
"""Words for a cell, in the order in which counts are shown."""
METHOD_NAMES = {"dm": "Direct matching", "tlm": "Task loss matching"}

Quality = Mapping[str, float | None]
"""Two-sided AUROC of a detector at a site on ``"auxiliary"`` and ``"unseen"`` data.

It is None without such data.
"""


@dataclass(frozen=True, eq=False)
class CellValues:
    """One measure of all cells, each array (sources, targets).

    Attributes:
        value: NaN where there is none.
        low, high: ends of the 95 % interval; NaN where there is none.
        reason: why there is no value; else empty.
    """

    value: Floats
    low: Floats
    high: Floats
    reason: Strings

    @property
    def span(self) -> tuple[Floats, Floats]:
        """Lowest and highest number of value and interval; the value alone without an interval."""
        return np.fmin(self.low, self.value), np.fmax(self.high, self.value)


def decide_verdicts(relative: CellValues, outlying: CellValues, quality: Sequence[Quality], marks: Strings,
                    detector: str, thresholds: Thresholds) -> tuple[Strings, Strings]:
    """Decide the verdict of each cell, and give one sentence why.

    - A cell that does not work (relative accuracy below ``works``) is *dissimilar*. It is *unproven* where
      the layer is marked as not converged, because it might still come to work. A layer that works, works,
      converged or not.
    - A cell that works is *unproven* where the detector, at that target site, does not tell native
      representations from auxiliary and unseen ones. This is so where the worse of the available two-sided
      AUROCs is below ``quality``, or none is available.
    - Else it is an *artefact* where its representations are out of distribution: two-sided AUROC of ``out``
      or more, or of 1 - ``out`` or less. The latter means that they are crowded at the middle of the native
      scores, which is a difference too.
    - Else it is *similar*.
    - Any cell is *unproven* where a 95 % interval holds a threshold, so that its ends give different words,
      and where a number is missing.

    A value equal to a threshold reaches it.

    Args:
        relative: relative accuracies.
        outlying: two-sided AUROCs of the detector's scores, in [0, 1], 0.5 where nothing tells them apart.
        quality: quality of the detector, by target site.
        marks: (sources, targets) why a layer has not converged; empty where it has.
        detector: its name, for the sentences.
        thresholds: see `Thresholds`.

    Returns:
        Words and reasons, both (sources, targets).

    Raises:
        SutureError: arrays of different shapes.
    """
    shape = relative.value.shape
    if (outlying.value.shape, marks.shape, len(quality)) != (shape, shape, shape[1]):
        raise SutureError("expected grids and marks of one shape and a quality for each target site, got "
                          f"{shape}, {outlying.value.shape}, {marks.shape} and {len(quality)}")
    weak = np.array([_explain_weakness(q, detector, thresholds.quality) for q in quality], dtype=object)
    judged = _VerdictRules(relative, outlying, marks, np.broadcast_to(weak, shape), detector, thresholds)
    rules = judged.list_rules()
    first = np.argmax([holds for holds, _, _ in rules], axis=0)
    words, reasons = np.empty(shape, dtype=object), np.empty(shape, dtype=object)
    for cell in np.ndindex(shape):
        _, words[cell], say = rules[first[cell]]
        reasons[cell] = say(cell)
    return words, reasons


@dataclass(frozen=True, eq=False)
class _VerdictRules:
    """Rules of `decide_verdicts`, with the data they judge and the sentences they give."""

    relative: CellValues
    outlying: CellValues
    marks: Strings
    weak: Strings
    detector: str
    thresholds: Thresholds

    def list_rules(self) -> list[tuple[NDArray[np.bool_], str, Callable[[Cell], str]]]:
        """List the rules: where each holds, its word and its reason.

        The first rule that holds decides. One of them always holds.
        """
        works, out = self.thresholds.works, self.thresholds.out
        (least, most), (lowest, highest) = self.relative.span, self.outlying.span
        # Comparing 1 - highest with out avoids a rounding error: 1 - 0.2 is 0.8, but 1 - 0.8 is not 0.2.
        above, below = lowest >= out, 1 - highest >= out
        inside = (highest < out) & (1 - lowest < out)
        return [
            (np.isnan(self.relative.value), UNPROVEN,
             lambda c: f"no relative accuracy: {self.relative.reason[c]}"),
            ((self.relative.value < works) & (self.marks != ""), UNPROVEN,
             lambda c: f"{self._format_accuracy(c)} is below {works:g}, but the layer has not converged "
                       f"({self.marks[c]})"),
            (most < works, DISSIMILAR, lambda c: f"{self._format_accuracy(c)} is below {works:g}"),
            (least < works, UNPROVEN,
             lambda c: f"{self._format_accuracy(c)}: {_describe_interval(self.relative, c, works)}"),
            (self.weak != "", UNPROVEN, lambda c: str(self.weak[c])),
            (np.isnan(self.outlying.value), UNPROVEN,
             lambda c: f"no out-of-distribution score of {self.detector}: {self.outlying.reason[c]}"),
            (above, ARTEFACT, lambda c: f"works ({self._format_accuracy(c)}), but is out of distribution: "
                                        f"{self._format_auroc(c, out)} is at least {out:g}"),
            (below, ARTEFACT, lambda c: f"works ({self._format_accuracy(c)}), but is out of distribution: "
                                        f"{self._format_auroc(c, self._lower_threshold)} is at most "
                                        f"{self._lower_threshold:g}, more typical than native ones"),
            (inside, SIMILAR,
             lambda c: f"works ({self._format_accuracy(c)}) and looks like native representations "
                       f"({self._format_auroc(c, self._get_nearest_threshold(c))})"),
            (highest >= out, UNPROVEN,
             lambda c: f"{self._format_auroc(c, out)}: {_describe_interval(self.outlying, c, out)}"),
            (1 - lowest >= out, UNPROVEN,
             lambda c: f"{self._format_auroc(c, self._lower_threshold)}: "
                       f"{_describe_interval(self.outlying, c, self._lower_threshold)}"),
        ]

    @property
    def _lower_threshold(self) -> float:
        """Lower threshold of two-sided AUROC."""
        return round(1 - self.thresholds.out, 9)

    def _get_nearest_threshold(self, cell: Cell) -> float:
        return self.thresholds.out if self.outlying.value[cell] >= 0.5 else self._lower_threshold

    def _format_accuracy(self, cell: Cell) -> str:
        return f"relative accuracy {format_near(float(self.relative.value[cell]), self.thresholds.works)}"

    def _format_auroc(self, cell: Cell, threshold: float) -> str:
        return (f"two-sided AUROC of {self.detector} "
                f"{format_near(float(self.outlying.value[cell]), threshold)}")


def _explain_weakness(quality: Quality, detector: str, least: float) -> str:
    """Say why a detector proves nothing at a site; return "" where it does."""
    there = {kind: float(v) for kind in ("auxiliary", "unseen")
             if (v := quality.get(kind)) is not None and not math.isnan(v)}
    if not there:
        return f"no auxiliary data show what the detector {detector} sees at this site"
    kind = min(there, key=there.__getitem__)
    if there[kind] >= least:
        return ""
    return (f"the detector {detector} reaches only {format_near(there[kind], least)} on {kind} "
            "data at this site")


def _describe_interval(values: CellValues, cell: tuple[int, int], threshold: float) -> str:
    low, high = (float(ends[cell]) for ends in values.span)
    return (f"its interval {format_near(low, threshold)} to {format_near(high, threshold)} holds the "
            f"threshold {threshold:g}")


def format_near(value: float, threshold: float, digits: int = 2) -> str:
    """Format a number with enough digits to show on which side of a threshold it is, at least `digits`."""
    for places in range(digits, 17):
        text = f"{value:.{places}f}"
        if (float(text) < threshold, float(text) > threshold) == (value < threshold, value > threshold):
            return text
    return repr(float(value))


def count_verdicts(words: Strings) -> dict[str, int]:
    """Count the cells of each of `VERDICTS`."""
    found = [str(word) for word in np.asarray(words).ravel()]
    return {word: found.count(word) for word in VERDICTS}


def describe_verdicts(method: str, words: Strings, detector: str) -> str:
    """Describe a method's counts of verdicts in one quotable sentence; return "" where there are no cells.

    Args:
        method: ``"dm"`` or ``"tlm"``.
        words: verdicts of its cells.
        detector: detector that they rest on.
    """
    found, n = count_verdicts(words), int(np.size(words))
    if not n:
        return ""
    artefacts = found[ARTEFACT]
    verbs = "works but is" if artefacts < 2 else "work but are"
    rest = ", ".join(f"{found[word] or 'none'} {word}" for word in (SIMILAR, DISSIMILAR, UNPROVEN))
    return (f"{METHOD_NAMES[method]}: {artefacts or 'none'} of {n} {'cell' if n == 1 else 'cells'} {verbs} "
            f"out of distribution (artefact), {rest} (detector {detector}).")


def get_detector(meta: Mapping[str, Any]) -> str:
    """Return the detector that verdicts rest on, from a comparison's meta; "" where none was run."""
    return str((meta.get("ood") or {}).get("verdict", ""))


def list_needed_measures(method: str, meta: Mapping[str, Any]) -> tuple[str, str]:
    """List the measures that the verdicts of a method's cells are made from."""
    return f"{method}.relative_accuracy", f"{method}.ood_{get_detector(meta)}"


def get_thresholds(about: Mapping[str, Any]) -> Thresholds:
    """Return the thresholds in ``meta["ood"]`` of a comparison."""
    return Thresholds(**about.get("thresholds", {}))


def tabulate_verdicts(comparison: ComparisonLike, method: str, what: str) -> pd.DataFrame:
    """Tabulate the verdict of every cell, or its reason; see `Comparison.cells`."""
    import pandas as pd

    for kind, given, known in (("method", method, METHOD_NAMES), ("column", what, ("word", "reason"))):
        if given not in known:
            raise make_unknown_error(kind, given, known)
    names = list_needed_measures(method, comparison.meta)
    absent = [name for name in names if name not in comparison.measures]
    if absent:
        raise SutureError(f"expected relative accuracies and out-of-distribution scores of {method!r} in "
                          f"this comparison, {absent[0]!r} is not there; compare with "
                          f'methods=({method!r},), labels and ood=suture.OOD(detectors=("mahalanobis",))')
    about, detector = comparison.meta["ood"], get_detector(comparison.meta)
    relative, outlying = (CellValues(*(comparison.matrix(name, w).to_numpy()
                                       for w in (*FLOAT_COLUMNS, "reason"))) for name in names)
    words, reasons = decide_verdicts(
        relative, outlying, about["quality"].get(detector, [{}] * len(comparison.targets)),
        comparison.marks(names[0]).to_numpy(), detector, get_thresholds(about))
    return pd.DataFrame(words if what == "word" else reasons,
                        index=pd.Index(comparison.sources, name="source"),
                        columns=pd.Index(comparison.targets, name="target"))
