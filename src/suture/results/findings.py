"""What a comparison found, in at most six sentences, the finding first."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suture.numbers import METHOD_NAMES, Bools, get_measure
from suture.ood import NaturalRange
from suture.results.correspondence import Correspond, Correspondence, measure_correspondence
from suture.results.inference.noise import Contest
from suture.results.measured import Measured
from suture.results.sanity import Verdict, find_contests, run_sanity_battery
from suture.results.standing import find_standing, has_range
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
MOST = 6
"""Largest number of sentences."""
Words = NDArray[Any]
"""Verdicts of the unmarked cells of a method."""


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
    claims = {method: found.words.to_numpy()[~_find_marked(measured, method)]
              for method, found in methods.items()}
    parts = list(filter(None, [
        _describe_methods(methods, claims), _find_telling_pair(measured, methods),
        _describe_range(measured, methods), _describe_layers(measured),
        _describe_correspondence(measured, correspond),
        _advise(methods, claims)]))
    room = MOST - len(re.findall(r"\.(?: |$)", standing.line))
    return Findings(standing.line, (*parts[:-1][:max(0, room - 1)], *parts[-1:]), verdict, methods)


def _describe_methods(methods: Mapping[str, CellVerdicts], claims: Mapping[str, Words]) -> str:
    """Say how many unmarked cells work by each method, and what they are."""
    if len(claims) < 2 or not all(map(len, claims.values())):
        parts = "; ".join(_count_words(found, claims[method]) for method, found in methods.items())
        return parts and f"{parts[0].upper()}{parts[1:]}."
    (tlm, tlm_sort), (dm, dm_sort) = ((claims[method], _name_unmarked(methods[method], claims[method]))
                                      for method in ("tlm", "dm"))
    return (f"Task loss matching makes {_count(tlm, *WORKING)} of {len(tlm)} {tlm_sort}cells work, "
            f"{_count(tlm, ARTEFACT) or 'none'} as artefacts (beyond what natural inputs reach); direct "
            f"matching {_count(dm, *WORKING)} of {len(dm)}{f' {dm_sort}cells' if dm_sort else ''}, "
            f"{_count(dm, ARTEFACT) or 'none'} as artefacts.")


def _count_words(found: CellVerdicts, words: Words) -> str:
    name, size = METHOD_NAMES[found.method], found.words.size
    if size and not len(words):
        trouble = "has not converged in" if found.method == "tlm" else "does not generalise in"
        return f"{name} {trouble} any of {size} cells, so that its numbers say nothing yet"
    parts = ", ".join(f"{n} {sort}" for word, sort in (
        (SIMILAR, "similar"), (ARTEFACT, "artefacts"), (LABELS_ONLY, "sharing the labels only"),
        (NOT_SHOWN, "not shown similar")) if (n := _count(words, word)))
    unproven = _count(words, UNPROVEN)
    return (f"{name} makes {_count(words, *WORKING)} of {len(words)} {_name_unmarked(found, words)}cells work"
            f"{f' ({parts})' if parts else ''}{f'; {unproven} are unproven' if unproven else ''}")


def _name_unmarked(found: CellVerdicts, words: Words) -> str:
    if len(words) == found.words.size:
        return ""
    return "converged " if found.method == "tlm" else "unmarked "


def _count(words: Words, *of: str) -> int:
    return int(np.isin(words, of).sum())


def _find_marked(measured: Measured, method: str) -> Bools:
    """Return which cells of a method are marked (sources, targets): they carry no claim."""
    by = find_standing(measured).criteria[method]
    found: Bools = (measured.marks(f"{method}.{by.quantity}") != "").to_numpy()
    return found


def _find_telling_pair(measured: Measured, methods: Mapping[str, CellVerdicts]) -> str:
    """Name the artefact of task loss matching that direct matching contradicts most."""
    if "tlm" not in methods:
        return ""
    by = find_standing(measured).criteria["tlm"]
    value = measured.matrix(f"tlm.{by.quantity}").to_numpy()
    sign, other = -1 if by.smaller else 1, None
    gap = sign * value
    if "dm" in methods:
        other = measured.matrix(f"dm.{by.quantity}").to_numpy()
        gap = np.where(_find_marked(measured, "dm"), math.nan, gap - sign * other)
    usable = (methods["tlm"].words == ARTEFACT).to_numpy() & ~_find_marked(measured, "tlm") & ~np.isnan(gap)
    if not usable.any():
        return ""
    best = int(np.argmax(np.where(usable, gap, -np.inf)))
    i, j = map(int, np.unravel_index(best, value.shape))
    far = measured.matrix("tlm.natural_distance").to_numpy()[i, j]
    return (f"Most telling, {measured.sources[i]} into {measured.targets[j]}: {by.words} {value[i, j]:.2f} "
            f"by task loss matching, {far:.1f} times as far out as natural inputs reach"
            f"{'' if other is None else f'; direct matching {other[i, j]:.2f}'}.")


def _describe_range(measured: Measured, methods: Mapping[str, CellVerdicts]) -> str:
    """Say at how many target sites the natural range is missing, or open-ended where there are artefacts."""
    if not methods or not has_range(measured.meta):
        return ""
    found, sites = NaturalRange.from_record(measured.meta["ood"]["range"]), range(len(measured.targets))
    reasons = [reason for j in sites if (reason := found.find_outer(j)[0].reason)]
    if reasons:
        return (f"No natural range at {len(reasons)} of {len(sites)} target sites ({reasons[0]}): cells that "
                "work there stay open.")
    artefacts = np.concatenate([(of.words == ARTEFACT).to_numpy() for of in methods.values()])
    shifts = [found.find_outer(j)[1] for j in sites if found.is_open(j) and artefacts[:, j].any()]
    return (f"The natural range is open-ended at {len(shifts)} target sites with artefacts: the network "
            f"works under the strongest {shifts[0]}." if shifts else "")


def _describe_layers(measured: Measured) -> str:
    """Say in one sentence how often measures of each kind find a layer nearest to itself, or its counterpart.

    Of one network it counts measures by which that holds for all layers, of two networks single target
    layers. What rests on marked cells counts for nothing.
    """
    judged = [name for name in measured.measures if get_measure(name).judged] if measured.corresponds else []
    count = _count_measures if measured.same_network else _count_layers
    parts = list(filter(None, (
        count(kind, [find_contests(measured, name) for name in judged if name.rpartition(".")[0] == tag])
        for tag, kind in {"": "", **METHOD_NAMES}.items())))
    start = ("Every layer is nearest to itself by" if measured.same_network else
             "Cases (layer, measure) in which the layer of the same name is nearest:")
    return f"{start} {', '.join(parts)}." if parts else ""


def _count_measures(kind: str, contests: Sequence[Sequence[Contest]]) -> str:
    """Count the measures by which every layer is nearest to itself, of those that marks leave decided."""
    held = sum(bool(of) and not any(c.lost or c.marked for c in of) for of in contests)
    decided = held + sum(any(c.lost and not c.marked for c in of) for of in contests)
    if not decided:
        return ""
    return (f"{'all' if held == decided else f'{held} of'} {decided} "
            f"{f'measures of {kind}' if kind else 'indices'}")


def _count_layers(kind: str, contests: Sequence[Sequence[Contest]]) -> str:
    """Count the target layers, by each measure, whose counterpart is the nearest source layer."""
    sure = [c for of in contests for c in of if not c.marked]
    return f"{sum(not c.lost for c in sure)} of {len(sure)} by {kind or 'indices'}" if sure else ""


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
    return (f"By {get_measure(found.measure).label}, the source layer {how[found.how]} is nearest for "
            f"{found.nearest} of {found.layers} target layers (mean rank {found.rank:.1f}{interval}; chance "
            f"{found.chance:.1f}, p {found.p:.1g}).")


def _advise(methods: Mapping[str, CellVerdicts], claims: Mapping[str, Words]) -> str:
    """Say what to do next."""
    if "tlm" in methods and 2 * len(claims["tlm"]) < methods["tlm"].words.size:
        return "Next: train task loss matching longer (epochs), because most of its cells have not converged."
    words = np.concatenate([*claims.values(), []])
    if _count(words, UNPROVEN, NOT_SHOWN) > len(words) // 4:
        return ("Next: read why so many cells stay open, cells(method, 'reason'); more test examples make "
                "intervals narrower.")
    if _count(words, ARTEFACT):
        return ("Next: read the map of direct matching; a high score of an artefact is the work of its "
                "layer, not similarity.")
    if _count(words, LABELS_ONLY):
        return ("Next: look at the cells that share the labels only; their scores say nothing of what the "
                "layers hold.")
    return ""
