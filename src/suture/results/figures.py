"""Figures: format and files, heat maps of all measures, and histograms of a detector's scores."""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from suture._base import replace_file
from suture.numbers import METHOD_NAMES, Floats
from suture.results.heatmaps import draw_heatmap, format_networks, is_detail, make_printable
from suture.results.measured import Measured
from suture.results.report import MAKER
from suture.results.verdicts import find_artefacts

# Type 42 embeds the fonts, as publishers require.
STYLE: Any = {"pdf.fonttype": 42, "ps.fonttype": 42, "font.size": 8.0, "hatch.linewidth": 0.6}
BINS = 48
_MOST_COLUMNS = 4
# Paul Tol's bright colours, which the colour-blind can distinguish; dashes distinguish them in grey.
_LINES: Mapping[str, dict[str, Any]] = {
    "native": {"color": "0.75"}, "auxiliary": {"color": "#ccbb44", "linestyle": "--"},
    "unseen": {"color": "#aa3377", "linestyle": ":"}, "dm": {"color": "#4477aa"}, "tlm": {"color": "#ee6677"}}


@mpl.rc_context(STYLE)
def render_png(figure: Figure, dpi: float) -> bytes:
    """Render a figure as PNG, then fix its layout, because computing it is slow."""
    data = io.BytesIO()
    figure.set_dpi(dpi)
    # Figure.savefig would draw twice, once only for the layout.
    canvas: Any = FigureCanvasAgg(figure)
    canvas.print_png(data, metadata={"Software": MAKER})
    figure.set_layout_engine("none")
    return data.getvalue()


@mpl.rc_context(STYLE)
def render_pdf(figure: Figure) -> bytes:
    """Render a figure as PDF with embedded fonts and no date, so that the same figure has the same bytes."""
    data = io.BytesIO()
    canvas: Any = FigureCanvasPdf(figure)
    canvas.print_pdf(data, metadata={"CreationDate": None, "Creator": MAKER})
    return data.getvalue()


def list_files(measured: Measured) -> list[str]:
    """List the names of the files that `save_figures` writes."""
    return name_files(plan_figures(measured))


def name_files(drawn: Mapping[str, Callable[[], Figure]]) -> list[str]:
    """Name the files that `save_drawn` writes."""
    return [f"{_name_file(stem)}.{kind}" for stem in drawn for kind in ("png", "pdf")]


def save_figures(measured: Measured, folder: str | os.PathLike[str]) -> list[Path]:
    """Save each measure, histograms of detector scores and an overview ``all``; see `save_drawn`.

    Details (`is_detail`) are left out; `Comparison.plot` draws them.
    """
    return save_drawn(plan_figures(measured), folder)


def save_drawn(drawn: Mapping[str, Callable[[], Figure]], folder: str | os.PathLike[str]) -> list[Path]:
    """Save figures as PNG and PDF, and return the paths, such as ``dm.relative_accuracy.png``.

    PDF files embed fonts. PNG files have 200 dpi, the overview ``all`` 110. Files of the same names are
    replaced, others kept.
    """
    paths = []
    for stem, make in drawn.items():
        figure = make()
        for kind, data in (("png", render_png(figure, 110 if stem == "all" else 200)),
                           ("pdf", render_pdf(figure))):
            paths.append(Path(folder) / f"{_name_file(stem)}.{kind}")
            replace_file(paths[-1], data)
    return paths


def plan_figures(measured: Measured) -> dict[str, Callable[[], Figure]]:
    """Return functions that draw each figure, by its name."""
    hatched = find_artefacts(measured)
    names = [name for name in measured.measures if not is_detail(name)]
    made: dict[str, Callable[[], Figure]] = {
        name: partial(_make_figure, measured, name, hatched) for name in names}
    made |= {f"scores_{name}": partial(draw_histograms, measured, name)
             for name in list_scored_detectors(measured)}
    return made | {"all": partial(draw_overview, measured, names, hatched)}


def _name_file(stem: str) -> str:
    """Return the name of a figure without what would lead to another folder; a loaded one may hold that."""
    return re.sub(r"[/\\\0]|^\.+", "-", stem)[:200]


@mpl.rc_context(STYLE)
def _make_figure(measured: Measured, name: str, hatched: Mapping[str, pd.DataFrame]) -> Figure:
    width, height = _compute_size(measured)
    figure = Figure(figsize=(width, height + 0.15), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))
    draw_heatmap(measured, name, figure.add_subplot(), hatched, titled=True)
    return figure


@mpl.rc_context(STYLE)
def draw_overview(measured: Measured, names: Sequence[str],
                  hatched: Mapping[str, pd.DataFrame] | None = None) -> Figure:
    """Draw measures side by side, at most four in a row; `hatched` are the artefacts, if they are known."""
    hatched = find_artefacts(measured) if hatched is None else hatched
    columns = max(1, min(_MOST_COLUMNS, len(names)))
    rows = max(1, math.ceil(len(names) / columns))
    width, height = _compute_size(measured)
    figure = Figure(figsize=(columns * width, rows * height + 0.3),
                    layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))
    for place, name in enumerate(names):
        draw_heatmap(measured, name, figure.add_subplot(rows, columns, place + 1), hatched)
    figure.suptitle(format_networks(measured), fontsize=10, parse_math=False)
    return figure


def _compute_size(measured: Measured) -> tuple[float, float]:
    """Return width and height of one heat map in inches: cells of at most 0.36, and room for names."""
    cell = min(0.36, 6.0 / max(len(measured.sources), len(measured.targets), 1))
    names = max((len(s) for s in (*measured.sources, *measured.targets)), default=0)
    room = 0.9 + 0.06 * min(names, 40)
    return (max(1.6, cell * len(measured.targets)) + room, max(1.6, cell * len(measured.sources)) + room)


def list_scored_detectors(measured: Measured) -> list[str]:
    """List the detectors with scores of native and of stitched representations."""
    arrays = measured.arrays
    names = [name.partition(".")[2] for name in arrays if name.startswith("native.")]
    return [name for name in names if any(f"{method}.score_{name}" in arrays for method in METHOD_NAMES)]


def collect_scores(measured: Measured, detector: str, site: int) -> dict[str, Floats]:
    """Collect the scores at a target site by kind: native, auxiliary, unseen, and stitched by method.

    Stitched scores are those of all source layers. Self-stitching leaves out the layer itself, because its
    direct matching is the identity and would repeat the native scores.
    """
    arrays = measured.arrays
    found = {kind: arrays[f"{kind}.{detector}"][site] for kind in ("native", "auxiliary", "unseen")
             if f"{kind}.{detector}" in arrays}
    own = measured.same_network
    others = [i for i, s in enumerate(measured.sources) if not (own and s == measured.targets[site])]
    found |= {method: arrays[f"{method}.score_{detector}"][others, site] for method in METHOD_NAMES
              if f"{method}.score_{detector}" in arrays}
    flat = {kind: np.asarray(scores, dtype=np.float64).ravel() for kind, scores in found.items()}
    known = {kind: scores[~np.isnan(scores)] for kind, scores in flat.items()}
    return {kind: scores for kind, scores in known.items() if len(scores)}


def choose_bins(found: Mapping[str, Floats]) -> Floats:
    """Choose the bins (`BINS` + 1,) that all samples of a site share.

    They cover the middle 98 % of every sample, but at most four native ranges beyond the native range,
    because far outliers would shrink native scores to a line.
    """
    ends = {kind: np.percentile(finite, [1, 99]) for kind, scores in found.items()
            if len(finite := scores[np.isfinite(scores)])}
    if not ends:
        return np.linspace(-0.5, 0.5, BINS + 1)
    low, high = min(e[0] for e in ends.values()), max(e[1] for e in ends.values())
    if "native" in ends and ends["native"][1] > ends["native"][0]:
        a, b = ends["native"]
        low, high = max(low, a - 4 * (b - a)), min(high, b + 4 * (b - a))
    if not high > low:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, BINS + 1)


def compute_densities(found: Mapping[str, Floats], bins: Floats) -> dict[str, Floats]:
    """Compute histograms (`BINS`,) of area one; the end bins hold all values beyond them."""
    width = np.diff(bins)
    return {kind: np.histogram(np.clip(scores, bins[0], bins[-1]), bins)[0] / (len(scores) * width)
            for kind, scores in found.items()}


@mpl.rc_context(STYLE)
def draw_histograms(measured: Measured, detector: str) -> Figure:
    """Draw one panel per target site: scores of native, auxiliary, unseen auxiliary and stitched data.

    This is Figure 1c of Balogh and Jelasity (2025), with the scores of all source layers pooled.
    """
    n = len(measured.targets)
    columns = max(1, min(_MOST_COLUMNS, n))
    rows = max(1, -(-n // columns))
    made = Figure(figsize=(max(3.4, 1.75 * columns), 1.25 * rows + 0.85),
                  layout=ConstrainedLayoutEngine(w_pad=0.05, h_pad=0.05))
    handles: dict[str, Any] = {}
    for place, site in enumerate(measured.targets):
        ax = made.add_subplot(rows, columns, place + 1)
        handles |= _draw_panel(ax, collect_scores(measured, detector, place))
        ax.set_title(make_printable(site), fontsize=7.5, parse_math=False)
    if handles:
        shown = [kind for kind in _LINES if kind in handles]
        made.legend([handles[kind] for kind in shown], [METHOD_NAMES.get(kind, kind) for kind in shown],
                    loc="outside lower center", ncols=len(shown) if columns > 2 else 2, frameon=False,
                    fontsize=7, title="score, larger is more in-distribution; the ends hold all "
                                      "that lies beyond", title_fontsize=7)
    made.suptitle(f"{format_networks(measured)}, {make_printable(detector)}", fontsize=9,
                  parse_math=False)
    return made


def _draw_panel(ax: Axes, found: Mapping[str, Floats]) -> dict[str, Any]:
    """Draw the histograms of one site; return the handles of the legend by kind."""
    bins = choose_bins(found)
    handles: dict[str, Any] = {}
    heights = compute_densities(found, bins)
    for kind, height in heights.items():
        handles[kind] = ax.stairs(height, bins, fill=kind == "native", linewidth=1.0, gid=kind,
                                  **_LINES[kind])
    if heights:
        # High peaks, such as those of the end bins, would hide the native scores.
        native = heights.get("native", np.zeros(1)).max() or np.inf
        ax.set_ylim(0, 1.08 * max(min(h.max(), 2 * native) for h in heights.values()))
    ax.set_yticks([])
    ax.locator_params(axis="x", nbins=3)
    ax.tick_params(labelsize=6, length=2)
    for side in ("left", "right", "top"):
        ax.spines[side].set_visible(False)
    return handles
