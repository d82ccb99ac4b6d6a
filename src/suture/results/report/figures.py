"""Heat maps of a comparison, with one colour scale per measure, so that figures can be compared."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle

from suture._base import replace_file
from suture.numbers import Floats, Measure, get_measure
from suture.results.cell_verdict import find_artefacts
from suture.results.measured import Measured
from suture.results.report import histograms
from suture.results.report.figure_format import STYLE, format_networks, make_printable, render_pdf, render_png

ANNOTATED_SITES = 12
"""Largest number of rows and columns of a heat map with values written into it."""
_MOST_COLUMNS = 4
HATCH_LEGEND = "hatched: works, out of distribution"


@cache  # because matplotlib copies a colour map at every access
def choose_colormap(entry: Measure) -> Colormap:
    """Return viridis, reversed if smaller is more similar: bright always means similar."""
    return mpl.colormaps["viridis" if entry.larger_is_more_similar else "viridis_r"]


def pick_colours(value: float, entry: Measure) -> tuple[str, str]:
    """Return the hex colours of a cell with this value: background and legible text."""
    share = (value - entry.low) / (entry.high - entry.low)
    red, green, blue, _ = choose_colormap(entry)(min(1.0, max(0.0, share)))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)]
    luminance = float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
    # Contrast ratios of WCAG 2 with white and with black.
    white = 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05
    return to_hex((red, green, blue)), "#ffffff" if white else "#000000"


def format_value(value: float, digits: int = 3) -> str:
    """Format a value for a cell, with fewer digits from 10 on (residuals have no upper limit)."""
    size = abs(value)
    if size < 0.5 * 10**-digits:
        value = 0.0  # avoids "-0.000"
    if size < 10:
        return f"{value:.{digits}f}"
    return f"{value:.1f}" if size < 100 else f"{value:.0f}" if size < 10_000 else f"{value:.1e}"


def draw_heatmap(measured: Measured, name: str, ax: Axes, hatched: Mapping[str, pd.DataFrame],
                 annotate: bool = True, networks: str = "") -> None:
    """Draw one measure of a comparison; marked cells get a star, cells without a value are grey.

    Values beyond the measure's colour limits get the limit's colour, and the colour bar an arrow.

    Args:
        hatched: artefacts by stitching method, to be hatched.
        annotate: write the values into the cells (at most 12 x 12 cells).
        networks: second line of the title.
    """
    matrix, measure, starred = measured.matrix(name), get_measure(name), measured.marks(name).to_numpy() != ""
    values, size = matrix.to_numpy(dtype=np.float64), max(matrix.shape)
    lined = np.zeros(values.shape, bool)
    if name.partition(".")[0] in hatched:
        lined = hatched[name.partition(".")[0]].to_numpy() & ~np.isnan(values)
    image = ax.imshow(np.ma.masked_invalid(values), cmap=choose_colormap(measure),
                      norm=Normalize(measure.low, measure.high), aspect="equal", interpolation="nearest")
    for cell, value in np.ndenumerate(values):
        if math.isnan(value):
            ax.add_patch(Rectangle((cell[1] - 0.5, cell[0] - 0.5), 1, 1, facecolor="0.88", edgecolor="0.55",
                                   hatch="////", linewidth=0))
        else:
            _draw_cell(ax, cell, float(value), measure, size, annotate and size <= ANNOTATED_SITES,
                       bool(starred[cell]), bool(lined[cell]))
    _label_axes(matrix, ax, HATCH_LEGEND if lined.any() else "")
    # A dollar sign in a name would start a formula.
    title = "\n".join(make_printable(line) for line in (measure.label, networks) if line)
    ax.set_title(title, fontsize=8.5, parse_math=False)
    _draw_colour_bar(image, values, measure, ax)


def _draw_cell(ax: Axes, cell: tuple[int, ...], value: float, measure: Measure, size: int,
               annotated: bool, starred: bool, lined: bool) -> None:
    """Draw hatching, number and star in a cell of a heat map with `size` rows or columns."""
    i, j = cell
    ground, ink = pick_colours(value, measure)
    small = min(7.5, 46 / size)
    if lined:
        ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor="none", edgecolor=ink, hatch="\\\\\\",
                               linewidth=0, gid="hatched"))
    if annotated:
        # The box keeps the hatching off the number.
        box = {"facecolor": ground, "edgecolor": "none", "pad": 0.6} if lined else None
        ax.text(j, i, format_value(value, 3 if size <= 6 else 2), ha="center", va="center", color=ink,
                fontsize=small, bbox=box)
    if starred:
        ax.text(j + 0.45, i - 0.45, "*", ha="right", va="top", color=ink, fontsize=small, gid="mark")


def _label_axes(matrix: pd.DataFrame, ax: Axes, legend: str) -> None:
    sources = [make_printable(str(name)) for name in matrix.index]
    targets = [make_printable(str(name)) for name in matrix.columns]
    small = min(7.5, max(3.0, 90 / max(matrix.shape)))
    long = max((len(t) for t in targets), default=0) > 4
    ax.set_xticks(range(len(targets)), targets, fontsize=small, parse_math=False, rotation=90 if long else 0)
    ax.set_yticks(range(len(sources)), sources, fontsize=small, parse_math=False)
    ax.tick_params(length=0)
    ax.set_xlabel(f"target\n{legend}" if legend else "target", fontsize=8 if not legend else 7)
    ax.set_ylabel("source", fontsize=8)
    for spine in ax.spines.values():
        spine.set_visible(False)


def _draw_colour_bar(image: ScalarMappable, values: Floats, measure: Measure, ax: Axes) -> None:
    figure = ax.get_figure(root=True)
    if figure is None:
        return
    below, above = bool((values < measure.low).any()), bool((values > measure.high).any())
    extend = {(True, True): "both", (True, False): "min", (False, True): "max"}.get((below, above), "neither")
    bar = figure.colorbar(image, ax=ax, fraction=0.046, pad=0.03, extend=extend)
    bar.set_ticks([measure.low, (measure.low + measure.high) / 2, measure.high])
    bar.ax.tick_params(labelsize=6.5, length=2)
    bar.set_label("more similar →" if measure.larger_is_more_similar else "← more similar", fontsize=6.5)
    bar.outline.set_visible(False)


@mpl.rc_context(STYLE)
def draw_overview(measured: Measured, measures: Sequence[str] | None = None) -> Figure:
    """Draw measures side by side, at most four in a row; by default all of the comparison."""
    names = list(measured.measures if measures is None else measures)
    columns = max(1, min(_MOST_COLUMNS, len(names)))
    rows = max(1, math.ceil(len(names) / columns))
    width, height = _compute_size(measured)
    hatched = find_artefacts(measured)
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


# Average precision, FPR at 95 % recall, and the parts of the Fréchet distance (shift, shrinkage, rotation).
_DETAILS = ("ap", "fpr95", "frechet")


def is_detail(name: str) -> bool:
    """Return True if a measure adds detail to another one, such as a part of it; overviews leave it out."""
    kind, of, _ = name.rpartition(".")[2].partition("_")
    return bool(of) and kind in _DETAILS


def save_figures(measured: Measured, folder: str | os.PathLike[str]) -> list[Path]:
    """Save each measure, histograms of detector scores and an overview ``all``, as PNG and PDF.

    PDF files embed fonts. PNG files have 200 dpi, the overview 110. Details (`is_detail`) are left out;
    `Comparison.plot` draws them. Files of the same names are replaced, others kept. Return the paths, such as
    ``dm.relative_accuracy.png`` and ``scores_mahalanobis.png``.
    """
    hatched = find_artefacts(measured)
    names = [name for name in measured.measures if not is_detail(name)]
    makers: dict[str, Callable[[], Figure]] = {
        name: partial(_make_figure, measured, name, hatched) for name in names}
    makers |= {f"scores_{name}": partial(histograms.draw_histograms, measured, name)
               for name in histograms.list_scored_detectors(measured)}
    makers["all"] = partial(draw_overview, measured, names)
    paths = []
    for stem, make in makers.items():
        figure = make()
        for kind, data in (("png", render_png(figure, 110 if stem == "all" else 200)),
                           ("pdf", render_pdf(figure))):
            paths.append(Path(folder) / f"{stem}.{kind}")
            replace_file(paths[-1], data)
    return paths


@mpl.rc_context(STYLE)
def _make_figure(measured: Measured, name: str, hatched: Mapping[str, pd.DataFrame]) -> Figure:
    width, height = _compute_size(measured)
    figure = Figure(figsize=(width, height + 0.15), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))
    draw_heatmap(measured, name, figure.add_subplot(), hatched, networks=format_networks(measured))
    return figure
