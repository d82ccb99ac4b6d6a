"""Sizes and fonts of figures, and fonts that PDF files embed as publishers require."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure, SubFigure

from suture._base import checked, make_unknown_error

_EMBEDDED: Any = {"pdf.fonttype": 42, "ps.fonttype": 42}
"""Type 42 embeds TrueType fonts; matplotlib's default, Type 3, fails the checks of many conferences."""
STYLE: Any = {**_EMBEDDED, "font.size": 8.0, "hatch.linewidth": 0.6, "figure.figsize": (5.4, 4.2)}
"""Style of the figures of pages and reports."""
# STIX comes with matplotlib and looks like Times, the font of most proceedings; DejaVu has more signs.
_PAPER: Mapping[str, Any] = {
    **STYLE, "font.family": ["STIXGeneral", "DejaVu Sans"], "mathtext.fontset": "stix", "axes.titlesize": 8.5,
    "axes.labelsize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7,
    "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.major.size": 2.5,
    "ytick.major.size": 2.5, "lines.linewidth": 1.1, "lines.markersize": 3, "savefig.dpi": 300,
    "figure.dpi": 150}
_STYLES: Mapping[str, Mapping[str, Any]] = {
    "column": {**_PAPER, "figure.figsize": (3.3, 3.3)},
    "two-column": {**_PAPER, "figure.figsize": (6.75, 3.6)},
    "slide": {**_EMBEDDED, "figure.figsize": (10.0, 5.2), "font.size": 16, "font.family": ["DejaVu Sans"],
              "axes.titlesize": 18, "axes.labelsize": 16, "xtick.labelsize": 14, "ytick.labelsize": 14,
              "legend.fontsize": 14, "lines.linewidth": 2.4, "lines.markersize": 7, "hatch.linewidth": 1.2,
              "savefig.dpi": 150}}


@contextmanager
def _use(kind: str) -> Iterator[None]:
    with mpl.rc_context(dict(_STYLES[kind])):  # type: ignore[arg-type]
        yield


@checked
def style(kind: str) -> Any:
    """Set sizes and fonts of figures for a place, within a ``with`` block; figures drawn there keep them.

    >>> with suture.style("column"):
    ...     result.plot_pair().savefig("pair.pdf")

    Args:
        kind: ``"column"`` (3.3 inches wide, a column of a conference paper), ``"two-column"`` (6.75 inches)
            or ``"slide"`` (10 inches, large letters). Papers get STIX, which looks like Times.

    Raises:
        SutureError: no such style.
    """
    if kind not in _STYLES:
        raise make_unknown_error("style", kind, _STYLES)
    return _use(kind)


def embed_fonts(figure: Figure | SubFigure | None) -> None:
    """Make a figure embed TrueType fonts in PDF and PostScript files, whoever saves it.

    A document of several figures (`matplotlib.backends.backend_pdf.PdfPages`) has one type of fonts, which
    the settings decide.
    """
    root = figure.get_figure(root=True) if figure is not None else None
    if isinstance(root, Figure) and "savefig" not in vars(root):
        # On the figure itself, because it may be the user's own; matplotlib has no setting of one figure.
        vars(root)["savefig"] = partial(_save_embedded, root)


def _save_embedded(figure: Figure, fname: Any, **options: Any) -> None:
    save: Callable[..., None] = partial(type(figure).savefig, figure, fname, **options)
    if hasattr(fname, "get_pagecount"):  # a document of several figures, PdfPages
        save()
    else:
        with mpl.rc_context(_EMBEDDED):
            save()
