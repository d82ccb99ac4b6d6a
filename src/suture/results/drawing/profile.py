"""Corresponding layers over depth, with intervals and what the measures say by chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from suture._base import expect, make_unknown_error
from suture.numbers import METHOD_NAMES, Measure, get_measure
from suture.results.drawing.fitting import SideFitting, WordsFitting
from suture.results.drawing.grids import make_figure
from suture.results.drawing.lines import COLOURS, METHOD_LINES, SIGNS, strip_spines, write_legend
from suture.results.drawing.measuring import resolve_points
from suture.results.drawing.names import NameTicks
from suture.results.findings import LEADING
from suture.results.heatmaps import make_printable
from suture.results.inference.correspondence import Correspond, pair_sites
from suture.results.inference.nulls import NULL_FIELDS
from suture.results.measured import Measured, take_cells
from suture.results.standing import find_standing

_NULL = ("mean", "std")
_Z = 1.959964
"""Standard deviations within which 95 % of a normal null lie."""


def draw_profile(measured: Measured, measures: Sequence[str] | None = None, correspond: Correspond = None,
                 width: float | None = None) -> Figure:
    """Draw measures of corresponding layers; `Drawn.plot_profile` describes the arguments."""
    names = choose_measures(measured) if measures is None else list(measures)
    expect(bool(names), "measures of corresponding layers", "none", "name some in measures")
    for name in names:
        if name not in measured.measures:
            raise make_unknown_error("measure", name, measured.measures)
    _, pairs = pair_sites(measured, correspond)
    expect(bool(pairs), "corresponding layers", "none", "write correspond={target site: source site}")
    panels = _group(names)
    figure = make_figure(width)
    least = (6 + 11 * len(panels)) * resolve_points("axes.labelsize") / 72
    figure.set_figheight(max(figure.get_figwidth() * (0.28 + 0.4 * len(panels)), least))
    grid = figure.subplots(len(panels), squeeze=False)[:, 0]
    for ax, panel in zip(grid, panels, strict=True):
        _draw_panel(measured, panel, pairs, ax)
    for ax in grid:
        ticks = NameTicks([_name_pair(measured, i, j) for j, i in sorted(pairs.items())])
        ticks.put_on(ax.xaxis)
        ax.set_xlim(-0.5, len(pairs) - 0.5)
        ax.xaxis.set_tick_params(labelbottom=ax is grid[-1], labeltop=False)
    WordsFitting(grid[-1], grid[-1].xaxis.label, "corresponding layers, by depth",
                 resolve_points("axes.labelsize"))
    figure.draw_without_rendering()  # ticks get the style of now
    return figure


def choose_measures(measured: Measured) -> list[str]:
    """Choose what works by, natural distances, and the first index with a null, else the first."""
    criteria = find_standing(measured).criteria
    wanted = [f"{m}.{c.quantity}" for m, c in criteria.items()]
    wanted += [f"{m}.natural_distance" for m in METHOD_NAMES]
    indices = [m for m in (*LEADING, *measured.measures) if m in measured.measures and "." not in m]
    indices.sort(key=lambda name: f"null.tests/{name}" not in measured.arrays)
    return [name for name in (*wanted, *indices[:1]) if name in measured.measures]


def _group(names: Sequence[str]) -> list[list[str]]:
    """Group measures that one axis can show: of one quantity, or indices with the same limits."""
    groups: dict[Any, list[str]] = {}
    for name in names:
        measure = get_measure(name)
        key: Any = name.partition(".")[2] or (measure.low, measure.high, measure.larger_is_more_similar)
        groups.setdefault(key, []).append(name)
    return list(groups.values())


def _name_pair(measured: Measured, i: int, j: int) -> str:
    source, target = make_printable(measured.sources[i]), make_printable(measured.targets[j])
    return target if source == target else f"{source} → {target}"


def _draw_panel(measured: Measured, names: Sequence[str], pairs: dict[int, int], ax: Axes) -> None:
    handles: list[Any] = []
    labels: list[str] = []
    columns = sorted(pairs)
    rows = [pairs[j] for j in columns]
    measure = get_measure(names[0])
    for k, name in enumerate(names):
        method = name.rpartition(".")[0]
        look = METHOD_LINES.get(method) or {"color": COLOURS[(2 + k) % len(COLOURS)],
                                            "marker": SIGNS[(2 + k) % len(SIGNS)], "linestyle": "-"}
        value, low, high = (take_cells(measured, name, what)[rows, columns].astype(float)
                            for what in ("value", "low", "high"))
        ends = np.vstack([value - np.where(np.isnan(low), value, low),
                          np.where(np.isnan(high), value, high) - value])
        at = np.arange(len(columns)) + 0.07 * (k - (len(names) - 1) / 2)
        drawn = ax.errorbar(at, value, np.maximum(0, np.nan_to_num(ends)), capsize=1.5, elinewidth=0.8,
                            gid=name, **look)
        handles.append(drawn)
        labels.append(method.upper() if method in METHOD_NAMES else make_printable(get_measure(name).label))
        band = _draw_null(measured, name, rows, columns, ax, str(look["color"]))
        if band is not None:
            handles.append(band)
            labels.append("by chance, 95 %")
    _set_limits(ax, measure)
    kind = measure.label if len(names) == 1 else "similarity"
    SideFitting(ax, measure.label.partition(" ")[2] if names[0].partition(".")[2] else make_printable(kind))
    write_legend(ax, handles, labels)
    strip_spines(ax)


def _draw_null(measured: Measured, name: str, rows: list[int], columns: list[int], ax: Axes,
               colour: str) -> Patch | None:
    tests = measured.arrays.get(f"null.tests/{name}")
    if tests is None:
        return None
    mean, deviation = (tests[NULL_FIELDS.index(what)][rows, columns] for what in _NULL)
    if np.isnan(mean).all():
        return None
    at = np.arange(len(columns))
    ax.fill_between(at, mean - _Z * deviation, mean + _Z * deviation, color=colour, alpha=0.25, linewidth=0,
                    gid="null")
    ax.plot(at, mean, color=colour, linewidth=0.8, linestyle=":")
    return Patch(color=colour, alpha=0.25, linewidth=0)


def _set_limits(ax: Axes, measure: Measure) -> None:
    """Keep the measure's fixed limits, unless values lie beyond them."""
    low, high = ax.get_ylim()
    room = 0.03 * (measure.high - measure.low)
    ax.set_ylim(min(measure.low - room, low), max(measure.high + room, high))
    if measure.name.endswith(".natural_distance"):
        ax.axhline(1.0, color="0.5", linewidth=0.8, linestyle=":", zorder=0)
    elif math.isfinite(high):
        ax.axhline(measure.high if measure.larger_is_more_similar else measure.low, color="0.85",
                   linewidth=0.6, zorder=0)
