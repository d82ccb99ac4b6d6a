"""What all figures have in common: fonts, names that can be drawn, files that are the same each time."""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure

from suture.results.report.compared import ComparisonLike

# Type 42 embeds the fonts, as publishers ask.
STYLE: Any = {"pdf.fonttype": 42, "ps.fonttype": 42, "font.size": 8.0, "hatch.linewidth": 0.6}


def make_printable(name: str) -> str:
    """A name from outside without characters that a font cannot draw, such as line breaks."""
    return "".join(c if c.isprintable() else " " for c in name)


def format_networks(comparison: ComparisonLike) -> str:
    """Which networks are compared, as it stands above a figure."""
    return make_printable(f"{comparison.source} → {comparison.target}")


def render_png(figure: Figure, dpi: float) -> bytes:
    """The figure as PNG. Its layout is kept as it is from then on: laying out takes much of the time."""
    data = io.BytesIO()
    figure.set_dpi(dpi)
    with mpl.rc_context(STYLE):
        # Figure.savefig draws twice, once to lay out.
        FigureCanvasAgg(figure).print_png(data)  # type: ignore[no-untyped-call]
    figure.set_layout_engine("none")
    return data.getvalue()


def render_pdf(figure: Figure) -> bytes:
    """The figure as PDF with fonts embedded and without a date, so that one comparison gives the same
    bytes."""
    data = io.BytesIO()
    with mpl.rc_context(STYLE):
        FigureCanvasPdf(figure).print_pdf(  # type: ignore[no-untyped-call]
            data, metadata={"CreationDate": None})
    return data.getvalue()
