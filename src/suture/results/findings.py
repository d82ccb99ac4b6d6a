"""What a comparison found, in at most six sentences, the finding first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from suture.numbers import METHOD_NAMES, Bools, get_measure
from suture.results.correspondence import Correspond, Correspondence, measure_correspondence
from suture.results.measured import Measured
from suture.results.sanity import Verdict, is_clean, is_open, run_sanity_battery
from suture.results.standing import find_standing
from suture.results.verdicts import (
    ARTEFACT,
    LABELS_ONLY,
    NOT_SHOWN,
    SIMILAR,
    UNPROVEN,
    WORKING,
    CellVerdicts,
    judge_methods,
)

LEADING = ("cka_debiased", "cka", "dm.r2", "dm.relative_accuracy", "tlm.relative_accuracy")
"""Measures by which layers are said to correspond, the first that a comparison has."""


@dataclass(frozen=True, eq=False)
class Findings:
    """What a comparison found.

    Attributes:
        first: what makes the rest meaningless; empty if nothing does.
        sentences: at most six with `first`, the finding before its details, what to do next at the end.
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


def summarise_findings(measured: Measured, correspond: Correspond = None) -> Findings:
    """Summarise a comparison in at most six sentences.

    Args:
        correspond: which sites of two networks correspond (`suture.results.correspondence`).
    """
    standing, verdict = find_standing(measured), run_sanity_battery(measured)
    methods = judge_methods(measured)
    if standing.flaw:
        return Findings(standing.line, ("Mend this first: nothing below says anything until then.",), verdict,
                        methods)
    parts = [_describe_methods(methods, measured), _find_telling_pair(measured, methods),
             _describe_layers(measured, verdict.table), _describe_correspondence(measured, correspond),
             _advise(measured, methods)]
    return Findings(standing.line, tuple(filter(None, parts)), verdict, methods)


def _describe_methods(methods: Mapping[str, CellVerdicts], measured: Measured) -> str:
    """Say how many cells work by each method, and what they are."""
    marked = _count_marked(measured)
    if "tlm" in methods and marked["tlm"] == methods["tlm"].words.size:
        return (f"Task loss matching has not converged in any of {marked['tlm']} cells, so that its numbers "
                f"say nothing yet. {_count_words(methods['dm']) if 'dm' in methods else ''}").strip()
    if len(methods) < 2:
        return " ".join(map(_count_words, methods.values()))
    tlm, dm = methods["tlm"], methods["dm"]
    sure = ~_find_marked(measured, "tlm")
    working, artefacts = (int((tlm.words.isin(of).to_numpy() & sure).sum()) for of in (WORKING, (ARTEFACT,)))
    sort = "converged cells" if marked["tlm"] else "cells"
    return (f"Task loss matching makes {working} of {int(sure.sum())} {sort} work, {artefacts or 'none'} as "
            f"artefacts (beyond what natural inputs reach); direct matching {dm.count(*WORKING)} of "
            f"{dm.words.size}, {dm.count(ARTEFACT) or 'none'} as artefacts.")


def _count_words(found: CellVerdicts) -> str:
    parts = [f"{n} {words}" for word, words in (
        (SIMILAR, "similar"), (ARTEFACT, "artefacts"), (LABELS_ONLY, "sharing the labels only"),
        (NOT_SHOWN, "not shown similar")) if (n := found.count(word))]
    unproven = found.count(UNPROVEN)
    return (f"{METHOD_NAMES[found.method].capitalize()} makes {found.count(*WORKING)} of {found.words.size} "
            f"cells work{': ' + ', '.join(parts) if parts else ''}"
            f"{f'; {unproven} are unproven' if unproven else ''}.")


def _find_marked(measured: Measured, method: str) -> Bools:
    """Return which cells of a method are marked (sources, targets): they carry no claim."""
    by = find_standing(measured).criteria[method]
    found: Bools = (measured.marks(f"{method}.{by.quantity}") != "").to_numpy()
    return found


def _count_marked(measured: Measured) -> dict[str, int]:
    criteria = find_standing(measured).criteria
    return {method: int(_find_marked(measured, method).sum()) if method in criteria else 0
            for method in METHOD_NAMES}


def _find_telling_pair(measured: Measured, methods: Mapping[str, CellVerdicts]) -> str:
    """Name the artefact of task loss matching that direct matching contradicts most."""
    if "tlm" not in methods:
        return ""
    by = find_standing(measured).criteria["tlm"]
    value = measured.matrix(f"tlm.{by.quantity}").to_numpy()
    usable = (methods["tlm"].words == ARTEFACT).to_numpy() & ~_find_marked(measured, "tlm")
    if not usable.any():
        return ""
    far = measured.matrix("tlm.natural_distance").to_numpy()
    sign, other = -1 if by.smaller else 1, None
    gap = sign * value
    if "dm" in methods:
        other = measured.matrix(f"dm.{by.quantity}").to_numpy()
        gap = np.nan_to_num(gap - sign * other, nan=-np.inf)
    best = int(np.argmax(np.where(usable, gap, -np.inf)))
    i, j = map(int, np.unravel_index(best, value.shape))
    words = (f"Most telling, {measured.sources[i]} into {measured.targets[j]}: {by.words} {value[i, j]:.2f} "
            f"by task loss matching, {far[i, j]:.1f} times as far out as natural inputs reach")
    return words + ("." if other is None or math.isnan(other[i, j])
                   else f"; direct matching {other[i, j]:.2f}.")


def _describe_layers(measured: Measured, table: Any) -> str:
    """Say by how many measures of each kind every layer is nearest to itself, in one sentence."""
    rows = [row for row in table.to_dict("records") if not is_open(row)
            and (row["layers"] or row.get("source_layers"))]
    parts = []
    for words, of in (("{} indices", ""), ("{} measures of direct matching", "dm"),
                      ("{} measures of task loss matching", "tlm")):
        own = [row for row in rows if row["measure"].rpartition(".")[0] == of]
        if own:
            held = sum(map(is_clean, own))
            parts.append(words.format(f"{'all' if held == len(own) else f'{held} of'} {len(own)}"))
    if not parts:
        return ""
    nearest = "itself" if measured.same_network else "its counterpart, both ways,"
    return f"Every layer is nearest to {nearest} by {', '.join(parts)}."


def _describe_correspondence(measured: Measured, correspond: Correspond) -> str:
    """Say how well the layers of two networks correspond, by the leading measure."""
    leading = next((name for name in LEADING if name in measured.measures), None)
    if leading is None or measured.same_network or len(measured.sources) < 2:
        return ""
    found = measure_correspondence(measured, leading, correspond, int(measured.meta.get("seed") or 0))
    return describe_correspondence(found) if found.layers else ""


def describe_correspondence(found: Correspondence) -> str:
    """Describe a correspondence in one sentence, against chance."""
    how = {"name": "of the same name", "order": "of the same depth", "given": "given as its counterpart"}
    interval = "" if math.isnan(found.low) else f", 95 % interval {found.low:.1f} to {found.high:.1f}"
    return (f"By {get_measure(found.measure).label}, the layer {how[found.how]} is nearest for "
            f"{found.nearest} of {found.layers} layers (mean rank {found.rank:.1f}{interval}; chance "
            f"{found.chance:.1f}, p {found.p:.1g}).")


def _advise(measured: Measured, methods: Mapping[str, CellVerdicts]) -> str:
    """Say what to do next."""
    marked = _count_marked(measured)
    if "tlm" in methods and 2 * marked["tlm"] > methods["tlm"].words.size:
        return "Next: train task loss matching longer (epochs), because most of its cells have not converged."
    counts = {word: sum(found.count(word) for found in methods.values())
              for word in (UNPROVEN, NOT_SHOWN, ARTEFACT, LABELS_ONLY)}
    size = sum(found.words.size for found in methods.values())
    if size and counts[UNPROVEN] + counts[NOT_SHOWN] > size // 4:
        return ("Next: give more test examples, so that fewer cells stay open; cells(what='reason') says "
                "why.")
    if counts[ARTEFACT]:
        return ("Next: read the map of direct matching; a high score of an artefact is the work of its "
                "layer, not similarity.")
    if counts[LABELS_ONLY]:
        return ("Next: look at the cells that share the labels only; their scores say nothing of what the "
                "layers hold.")
    return ""


