"""E3: how far stitched representations are out of distribution."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from suture.numbers import get_measure
from suture.studies.experiments.claims import NetworkMean, Outcome, decide_for_each
from suture.studies.experiments.grids.base import (
    ACCURACY,
    METHODS,
    GridExperiment,
    explain_open,
    limit_by_marks,
    tabulate_means,
)
from suture.studies.experiments.grids.tables import CELLS
from suture.studies.experiments.grids.view import Grids
from suture.studies.experiments.record import Record

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

TOLD_APART = 0.75
"""AUROC from which on a detector tells stitched from native representations: halfway from chance to all."""
GOOD = 0.9
"""AUROC on unseen images that a detector needs before it may say that representations are native."""
WORKS = 0.8
"""Relative accuracy from which on a stitched network works (docs/distance.md)."""
EDGE = 1.0
_SHRINKAGE = ("likely because least squares shrinks what the source cannot predict, which changes energies "
              "also where the distance is natural")
_WIDE = 5.0
"""Inches from which on a legend has one line."""
_NAMES = {"tlm": "task loss matching", "dm": "direct matching"}
_WORDS = {"native": "native", "auxiliary": "auxiliary images", "dm": "stitched by DM",
          "tlm": "stitched by TLM"}


class OutOfDistribution(GridExperiment):
    """Energy detectors as in the paper, and natural distances."""

    name, title = "E3", "Out-of-distribution representations"
    question = "Would the target network ever meet the stitched representations?"
    kept = (*CELLS, "verdicts", "energies", "detectors")
    mapped = ("{}.auroc_energy", "{}.natural_distance")

    def judge_claims(self, record: Record) -> Sequence[Outcome]:
        grids = self.view(record)
        found = []
        if grids.has("tlm.auroc_energy"):
            found += [judge_detected(grids, "tlm"), judge_detected(grids, "dm")]
        return [*found, judge_range(grids, "tlm"), judge_range(grids, "dm")]

    def tabulate(self, record: Record) -> Mapping[str, pd.DataFrame]:
        grids = self.view(record)
        names = [f"{m}.{q}" for q in ("auroc_energy", "ap_energy", "fpr95_energy", "natural_distance")
                 for m in METHODS if grids.has(f"{m}.{q}")]
        return {"Means over cells": tabulate_means(grids, names), "Verdicts of cells": count_words(record)}

    def draw(self, record: Record) -> Mapping[str, Callable[[], Figure]]:
        made = dict(super().draw(record))
        if not record.read("energies").empty:
            made["energies"] = lambda: draw_energies(record)
        return made


def average_working(grids: Grids, method: str, quantity: str) -> NetworkMean:
    """Return the mean over the cells of a pair that work, without a network's own layers."""
    works = (grids.values(ACCURACY[method]) >= WORKS) & ~grids.own_layers
    values = np.where(works, grids.values(f"{method}.{quantity}"), np.nan)
    means = [np.nanmean(v) if not np.isnan(v).all() else np.nan for v in values]
    return NetworkMean.of(means, grids.networks, limits=get_measure(f"{method}.{quantity}").native)


def judge_detected(grids: Grids, method: str) -> Outcome:
    """Judge whether the energy detector tells stitched from native representations."""
    every = grids.average(f"{method}.auroc_energy", ~grids.own_layers)
    working = average_working(grids, method, "auroc_energy")
    tlm = method == "tlm"
    above = every.is_above(TOLD_APART)
    held = above if tlm or above is None else not above
    quality = measure_quality(grids)
    if above is False and not quality >= GOOD:
        held = None
    below = float((grids.values(f"{method}.auroc_energy")[~grids.own_layers] < 1 - TOLD_APART).mean())
    claim = (f"By the paper's energy detector, representations of {_NAMES[method]} are "
             f"{'' if tlm else 'not '}out of distribution.")
    outcome = Outcome(claim, f"AUROC {every.format(unit='pairs')}; where the stitched "
                             f"network works {working.format(unit='pairs')}; 0.5 is chance, {TOLD_APART} the "
                             f"limit. Of unseen images the detectors tell {quality:.2f}", held,
                      _explain(held, every, quality, below) or ("" if tlm or held else _SHRINKAGE), 2,
                      f"{METHODS[method]} AUROC {every.mean:.2f}")
    return limit_by_marks(grids, outcome, ~grids.own_layers) if tlm else outcome


def measure_quality(grids: Grids) -> float:
    """Return the mean AUROC of the detectors on images that they were not trained on; nan if unknown."""
    table = grids.record.read("detectors")
    return float(table["unseen"].mean()) if "unseen" in table else float("nan")


def _explain(held: bool | None, every: NetworkMean, quality: float, below: float) -> str:
    """Return why a detector decides nothing, or what a one-sided score cannot see."""
    if held is None and every.is_above(TOLD_APART) is None:
        return explain_open(held, every)
    weak = (f"the detectors are weak, as they were trained briefly (AUROC {quality:.2f} on unseen images, "
            f"{GOOD} is asked for)")
    return "; ".join(filter(None, [weak if held is None else "", _explain_below(below)]))


def _explain_below(share: float) -> str:
    """Return what stitched representations do that a one-sided score cannot see."""
    return "" if not share >= 0.1 else (
        f"in {share:.0%} of the cells the detector takes stitched representations for more in-distribution "
        f"than native ones (AUROC below {1 - TOLD_APART}): they are told apart on the other side, because "
        "energies are low where the class is clear")


def judge_range(grids: Grids, method: str) -> Outcome:
    """Judge whether most working cells lie beyond what natural inputs reach, in every pair of networks."""
    works = (grids.values(ACCURACY[method]) >= WORKS) & ~grids.own_layers
    far = grids.values(f"{method}.natural_distance") > EDGE
    shares = grids.summarise_shares([float(f[w].mean()) if w.any() else np.nan
                                     for f, w in zip(far, works, strict=True)],
                                    int(works.sum() / max(1, len(works))))
    median = NetworkMean.of([float(np.nanmedian(d[w])) if w.any() else np.nan for d, w in zip(
        grids.values(f"{method}.natural_distance"), works, strict=True)], grids.networks, limits=(0, np.inf))
    tlm = method == "tlm"
    held = decide_for_each([(share > 0.5) == tlm for share in shares.each]) if grids.networks > 2 else None
    claim = (f"Where the stitched network works, representations of {_NAMES[method]} lie "
             f"{'beyond' if tlm else 'within'} what natural inputs reach.")
    outcome = Outcome(claim, f"beyond it: {shares.format(unit='pairs')} of {int(works.sum())} working "
                             f"cells; median natural distance {median.format(1, 'pairs')}, 1 is "
                             "the edge", held, "" if held is not None else
                      "networks differ, or there are fewer than three" if works.any() else
                      "no stitched network works", 2,
                      f"{METHODS[method]} " + (f"{shares.mean:.0%} of working cells beyond the natural range"
                                               if works.any() else "no working cell"))
    return limit_by_marks(grids, outcome, ~grids.own_layers) if tlm else outcome


def count_words(record: Record) -> pd.DataFrame:
    """Count the verdicts of cells by method, for networks with themselves and with others."""
    import pandas as pd

    table = record.read("verdicts")
    if table.empty:
        return pd.DataFrame()
    into = np.where(table["source_network"] == table["target_network"], "itself", "another seed")
    counts = pd.crosstab([into, table["method"].str.upper()], table["word"]).reset_index()
    return counts.rename(columns={"row_0": "into", "method": "by"}).rename_axis(columns=None)


def draw_energies(record: Record) -> Figure:
    """Draw histograms of energies of native, auxiliary and stitched examples, one panel a target site."""
    from suture.results import SCORE_LINES, make_figure

    table = record.read("energies")
    first = table[table["target_network"] == table["target_network"].iloc[0]]
    first = first[first["source_network"] == first["source_network"].iloc[0]]
    targets = list(first["target"].drop_duplicates())
    figure = make_figure(None, 1.9)
    axes = np.atleast_1d(figure.subplots(1, len(targets), squeeze=True))
    for ax, target in zip(axes, targets, strict=True):
        for kind, words in _WORDS.items():
            of = first[(first["target"] == target) & (first["kind"] == kind)]
            if not of.empty:
                edges = [*of["low"], of["high"].iloc[-1]]
                ax.stairs(of["density"], edges, fill=kind == "native", label=words,
                          **{"linewidth": 1.2} | SCORE_LINES[kind])
        ax.set_title(target, fontsize="medium", parse_math=False)
        ax.set_yticks([])
        ax.set_xlabel("minus energy")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center",
                  ncols=4 if figure.get_figwidth() > _WIDE else 2, frameon=False)
    return figure
