"""Files of figures, and the figures that a report saves."""

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
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from suture._base import replace_file
from suture.results.drawing.histograms import draw_histograms, list_scored_detectors
from suture.results.drawing.maps import Heat, draw_matrix
from suture.results.drawing.style import STYLE
from suture.results.heatmaps import format_networks, is_detail
from suture.results.measured import Measured
from suture.results.report import MAKER
from suture.results.verdicts import find_artefacts

_MOST_COLUMNS = 4


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
    draw_matrix(Heat.of(measured, name, hatched, titled=True), figure.add_subplot())
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
        draw_matrix(Heat.of(measured, name, hatched), figure.add_subplot(rows, columns, place + 1))
    figure.suptitle(format_networks(measured), fontsize=10, parse_math=False)
    return figure


def _compute_size(measured: Measured) -> tuple[float, float]:
    """Return width and height of one heat map in inches: cells of at most 0.36, and room for names."""
    cell = min(0.36, 6.0 / max(len(measured.sources), len(measured.targets), 1))
    names = max((len(s) for s in (*measured.sources, *measured.targets)), default=0)
    room = 0.9 + 0.06 * min(names, 40)
    return (max(1.6, cell * len(measured.targets)) + room, max(1.6, cell * len(measured.sources)) + room)
