"""E2, E6 and E10: different networks of one design, and which layers correspond."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from suture.numbers import get_measure
from suture.studies.experiments.claims import DIFFERENCE, NetworkMean, Outcome, decide_for_each
from suture.studies.experiments.grids.base import (
    ACCURACY,
    INDICES,
    GridExperiment,
    draw_heat,
    explain_mixture,
    explain_open,
    judge_late_into_early,
    limit_by_marks,
    tabulate_means,
)
from suture.studies.experiments.grids.view import Grids
from suture.studies.experiments.record import Record

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


class BetweenSeeds(GridExperiment):
    """Different seeds of one design."""

    name, title = "E2", "Stitching between seeds"
    question = "Does the corresponding layer win between two trainings?"
    mapped = ("{}.relative_accuracy", "{}.natural_distance")
    own = False

    def judge_claims(self, record: Record) -> Sequence[Outcome]:
        grids = self.view(record)
        return [judge_correspondence(grids), judge_late_into_early(
            grids, "Between seeds too, task loss matching solves the task with late layers in the place of "
                   "early ones, and direct matching does not.")]

    def tabulate(self, record: Record) -> Mapping[str, pd.DataFrame]:
        grids = self.view(record)
        return {**super().tabulate(record),
                "Target layers whose most similar source layer corresponds": tabulate_nearest(
                    grids, [name for name in (*ACCURACY.values(), "dm.residual") if grids.has(name)])}


class Indices(BetweenSeeds):
    """Structural indices beside both ways of stitching."""

    name, title = "E6", "CKA, PWCCA and OPD beside stitching"
    question = "Do structural indices side with direct matching or with task loss matching?"

    def judge_claims(self, record: Record) -> Sequence[Outcome]:
        grids = self.view(record)
        return [judge_side(grids, index) for index in INDICES if grids.has(index)]

    def tabulate(self, record: Record) -> Mapping[str, pd.DataFrame]:
        grids = self.view(record)
        names = [name for name in (*INDICES, "dm.relative_accuracy", "dm.residual", "tlm.relative_accuracy")
                 if grids.has(name)]
        return {"Target layers whose most similar source layer corresponds": tabulate_nearest(grids, names),
                "Means over cells": tabulate_means(grids, [name for name in INDICES if grids.has(name)])}

    def draw(self, record: Record) -> Mapping[str, Callable[[], Figure]]:
        from suture.results import draw_matrix_grid

        views = {"with itself": Grids(record, None, True), "between seeds": Grids(record, None, False)}
        kept = {word: grids for word, grids in views.items() if grids.pairs}
        names = [name for name in (*INDICES, *reversed(ACCURACY.values()))
                 if all(grids.has(name) for grids in kept.values())]
        return {"maps": lambda: draw_matrix_grid(
            [[draw_heat(grids, name) for name in names] for grids in kept.values()],
            rows=list(kept))}


class FunctionalStructural(GridExperiment):
    """Functional against structural direct matching."""

    name, title = "E10", "Functional and structural direct matching"
    question = "Do the accuracy of direct matching and its residual say the same?"
    mapped = ("dm.relative_accuracy", "dm.residual_batches")

    def judge_claims(self, record: Record) -> Sequence[Outcome]:
        grids = self.view(record)
        found = correlate(grids, "dm.relative_accuracy", "dm.residual_batches")
        held = found.is_above(0.5)
        outcomes = [Outcome("Functional and structural direct matching agree.",
                            f"rank correlation over the cells of a pair {found.format(unit='pairs')}", held,
                            explain_open(held, found))]
        own = Grids(record, None, True)
        if own.pairs:
            share = own.list_nearest("dm.residual_batches")
            outcomes.append(Outcome("By its residual too, every layer is most similar to itself.",
                                    f"{share.format(unit='networks')} of the layers",
                                    decide_for_each([value == 1 for value in share.each])))
        return outcomes


def judge_correspondence(grids: Grids) -> Outcome:
    """Judge that direct matching finds the corresponding layer, and task loss matching less often."""
    tlm, dm = (grids.list_nearest(ACCURACY[m]) for m in ("tlm", "dm"))
    gap = NetworkMean.of([a - b for a, b in zip(dm.each, tlm.each, strict=True)], grids.networks, DIFFERENCE)
    chance = 1 / max(1, len(grids.sites[0]))
    held = gap.is_above(0.0)
    return limit_by_marks(grids, Outcome(
        "Direct matching finds the corresponding layer of another seed more often than task loss matching.",
        f"the most similar source layer corresponds for {dm.format(unit='pairs')} of the layers by DM, "
        f"{tlm.format(unit='pairs')} by TLM; chance {chance:.2f}", held,
        explain_open(held, gap), 3,
        f"corresponding layer most similar: DM {dm.mean:.0%}, TLM {tlm.mean:.0%}"))


def judge_side(grids: Grids, index: str) -> Outcome:
    """Judge that an index goes with direct matching rather than with task loss matching, over the cells."""
    dm, tlm = (correlate(grids, index, ACCURACY[m]) for m in ("dm", "tlm"))
    gap = NetworkMean.of([a - b for a, b in zip(dm.each, tlm.each, strict=True)], grids.networks)
    nearest, label = grids.list_nearest(index), get_measure(index).label
    mixture = explain_mixture(index) if nearest.mean < 1 else ""
    held = gap.is_above(0.0)
    return limit_by_marks(grids, Outcome(
        f"{label} sides with direct matching on which layers correspond, and task loss matching does not.",
        f"rank correlation over cells with DM {dm.format(unit='pairs')}, with TLM "
        f"{tlm.format(unit='pairs')}; by {label} the corresponding layer is the most similar one for "
        f"{nearest.format(unit='pairs')} of the layers", held,
        "; ".join(filter(None, [explain_open(held, gap), mixture])),
        3, f"{label.partition(' ')[0]}'s correlation with DM {dm.mean:.2f}, with TLM {tlm.mean:.2f}"))


def correlate(grids: Grids, one: str, other: str) -> NetworkMean:
    """Return Spearman's correlation of two measures over the cells of each pair; larger is more similar."""
    from scipy import stats

    signs = [1.0 if get_measure(name).larger_is_more_similar else -1.0 for name in (one, other)]
    found = []
    for a, b in zip(grids.values(one), grids.values(other), strict=True):
        known = ~(np.isnan(a) | np.isnan(b))
        constant = known.sum() < 3 or len(set(a[known])) < 2 or len(set(b[known])) < 2
        found.append(float("nan") if constant else
                     signs[0] * signs[1] * float(stats.spearmanr(a[known], b[known]).statistic))
    return NetworkMean.of(found, grids.networks, limits=DIFFERENCE)


def tabulate_nearest(grids: Grids, measures: Sequence[str]) -> pd.DataFrame:
    """Tabulate for each measure the share of target layers whose most similar source layer corresponds."""
    import pandas as pd

    rows = []
    for name in measures:
        found = grids.list_nearest(name)
        low, high = found.interval
        rows.append({"measure": get_measure(name).label, "share": f"{found.mean:.2f}",
                     "95 % interval": "–" if low != low else f"{low:.2f} to {high:.2f}",
                     "pairs": len(found.each), "chance": f"{1 / max(1, len(grids.sites[0])):.2f}"})
    return pd.DataFrame(rows)
