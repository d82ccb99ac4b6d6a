"""What a comparison found, in at most six sentences, the finding first."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suture._base import escape_controls
from suture.numbers import METHOD_NAMES, Bools, get_measure
from suture.ood import NaturalRange
from suture.results.inference.correspondence import (
    Correspond,
    describe_correspondence,
    measure_correspondence,
)
from suture.results.inference.noise import Contest
from suture.results.inference.nulls import LEVEL, count_above_chance
from suture.results.measured import Measured, describe_emptiness, take_cells
from suture.results.sanity import Verdict, find_contests, run_sanity_battery
from suture.results.standing import find_standing, has_range
from suture.results.unjudged import (
    advise_null,
    describe_one_cell,
    describe_values,
    describe_working,
    find_valued,
    shorten_name,
)
from suture.results.verdicts import (
    ARTEFACT,
    LABELS_ONLY,
    NOT_SHOWN,
    UNPROVEN,
    WORKING,
    CellVerdicts,
    count_verdicts,
    judge_methods,
)

LEADING = ("cka_debiased", "cka", "dm.r2", "tlm.r2")
"""Measures by which layers are said to correspond, where a comparison has them."""
MOST = 6
"""Largest number of sentences."""
BEYOND = "beyond what natural inputs reach"
Words = NDArray[Any]
"""Verdicts of the unmarked cells of a method that have a value."""


@dataclass(frozen=True, eq=False)
class Findings:
    """What a comparison found.

    No sentence rests on marked cells.

    Attributes:
        first: how cells are judged if that is not as usual, or what makes the rest meaningless; else empty.
        sentences: at most six with those of `first`, the finding before its details, what to do next at the
            end.
        verdict: result of the sanity battery.
        methods: verdicts of the cells by method.
    """

    first: str
    sentences: tuple[str, ...]
    verdict: Verdict
    methods: dict[str, CellVerdicts]

    @property
    def details(self) -> tuple[str, ...]:
        """A sentence for each measure of the sanity battery, without `first`."""
        return self.verdict.words[bool(self.verdict.first):]

    @property
    def all(self) -> tuple[str, ...]:
        """All sentences."""
        return (*([self.first] if self.first else []), *self.sentences)

    def __repr__(self) -> str:
        """Return the sentences, one a line."""
        return "\n".join(map(escape_controls, self.all))

    def _repr_html_(self) -> str | None:
        from suture.results.notebook import render_findings, show_in_notebook

        return show_in_notebook(lambda: render_findings(self))


def summarise_findings(measured: Measured, correspond: Correspond = None) -> Findings:
    """Summarise a comparison in at most six sentences.

    Args:
        correspond: which sites of two networks correspond (`suture.results.inference.correspondence`).
    """
    standing, verdict = find_standing(measured), run_sanity_battery(measured)
    methods = judge_methods(measured)
    if standing.flaw:
        return Findings(standing.line, ("Mend this first: nothing below says anything until then.",), verdict,
                        methods)
    if empty := describe_emptiness(measured):
        return Findings(standing.line, (empty,), verdict, methods)
    claims = {m: found.words.to_numpy()[~_find_marked(measured, m) & find_valued(measured, m)]
              for m, found in methods.items()}
    one = len(measured.sources) == len(measured.targets) == 1
    parts = [*(describe_one_cell(measured, methods) if one else _describe_methods(measured, methods, claims)),
             "" if methods else describe_working(measured),
             _find_telling_pair(measured, methods), _describe_range(measured, methods),
             _describe_chance(measured),
             _describe_layers(measured, verdict), _describe_correspondence(measured, correspond)]
    if not any(parts):
        parts = [describe_values(measured, LEADING)]
    last = _advise(measured, methods, claims)
    room = MOST - len(re.findall(r"\.(?: |$)", standing.line)) - bool(last)
    shown = [part for part in parts if part][:max(0, room)]
    return Findings(standing.line, (*shown, *([last] if last else [])), verdict, methods)


def _describe_methods(measured: Measured, methods: Mapping[str, CellVerdicts],
                      claims: Mapping[str, Words]) -> list[str]:
    """Say how many unmarked cells work by each method, and what they are."""
    if len(claims) < 2 or not all(map(len, claims.values())):
        return [_describe_method(measured, methods[m], claims[m]) for m in ("tlm", "dm") if m in methods]
    tlm, dm = claims["tlm"], claims["dm"]
    counts = [f"{METHOD_NAMES[m]} {_list_verdicts(measured, methods[m], claims[m])}" for m in ("tlm", "dm")]
    works = {m: _count_working(measured, methods[m], claims[m]) for m in claims}
    return [f"Task loss matching makes {works['tlm']} work, {_count(tlm, ARTEFACT) or 'none'} of them as "
            f"artefacts ({BEYOND}); direct matching {works['dm'].removesuffix(' cells')}, "
            f"{_count(dm, ARTEFACT) or 'none'} of them.", f"Cells: {'; '.join(counts)}."]


def _describe_method(measured: Measured, found: CellVerdicts, words: Words) -> str:
    name, size = METHOD_NAMES[found.method].capitalize(), found.words.size
    if size and not len(words):
        if not _find_marked(measured, found.method).any():
            return f"{name} is unknown: none of {size} cells has a value ({found.reasons.to_numpy()[0, 0]})."
        trouble = "has not converged" if found.method == "tlm" else "does not generalise"
        return f"{name} {trouble} in any of {size} cells, so that its numbers say nothing yet."
    counts = re.sub("artefacts?", rf"\g<0> ({BEYOND})", _list_verdicts(measured, found, words))
    return f"{name} makes {_count_working(measured, found, words)} work; the verdicts: {counts}."


def _count_working(measured: Measured, found: CellVerdicts, words: Words) -> str:
    sort = ("" if len(words) == found.words.size else
            "measured " if not _find_marked(measured, found.method).any() else
            "converged " if found.method == "tlm" else "unmarked ")
    return f"{_count(words, *WORKING)} of {len(words)} {sort}cells"


def _list_verdicts(measured: Measured, found: CellVerdicts, words: Words) -> str:
    lost = int((~find_valued(measured, found.method)).sum())
    marked = found.words.size - len(words) - lost
    trouble = "not converged" if found.method == "tlm" else "not generalising"
    return ", ".join(filter(None, [count_verdicts(words), f"{marked} {trouble}" * bool(marked),
                                   f"{lost} without a value" * bool(lost)]))


def _count(words: Words, *of: str) -> int:
    return int(np.isin(words, of).sum())


def _find_marked(measured: Measured, method: str) -> Bools:
    """Return which cells of a method are marked (sources, targets): they carry no claim."""
    quantity = find_standing(measured).criteria[method].quantity
    return np.asarray(take_cells(measured, f"{method}.{quantity}", "mark") != "", bool)


def _find_telling_pair(measured: Measured, methods: Mapping[str, CellVerdicts]) -> str:
    """Name the artefact of task loss matching that direct matching contradicts most."""
    if "tlm" not in methods:
        return ""
    by = find_standing(measured).criteria["tlm"]
    value = take_cells(measured, f"tlm.{by.quantity}")
    sign, other = -1 if by.smaller else 1, None
    gap = sign * value
    if "dm" in methods:
        other = take_cells(measured, f"dm.{by.quantity}")
        gap = np.where(_find_marked(measured, "dm"), math.nan, gap - sign * other)
    usable = (methods["tlm"].words == ARTEFACT).to_numpy() & ~_find_marked(measured, "tlm") & ~np.isnan(gap)
    if not usable.any():
        return ""
    best = int(np.argmax(np.where(usable, gap, -np.inf)))
    i, j = map(int, np.unravel_index(best, value.shape))
    far = {m: _round(take_cells(measured, f"{m}.natural_distance")[i, j]) for m in methods}
    rest = "" if other is None else f"; by direct matching {other[i, j]:.2f}, at {far['dm']}"
    place = f"{shorten_name(measured.sources[i])} into {shorten_name(measured.targets[j])}"
    return (f"Most telling, {place}: by task loss matching {by.words} {value[i, j]:.2f}, at {far['tlm']} "
            f"times what natural inputs reach{rest}.")


def _round(value: float) -> str:
    """Format a positive number with two digits, and at most two places, as in 410, 15, 2.1 and 0.09."""
    return "no known distance" if math.isnan(value) else f"{round(float(f'{value:.2g}'), 2):g}"


def _describe_range(measured: Measured, methods: Mapping[str, CellVerdicts]) -> str:
    """Say at how many target sites the natural range is missing, or open-ended where there are artefacts."""
    if not methods or not has_range(measured.meta):
        return ""
    found, sites = NaturalRange.from_record(measured.meta["ood"]["range"]), range(len(measured.targets))
    if reasons := [reason for j in sites if (reason := found.find_outer(j)[0].reason)]:
        return (f"No natural range at {len(reasons)} of {len(sites)} target sites ({reasons[0]}): cells that "
                "work there stay open.")
    artefacts = np.concatenate([(of.words == ARTEFACT).to_numpy() for of in methods.values()])
    shifts = [found.find_outer(j)[1] for j in sites if found.is_open(j) and artefacts[:, j].any()]
    return (f"The natural range is open-ended at {len(shifts)} target sites with artefacts: the network "
            f"works under the strongest {shifts[0]}." if shifts else "")


def _describe_layers(measured: Measured, verdict: Verdict) -> str:
    """Say in one sentence by how many measures of each kind every layer is nearest to itself.

    What rests on marked cells counts for nothing.
    """
    if not measured.same_network:
        return ""
    judged = [name for name in measured.measures if get_measure(name).judged]
    parts = list(filter(None, (
        _count_measures(kind, {name: find_contests(measured, name) for name in judged
                               if name.rpartition(".")[0] == tag})
        for tag, kind in {"": "", **METHOD_NAMES}.items())))
    if not parts:
        return ""
    rows = verdict.table
    tested = rows["beyond_noise"].notna() & (rows["violated"] > 0)
    weak = tested.any() and not rows.loc[tested, "beyond_noise"].any()
    named = " and ".join([*filter(None, [", ".join(parts[:-1])]), parts[-1]])
    return (f"Each layer is nearest to itself by {named}"
            f"{' (accuracies tie within noise)' if weak else ''}.")


def _count_measures(kind: str, contests: Mapping[str, Sequence[Contest]]) -> str:
    """Count the measures by which every layer is nearest to itself, of those that marks leave decided."""
    held = [bool(of) and not any(c.lost or c.marked for c in of) for of in contests.values()]
    lost = [name for name, of in contests.items() if any(c.lost and not c.marked for c in of)]
    decided = sum(held) + len(lost)
    if not decided:
        return ""
    but = f" (not {', '.join(lost)})" if not kind and 0 < len(lost) <= 2 and any(held) else ""
    number = f"{sum(held)} of {decided}" if lost else "the only" if decided == 1 else f"all {decided}"
    noun = ("measure", "measures") if kind else ("index", "indices")
    return f"{number} {noun[decided > 1]}{f' of {kind}' * bool(kind)}{but}"


def _describe_correspondence(measured: Measured, correspond: Correspond) -> str:
    """Say how well the layers of two networks correspond, by the leading measure of each kind."""
    if measured.same_network or len(measured.sources) < 2:
        return ""
    seed = int(measured.meta.get("seed") or 0)
    every = (measure_correspondence(measured, name, correspond, seed) for name in _choose_leading(measured))
    found = [of for of in every if of.layers]
    return describe_correspondence(found) if found else ""


def _choose_leading(measured: Measured) -> list[str]:
    """Choose the first measure of each kind in `LEADING`, or else the first of that kind."""
    chosen = []
    for tag in ("", *METHOD_NAMES):
        there = [name for name in measured.measures
                 if name.rpartition(".")[0] == tag and get_measure(name).judged]
        chosen += [name for name in LEADING if name in there][:1] or there[:1]
    return chosen


def _describe_chance(measured: Measured) -> str:
    """Say how many cells of the leading index are above chance; with stitched networks, if not all are."""
    name = next((m for m in (*LEADING, *measured.measures) if f"null.tests/{m}" in measured.arrays), None)
    if name is None:
        return ""
    above, tested = count_above_chance(measured, name)
    if not tested or (above == tested and (measured.same_network or find_standing(measured).criteria)):
        return ""
    label, chance = get_measure(name).label, "above chance (examples permuted"
    if len(measured.sources) == len(measured.targets) == 1:
        value = float(take_cells(measured, name)[0, 0])
        return f"{label} is {value:.2f}, {'' if above else 'not '}{chance}, p < {LEVEL})."
    return f"By {label}, {above} of {tested} cells are {chance}, p < {LEVEL}, adjusted for all cells)."


def _advise(measured: Measured, methods: Mapping[str, CellVerdicts], claims: Mapping[str, Words]) -> str:
    """Say what to do next."""
    if not methods:
        return ("Next: compare with ood=suture.OOD(); without natural distances no cell has a verdict."
                if find_standing(measured).criteria else advise_null(measured))
    if "tlm" in methods and 2 * _find_marked(measured, "tlm").sum() > methods["tlm"].words.size:
        return "Next: train task loss matching longer (epochs), because most of its cells have not converged."
    words = np.concatenate([*claims.values(), []])
    if _count(words, UNPROVEN, NOT_SHOWN) > len(words) // 4:
        return ("Next: read why so many cells stay open, cells(method, 'reason'); more test examples make "
                "intervals narrower.")
    if _count(words, ARTEFACT):
        return ("Next: leave artefacts out of any claim of similarity; their score is the work of their "
                "stitching layer.")
    if _count(words, LABELS_ONLY):
        return "Next: look at the cells that share the labels only; their scores say nothing else of them."
    return advise_null(measured)
