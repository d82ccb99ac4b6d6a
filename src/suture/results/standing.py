"""The standing of a comparison: by which measure its cells work, and why its numbers may be meaningless."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from suture.numbers import CHANCE_LEVEL, METHOD_NAMES, Estimate, is_above_chance
from suture.ood import Thresholds
from suture.results.measured import Measured, take_cells

_WORDS = {"relative_accuracy": "relative accuracy", "agreement": "agreement",
          "output_error": "relative error of the output"}
"""Quantities by which a stitched network works, the first that a comparison has."""


LEAST_ERROR = 1e-6
"""Smallest 1 - R² of outputs that is more than rounding."""


@dataclass(frozen=True)
class Criterion:
    """The measure by which a stitched network works.

    Attributes:
        quantity: its name without the method.
        limit: the worst value of a network that works.
        trivial: value that the best constant output reaches; nan if unknown.
    """

    quantity: str
    limit: float
    trivial: float = math.nan

    @property
    def words(self) -> str:
        """Name of the measure in sentences."""
        return _WORDS[self.quantity]

    @property
    def smaller(self) -> bool:
        """True if smaller values are better."""
        return self.quantity == "output_error"

    @property
    def rule(self) -> str:
        """What works, as in ``a relative accuracy of at least 0.8``."""
        return self.name_value(f"at {'most' if self.smaller else 'least'} {self.limit:g}")

    def name_value(self, value: str) -> str:
        """Return a value with its name, as in ``an agreement of 0.95``."""
        return f"a{'n' * self.words.startswith('a')} {self.words} of {value}"

    @property
    def is_trivial(self) -> bool:
        """True if a constant output works."""
        return self._orient(self.trivial) >= self._orient(self.limit)

    def _orient(self, value: float) -> float:
        return -value if self.smaller else value

    def decide(self, value: Estimate, mark: str = "") -> tuple[bool | None, str]:
        """Return whether a stitched network works, None if that is not proven, and the reason.

        Args:
            value: the measure of its cell.
            mark: reason why its layer has not converged; empty if it has.
        """
        if math.isnan(value.value):
            return None, f"the {self.words} is missing: {value.reason}"
        limit, ends = self._orient(self.limit), find_ends(value)
        shown, low, high = (format_near(x, self.limit) for x in (value.value, *ends))
        worst, best = sorted(map(self._orient, ends))
        fails = f"{self.words} {shown} is {'above' if self.smaller else 'below'} {self.limit:g}"
        if self._orient(value.value) < limit and mark:
            return None, f"{fails}, but the stitching layer cannot be judged yet ({mark})"
        if best < limit:
            return False, fails
        if worst < limit:
            return None, (f"{self.words} {shown} is not clearly above or below {self.limit:g} "
                          f"(95 % interval {low} to {high})")
        if worst <= self._orient(self.trivial):
            return None, (f"{self.words} {shown} (95 % interval {low} to {high}) is not clearly better than "
                          f"{self.trivial:.4g}, which a constant output reaches")
        return True, f"{self.words} {shown}"


@dataclass(frozen=True)
class Standing:
    """What the numbers of a comparison stand on.

    Attributes:
        criteria: by which measure the cells of each method work; a method without one is left out.
        flaw: why relative numbers are meaningless and no cell can be judged; empty if they are not.
        line: the first line of everything that is said of the comparison; empty if all is as usual.
    """

    criteria: Mapping[str, Criterion]
    flaw: str
    line: str


def find_standing(measured: Measured) -> Standing:
    """Return the standing of a comparison.

    Cells work by relative accuracy; without labels by agreement with the target network's predictions;
    without predictions by the relative error of the output. A result without counts of labels and
    predictions (of an earlier version) has no flaw and no trivial values.
    """
    criteria = {method: made for method in METHOD_NAMES
                if (made := _find_criterion(measured, method)) is not None}
    chance = measured.meta.get("chance") or {}
    cause, line = _find_flaw(chance)[0], describe_flaw(chance)
    warning = str(measured.meta.get("warning", ""))
    lines = [line or _describe_criteria(measured, criteria),
             warning and f"{warning[0].upper()}{warning[1:]}."]
    return Standing(criteria, cause[:1].lower() + cause[1:], " ".join(filter(None, lines)))


def describe_flaw(chance: Mapping[str, Any]) -> str:
    """Return the line that says that the target network is not above chance on its test data; "" if it is.

    Chance is the share of the most frequent label, which a constant output reaches. The test is
    `suture.numbers.is_above_chance`.

    Args:
        chance: counts of test examples or tokens: ``scored``, ``hits`` of the target network, ``label`` (the
            most frequent one), ``prediction`` (likewise), and ``unit``. Without hits and labels nothing is
            known.
    """
    cause, rest = _find_flaw(chance)
    return f"{cause}: {rest}" if cause else ""


def _find_flaw(chance: Mapping[str, Any]) -> tuple[str, str]:
    """Return why relative numbers are meaningless, and the rest of the line; empty texts if they are not."""
    n, hits, most = (chance.get(name) for name in ("scored", "hits", "label"))
    if not n or hits is None or most is None or is_above_chance(hits, n, most):
        return "", ""
    accuracy, share, unit = hits / n, most / n, chance.get("unit", "examples")
    common = "largest class" if unit == "examples" else "most frequent token"
    reached = f"(accuracy {format_near(accuracy, share)}, {common} {share:.2f})"
    meaningless = "every relative number below is meaningless."
    if most == n:
        return (f"All {n} test {unit} have the same label, which a constant output gets right (accuracy of "
                f"the target network {accuracy:.2f})", f"{meaningless} Check the labels.")
    if share**n >= CHANCE_LEVEL:
        return (f"{n} test {unit} are too few to tell the target network from chance {reached}",
                "relative numbers below prove nothing. Give more.")
    state = "at chance" if hits <= most else "not clearly above chance"
    return (f"The target network is {state} on its own test data {reached}",
            f"{meaningless} Check labels and preprocessing.")


def _find_criterion(measured: Measured, method: str) -> Criterion | None:
    there = [q for q in _WORDS if f"{method}.{q}" in measured.measures]
    if len(there) > 1 and not _is_labelled(measured, method):
        there = there[1:]
    if not there:
        return None
    works = get_thresholds(measured.meta.get("ood") or {}).works
    quantity, counts = there[0], measured.meta.get("chance") or {}
    if quantity == "output_error":
        return Criterion(quantity, round(1 - works, 9), _find_constant_error(measured, method))
    of, whole = ("label", "hits") if quantity == "relative_accuracy" else ("prediction", "scored")
    known = counts.get(of) is not None and counts.get(whole)
    return Criterion(quantity, works, counts[of] / counts[whole] if known else math.nan)


def _is_labelled(measured: Measured, method: str) -> bool:
    name = f"{method}.relative_accuracy"
    return name in measured.measures and ("target.correct" in measured.arrays
                                          or not np.isnan(take_cells(measured, name)).all())


def _find_constant_error(measured: Measured, method: str) -> float:
    """Return the relative error of the mean output, which follows from the error and R² of any cell.

    With o the outputs, error² is sum |o_s - o_t|² / sum |o_t|²; 1 - R² is the same over sum |o_t - mean|².
    The cell of the largest error has most digits.
    """
    if f"{method}.output_r2" not in measured.measures:
        return math.nan
    errors, r2s = (take_cells(measured, f"{method}.{q}").ravel() for q in ("output_error", "output_r2"))
    found = [(e, e / math.sqrt(1 - r2)) for e, r2 in zip(errors, r2s, strict=True) if 1 - r2 > LEAST_ERROR]
    return float(max(found, default=(0.0, math.nan))[1])


def _describe_criteria(measured: Measured, criteria: Mapping[str, Criterion]) -> str:
    """Return the line on how cells are judged; "" if they are judged as usual, or not at all."""
    if not has_range(measured.meta):
        return ""
    if not criteria:
        methods = {name.partition(".")[0] for name in measured.measures} & set(METHOD_NAMES)
        return ("The target network has no predictions, and its outputs were not compared: no cell can be "
                "judged.") if methods else ""
    by = next(iter(criteria.values()))
    why = (measured.meta.get("output") or {}).get("why")
    whose = {"relative_accuracy": "",
             "output_error": f"The target network has no predictions{f' ({why})' if why else ''}",
             "agreement": "The test data have no labels"}[by.quantity]
    parts = [f"{whose}: a stitched network works by {by.rule}"
             f"{' with the predictions of the target network' * (by.quantity == 'agreement')}."] * bool(whose)
    if by.quantity == "agreement" and by.trivial == 1:
        parts.append("The target network predicts one class throughout, as a constant output does. Check "
                     "preprocessing.")
    elif by.is_trivial:
        parts.append(f"A constant output reaches {by.name_value(f'{by.trivial:.2f}')}: only cells that are "
                     "clearly better work.")
    return " ".join(parts)


def has_range(meta: Mapping[str, Any]) -> bool:
    """Return True if a comparison has natural ranges, on which verdicts of cells rest."""
    return "range" in (meta.get("ood") or {})


def get_thresholds(about: Mapping[str, Any]) -> Thresholds:
    """Return the thresholds in ``meta["ood"]``, of which earlier versions had more."""
    works = about.get("thresholds", {}).get("works")
    return Thresholds() if works is None else Thresholds(works)


def find_ends(estimate: Estimate) -> tuple[float, float]:
    """Return the ends of an estimate's interval and its value, the smallest and the largest."""
    known = [x for x in (estimate.value, estimate.low, estimate.high) if not math.isnan(x)]
    return min(known), max(known)


def format_near(value: float, threshold: float, digits: int = 2) -> str:
    """Format a number with at least `digits` decimals, and enough to show its side of the threshold."""
    for places in range(digits, 17):
        text = f"{value:.{places}f}"
        if (float(text) < threshold, float(text) > threshold) == (value < threshold, value > threshold):
            return text
    return repr(float(value))
