"""Colours, signs and legends of curves, which the colour-blind and printers in grey can tell apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from suture.results.drawing.measuring import LEAST, find_place, measure_width, resolve_points

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")
"""Paul Tol's bright colours (personal.sron.nl/~pault)."""
SIGNS = ("o", "s", "^", "D", "v", "P", "X")
"""Signs of points, which distinguish groups in grey."""
METHOD_LINES: Mapping[str, Mapping[str, Any]] = {
    "dm": {"color": COLOURS[0], "marker": "o", "linestyle": "-"},
    "tlm": {"color": COLOURS[1], "marker": "s", "linestyle": "--"}}
"""How curves of each stitching method look."""
_HANDLE = 3.2
"""Room for the sign of an entry in a legend, in the size of its letters."""


def count_columns(labels: Sequence[str], width: float, size: float) -> int:
    """Return how many columns a legend may have to be at most so many points wide."""
    font = FontProperties()
    widest = max((measure_width(label, font) for label in labels), default=1.0)
    return max(1, min(len(labels), int(width / (size * (widest + _HANDLE)))))


def write_legend(ax: Axes, handles: Sequence[Any], labels: Sequence[str], title: str | None = None,
                 below: bool = False) -> None:
    """Write a legend above or below axes, in as many columns as fit, or in smaller letters."""
    size, font = resolve_points("legend.fontsize"), FontProperties()
    room = find_place(ax)[0] - 5 * size  # of which the numbers beside the axes take a part
    widest = max((measure_width(label, font) for label in labels), default=1.0)
    size = max(LEAST, min(size, room / (widest + _HANDLE)))
    legend = ax.legend(handles, labels, loc="upper left" if below else "lower left", frameon=False,
                       bbox_to_anchor=(0.0, 0.0 if below else 1.0),
                       ncols=count_columns(labels, room, size), borderaxespad=0.1,
                       handlelength=1.8, handletextpad=0.5, columnspacing=0.9, labelspacing=0.3,
                       fontsize=size, title=title, title_fontsize=size)
    for text in (*legend.get_texts(), legend.get_title()):
        text.set_parse_math(False)


def write_legend_below(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Write a legend below all axes of a figure, in as many columns as fit, or in smaller letters."""
    size, room = resolve_points("legend.fontsize"), 0.95 * 72 * figure.get_figwidth()
    widest = max((measure_width(label, FontProperties()) for label in labels), default=1.0)
    size = max(LEAST, min(size, room / (widest + _HANDLE)))
    legend = figure.legend(handles, labels, loc="outside lower center", frameon=False, fontsize=size,
                           ncols=count_columns(labels, room, size), handlelength=1.8, handletextpad=0.5,
                           columnspacing=0.9, labelspacing=0.3)
    for text in legend.get_texts():
        text.set_parse_math(False)


def strip_spines(ax: Axes, *sides: str) -> None:
    """Hide sides of the frame of axes, by default the top and the right one."""
    ax.spines[list(sides or ("top", "right"))].set_visible(False)
