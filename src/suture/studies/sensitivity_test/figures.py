"""Figures of a sensitivity test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from suture._base import make_unknown_error
from suture.numbers import get_measure
from suture.results import (
    COLOURS,
    WordsFitting,
    fit_words,
    make_figure,
    make_printable,
    resolve_points,
    write_legend_below,
)

if TYPE_CHECKING:
    import pandas as pd

    from suture.studies.sensitivity_test.result import Sensitivity

_PROBE = COLOURS[2]


def draw_curves(found: Sensitivity, measures: Sequence[str] | None) -> Figure:
    """Draw each measure over the rank, site by site, and the probes below.

    Lines are means over networks, bands their range. Dashed and dotted lines are the median and the 95 % of
    the distances between seeds; ends beyond which the probe changes are vertical lines, one for each network.
    """
    names = list(found.measures if measures is None else measures)
    odd = next((m for m in names if m not in found.measures), None)
    if odd is not None:
        raise make_unknown_error("measure", odd, found.measures)
    sites = list(found.curves["site"].unique())
    figure = make_figure(None)
    panel, legend = 0.3 * figure.get_figwidth(), 4.5 * resolve_points("legend.fontsize") / 72
    figure.set_figheight(0.4 * panel + legend + panel * (len(names) + 1))
    axes = figure.subplots(len(names) + 1, len(sites), squeeze=False, sharex="col", sharey="row")
    for j, site in enumerate(sites):
        for i, measure in enumerate(names):
            curves = found.curves[(found.curves["site"] == site) & (found.curves["measure"] == measure)]
            _draw_range(axes[i, j], curves, "value", COLOURS[0])
            spread = found.spread.set_index(["site", "measure"]).loc[(site, measure)]
            for value, dashes in ((spread["median"], "--"), (spread["far"], ":")):
                if not np.isnan(value):
                    axes[i, j].axhline(value, color="0.3", linestyle=dashes, linewidth=_thin())
            _mark_probes(axes[i, j], found.detection, site)
        _draw_range(axes[-1, j], found.probes[found.probes["site"] == site], "accuracy", _PROBE)
        _mark_probes(axes[-1, j], found.detection, site)
        WordsFitting(axes[0, j], axes[0, j].title, make_printable(site), resolve_points("axes.titlesize"))
        axes[-1, j].set_xlabel("rank")
    labels = [*(get_measure(measure).label for measure in names), "probe accuracy"]
    for ax, label in zip(axes[:, 0], labels, strict=True):
        fit_words(ax.yaxis.label, label, 60 * panel, resolve_points("axes.labelsize"))
        ax.yaxis.label.set_parse_math(False)
    _write_legend(figure)
    figure.draw_without_rendering()  # ticks get the style of now
    return figure


def _draw_range(ax: Axes, table: pd.DataFrame, column: str, colour: str) -> None:
    by_rank = table.groupby("rank")[column]
    mean, low, high = by_rank.mean(), by_rank.min(), by_rank.max()
    ax.plot(mean.index, mean, "-o", color=colour, markersize=0.5 * mpl.rcParams["lines.markersize"])
    ax.fill_between(mean.index, low, high, color=colour, alpha=0.2, linewidth=0)
    ax.set_xscale("log", base=2)


def _thin() -> float:
    return 0.8 * float(mpl.rcParams["lines.linewidth"])


def _write_legend(figure: Figure) -> None:
    looks: dict[str, Any] = {"median distance of seeds": {"color": "0.3", "linestyle": "--"},
                             "95 % of these distances": {"color": "0.3", "linestyle": ":"},
                             "largest rank that changes the probe": {"color": _PROBE, "alpha": 0.5}}
    handles = [Line2D([], [], linewidth=_thin(), **look) for look in looks.values()]
    write_legend_below(figure, handles, list(looks))


def _mark_probes(ax: Axes, detection: pd.DataFrame, site: str) -> None:
    ranks = detection[detection["site"] == site].drop_duplicates("network")["probe_rank"]
    for rank in ranks[ranks > 0]:  # 0: no rank changes the probe
        ax.axvline(rank, color=_PROBE, alpha=0.25, linewidth=_thin())
