"""Sizes of text and of the room for it, in points."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties, font_scalings
from matplotlib.text import Text
from matplotlib.textpath import text_to_path

LEAST = 5.0
"""Points of the smallest legible text."""
COMFORTABLE = 6.0
"""Points that names get before they are rotated, and numbers before they lose a digit."""
_SLACK, PIXEL = 1.07, 0.8
"""Room for a renderer that rounds letters to whole pixels: a factor, and points."""
SPACING = 1.1
"""Distance of lines in the height of one; the default of some fonts would be twice as far."""


def resolve_points(setting: str, factor: float = 1.0) -> float:
    """Return a font size of matplotlib's settings, such as ``"xtick.labelsize"``, in points."""
    settings: Any = mpl.rcParams
    size = settings[setting]
    scale = size if not isinstance(size, str) else font_scalings[size] * settings["font.size"]
    return float(scale) * factor


def measure_width(text: str, font: FontProperties) -> float:
    """Return the width of a line of text in its font's size."""
    return _measure(text, *_name_font(font))[0]


def measure_height(font: FontProperties) -> float:
    """Return the height of a line of text in its font's size."""
    return _measure("lp", *_name_font(font))[1]


def _name_font(font: FontProperties) -> tuple[Any, ...]:
    settings: Any = mpl.rcParams
    chosen = tuple(str(settings.get(f"font.{family}")) for family in font.get_family())
    return (tuple(font.get_family()), font.get_style(), font.get_variant(), font.get_weight(),
            font.get_stretch(), chosen)


@lru_cache(maxsize=20_000)
def _measure(text: str, family: tuple[str, ...], style: Any, variant: Any, weight: Any, stretch: Any,
             chosen: tuple[str, ...]) -> tuple[float, float]:
    """Measure a line of text in its font's size; it is slow, and a figure is laid out several times."""
    font = FontProperties(family=list(family), style=style, variant=variant, weight=weight, stretch=stretch,
                          size=100)
    width, height, _ = text_to_path.get_text_width_height_descent(text, font, False)
    return float(width) / 100 * _SLACK, float(height) / 100 * _SLACK


def wrap_text(text: str, width: float, font: FontProperties) -> str:
    """Break a text at blanks into lines of at most a width in points, if its words allow."""
    width /= font.get_size_in_points()
    lines: list[str] = []
    for word in text.split(" "):
        if lines and measure_width(f"{lines[-1]} {word}", font) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "\n".join(lines)


def find_place(ax: Axes) -> tuple[float, float]:
    """Return width and height in points of what the figure gives to axes and their labels."""
    width, height = _find_points(_find_frame(ax), ax)
    spec = ax.get_subplotspec()
    if spec is None:
        return width, height
    rows, columns = spec.get_gridspec().get_geometry()
    return width / columns * len(spec.colspan), height / rows * len(spec.rowspan)


def _find_frame(ax: Axes) -> Any:
    """Return the box of the figure, or of the part of it (a subfigure), that holds axes."""
    figure = ax.get_figure(root=False)
    assert figure is not None
    return figure.bbox


def _find_points(box: Any, ax: Axes) -> tuple[float, float]:
    figure = ax.get_figure(root=True)
    assert figure is not None
    return float(box.width) * 72 / figure.dpi, float(box.height) * 72 / figure.dpi


def find_size(ax: Axes) -> tuple[float, float]:
    """Return width and height of axes in points."""
    return _find_points(ax.bbox, ax)


def find_free_width(ax: Axes) -> float:
    """Return the points that a text centred over axes may take without meeting the next axes' text."""
    figure, frame, box = ax.get_figure(root=True), _find_frame(ax), ax.bbox
    assert figure is not None
    centre = (box.x0 + box.x1) / 2
    width = 1.96 * min(centre - frame.x0, frame.x1 - centre)
    for other in figure.axes:  # a colour bar, which has no title, is axes too
        at, away = other.bbox, abs((other.bbox.x0 + other.bbox.x1) / 2 - centre)
        if (other.get_subplotspec() is not None and other.get_label() != "<colorbar>"
                and away > 0.01 * frame.width and at.y0 < box.y1 and box.y0 < at.y1):
            width = min(width, 0.97 * away)
    return float(width * 72 / figure.dpi)


def fit_words(text: Text, words: str, width: float, top: float) -> None:
    """Write words into a text, in at most one line more than given, else in smaller letters or more lines.

    A word that is too long for a line of the smallest letters loses its middle.
    """
    text.set_linespacing(SPACING)
    font, lines = text.get_fontproperties(), words.split("\n")
    sizes = [top - k / 2 for k in range(int(2 * max(0.0, top - COMFORTABLE)) + 1)] + [LEAST]
    for most in (len(lines) + 1, 99):
        for size in sizes:
            font.set_size(size)
            wrapped = "\n".join(wrap_text(line, width, font) for line in lines).split("\n")
            if len(wrapped) <= most and all(measure_width(w, font) * size <= width for w in wrapped):
                break
        else:
            continue
        break
    text.set_fontsize(size)
    text.set_text("\n".join(cut_middle(line, lambda part: measure_width(part, font) * size <= width)
                            for line in wrapped))


def cut_middle(name: str, fits: Callable[[str], bool]) -> str:
    """Replace the middle of a name that does not fit by an ellipsis."""
    shown = name
    for kept in range(len(name) - 1, 0, -1):
        if fits(shown):
            break
        head = kept // 3  # the end of a dotted name says more than its beginning
        shown = f"{name[:head].rstrip('…')}…{name[len(name) - (kept - head):].lstrip('…')}"
    return shown
