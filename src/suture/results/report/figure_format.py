"""Format of all figures: fonts, printable names, and reproducible files."""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure

from suture.results.measured import Measured

# Type 42 embeds the fonts, as publishers require.
STYLE: Any = {"pdf.fonttype": 42, "ps.fonttype": 42, "font.size": 8.0, "hatch.linewidth": 0.6}


def make_printable(name: str) -> str:
    """Replace characters of a name that a font cannot draw, such as line breaks, by blanks."""
    return "".join(c if c.isprintable() else " " for c in name)


def format_networks(measured: Measured) -> str:
    """Format the names of the compared networks as a title."""
    return make_printable(f"{measured.source} → {measured.target}")


@mpl.rc_context(STYLE)
def render_png(figure: Figure, dpi: float) -> bytes:
    """Render a figure as PNG, then fix its layout, because computing it is slow."""
    data = io.BytesIO()
    figure.set_dpi(dpi)
    # Figure.savefig would draw twice, once only for the layout.
    FigureCanvasAgg(figure).print_png(data)  # type: ignore[no-untyped-call]
    figure.set_layout_engine("none")
    return data.getvalue()


@mpl.rc_context(STYLE)
def render_pdf(figure: Figure) -> bytes:
    """Render a figure as PDF with embedded fonts and no date, so that the same figure has the same bytes."""
    data = io.BytesIO()
    FigureCanvasPdf(figure).print_pdf(data, metadata={"CreationDate": None})  # type: ignore[no-untyped-call]
    return data.getvalue()
