"""Learning curves of task loss matching."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from suture._base import expect
from suture.numbers import Floats
from suture.results.drawing.grids import make_figure
from suture.results.drawing.lines import COLOURS, strip_spines, write_legend
from suture.results.drawing.measuring import resolve_points
from suture.results.inference.correspondence import pair_sites
from suture.results.measured import Measured

_WIDE = 20.0
"""Ratio of the largest to the smallest loss from which the axis is logarithmic."""

_LEAST_HEIGHT = 13.0
"""Least height of the figure, in the size of its letters."""


def collect_losses(measured: Measured) -> dict[str, Floats]:
    """Collect the losses (cells, epochs) of corresponding layers, of other cells, and of held-out data.

    Cells that stopped early end in NaN; cells that failed are left out. With several initialisations they are
    those of the first.
    """
    losses = measured.arrays.get("tlm.loss")
    if losses is None or losses.ndim != 3 or losses.shape[-1] < 2:
        return {}
    pairs = pair_sites(measured)[1]
    own = np.zeros(losses.shape[:2], bool)
    own[list(pairs.values()), list(pairs)] = True
    found = {"corresponding layers": losses[own], "other cells": losses[~own]}
    held = measured.arrays.get("tlm.held_out")
    if held is not None and held.shape == losses.shape:
        found["all cells, held-out data"] = held.reshape(-1, held.shape[-1])
    known = {name: rows[np.isfinite(rows[:, 0])].astype(np.float64) for name, rows in found.items()}
    return {name: rows for name, rows in known.items() if len(rows)}


def draw_curves(measured: Measured, width: float | None = None) -> Figure:
    """Draw medians and ranges of the losses over the epochs; `Drawn.plot_curves` describes the arguments."""
    found = collect_losses(measured)
    expect(bool(found), "losses of task loss matching", "a comparison without them",
           'compare with methods=("dm", "tlm")')
    figure = make_figure(width)
    figure.set_figheight(max(0.68 * figure.get_figwidth(), _LEAST_HEIGHT * resolve_points("font.size") / 72))
    ax = figure.subplots()
    looks = zip(found, ((COLOURS[0], "-"), (COLOURS[1], "--"), (COLOURS[5], ":")), strict=False)
    handles = [_draw_group(ax, found[name], colour, dashes) for name, (colour, dashes) in looks]
    finite = np.concatenate([rows[np.isfinite(rows)] for rows in found.values()])
    if finite.min() > 0 and finite.max() > _WIDE * finite.min():
        ax.set_yscale("log")
    ax.set_xlabel("epoch")
    ax.set_ylabel("loss")
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    write_legend(ax, handles, [f"{name} ({len(rows)})" for name, rows in found.items()])
    strip_spines(ax)
    figure.draw_without_rendering()  # ticks get the style of now
    return figure


def _draw_group(ax: Axes, losses: Floats, colour: str, dashes: str) -> Any:
    """Draw the median of cells and the range of all; a cell that stopped early keeps its last loss."""
    for epoch in range(1, losses.shape[1]):
        gone = np.isnan(losses[:, epoch])
        losses[gone, epoch] = losses[gone, epoch - 1]
    at = np.arange(1, losses.shape[1] + 1)
    ax.fill_between(at, losses.min(0), losses.max(0), color=colour, alpha=0.18, linewidth=0)
    return ax.plot(at, np.median(losses, 0), color=colour, linestyle=dashes)[0]
