"""Text that fits its room: sizes, digits, rotation and ellipses, found anew whenever a figure is laid out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.font_manager import FontProperties, font_scalings
from matplotlib.text import Text
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FixedLocator, FuncFormatter

LEAST = 5.0
"""Points of the smallest legible text."""
_COMFORTABLE = 6.0
"""Points that names get before they are rotated, and numbers before they lose a digit."""
_SLACK = 1.07
"""Room for a renderer that rounds letters to whole pixels."""
_SHARE = 0.36
"""Largest share of a map's place that the names on one side take."""
_SHORT = 4
"""Letters of a name that is never rotated."""


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


def shorten_names(names: Sequence[str], fits: Callable[[str], bool]) -> list[str]:
    """Shorten dotted names that do not fit, by ellipses.

    An ellipsis replaces the parts that all begin with, then those that all end with, one after another, then
    what is left of the middle of long names.
    """
    parts = [name.split(".") for name in names]
    head = _count_common(parts)
    tail = _count_common([p[head:][::-1] for p in parts])
    ways = [list(names)]
    ways += [["…" * (head > 0) + ".".join(p[head:len(p) - cut]) + "…" * (cut > 0) for p in parts]
             for cut in range(tail + 1)]
    fitting = next((way for way in ways if all(map(fits, way))), None)
    return fitting or [_cut_middle(name, fits) for name in ways[-1]]


def _count_common(parts: Sequence[Sequence[str]]) -> int:
    """Count the first parts that all names share, of which each keeps at least one more."""
    count = 0
    while len(parts) > 1 and all(len(p) > count + 1 and p[count] == parts[0][count] for p in parts):
        count += 1
    return count


def _cut_middle(name: str, fits: Callable[[str], bool]) -> str:
    shown = name
    for kept in range(len(name) - 1, 0, -1):
        if fits(shown):
            break
        head = kept // 3  # the end of a dotted name says more than its beginning
        shown = f"{name[:head].rstrip('…')}…{name[len(name) - (kept - head):].lstrip('…')}"
    return shown


def find_place(ax: Axes) -> tuple[float, float]:
    """Return width and height in points of what the figure gives to axes and their labels."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    width, height = (72 * side for side in figure.get_size_inches())
    spec = ax.get_subplotspec()
    if spec is None:
        return float(width), float(height)
    rows, columns = spec.get_gridspec().get_geometry()
    return (float(width) / columns * len(spec.colspan), float(height) / rows * len(spec.rowspan))


def find_size(ax: Axes) -> tuple[float, float]:
    """Return width and height of axes in points."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    return ax.bbox.width * 72 / figure.dpi, ax.bbox.height * 72 / figure.dpi


class NameTicks(FixedLocator):
    """Ticks with names at 0, 1, ..., whose size, rotation and number follow the room at every layout.

    Names lie level if they fit so, else upright. They shrink to `LEAST` points; then every second, third, ...
    is shown, and names that are too long get an ellipsis. A size or rotation that the user sets stays.
    """

    def __init__(self, names: Sequence[str], points: float | None = None) -> None:
        super().__init__(range(len(names)))
        self.names = list(names)
        self.shown = list(names)
        self._points = points
        self._room: tuple[float, float] | None = None
        self._last: tuple[float, float] | None = None
        self._step = 1

    def put_on(self, axis: Axis) -> None:
        """Put names on an axis."""
        axis.set_major_locator(self)
        axis.set_major_formatter(FuncFormatter(self._format))
        axis.set_tick_params(length=0)
        for tick in axis.get_major_ticks(len(self.names)):  # made now, in the style of now
            tick.label1.set_parse_math(False)
        self._top = self._points or resolve_points(f"{axis.axis_name}tick.labelsize")  # type: ignore[attr-defined]

    def _format(self, place: float, _: int | None = None) -> str:
        k = round(place)
        return self.shown[k] if 0 <= k < len(self.shown) else ""

    def __call__(self) -> Any:
        places = super().__call__()
        return places if self.axis is None or not self.names else places[::self._fit(self.axis)]

    def _fit(self, axis: Any) -> int:
        """Set size, rotation and texts; return the step from name to name."""
        ax, label = axis.axes, axis.majorTicks[0].label1
        if self._last is not None and self._last != (label.get_fontsize(), label.get_rotation()):
            return 1  # the user's own
        level = axis.axis_name == "x"
        cell = find_size(ax)[0 if level else 1] / len(self.names)
        room = _SHARE * find_place(ax)[0]
        if (cell, room) != self._room:
            self._room, font = (cell, room), label.get_fontproperties()
            self.shown = self.names

            def fit() -> FittedNames:
                return fit_names([measure_width(n, font) for n in self.shown], cell, room, self._top,
                                 measure_height(font), level)

            found = fit()
            if (longest := found.longest) is not None:
                self.shown = shorten_names(self.names, lambda name: measure_width(name, font) <= longest)
                found = fit()
            axis.set_tick_params(labelsize=found.points, labelrotation=found.rotation)
            self._last, self._step = (found.points, found.rotation), found.step
        return self._step


@dataclass(frozen=True)
class FittedNames:
    """How names are written: size in points, rotation, step from one to the next, greatest width in sizes."""

    points: float
    rotation: float
    step: int
    longest: float | None


def fit_names(widths: Sequence[float], cell: float, room: float, top: float, line: float,
              level: bool) -> FittedNames:
    """Fit names to cells.

    Args:
        widths: of the names, in their size.
        cell, room: points between two names, and for the length of a name across.
        top: largest size in points.
        line: height of a line in the size.
        level: names lie along their axis unless they are rotated.
    """
    widest = max(widths, default=0.0) or 1.0
    if level:
        size = math.floor(2 * min(top, cell / (widest + 0.3))) / 2
        if size >= min(top, _COMFORTABLE):
            return FittedNames(size, 0.0, 1, None)
        if widest <= 0.65 * _SHORT:
            return FittedNames(min(top, LEAST + 1), 0.0, math.ceil((LEAST + 1) * (widest + 0.3) / cell), None)
    size = max(LEAST, math.floor(2 * min(top, cell / line)) / 2)
    step = max(1, math.ceil(size * line / cell - 0.01))
    if size * widest > room:
        size = max(LEAST, math.floor(2 * room / widest) / 2)
    return FittedNames(size, 90.0 if level else 0.0, step, room / size if size * widest > room else None)


@dataclass
class CellText:
    """A text of a cell: the forms that its number may take, the longest first, and the sign after it."""

    text: Text
    forms: tuple[str, ...]
    sign: str


class CellFitting(Artist):
    """Fits the numbers and signs of a heat map to its cells before they are drawn.

    All cells have one size and one number of digits. Where a number of `LEAST` points is too wide, numbers
    are left out, and signs alone remain.
    """

    def __init__(self, ax: Axes, shape: tuple[int, int], cells: Sequence[CellText], top: float,
                 forced: bool) -> None:
        super().__init__()
        self.set_zorder(-1)  # before the texts
        self.set_in_layout(False)
        self._shape, self._cells, self._top, self._forced = shape, cells, top, forced
        self._last: tuple[float, float] | None = None
        self.widths: list[tuple[float, float]] = []
        if cells:
            font = cells[0].text.get_fontproperties()
            self._line = measure_height(font)
            for forms in zip(*([(f, f + c.sign) for f in c.forms] for c in cells), strict=True):
                bare, signed = ([measure_width(t, font) for t in texts]
                                for texts in zip(*forms, strict=True))
                self.widths.append((max(bare), max(signed)))
        ax.add_artist(self)
        self.fit(ax)

    def draw(self, renderer: Any) -> None:
        """Fit the texts; nothing is drawn."""
        if isinstance(self.axes, Axes):
            self.fit(self.axes)

    def fit(self, ax: Axes) -> None:
        """Set size and form of every text."""
        width, height = find_size(ax)
        cell = width / max(1, self._shape[1]), height / max(1, self._shape[0])
        if not self._cells or cell == self._last:
            return
        self._last = cell
        form, points = self._choose(*cell)
        sign = min(self._top, max(3.0, min(cell) / self._line))
        for part in self._cells:
            shown = part.sign if form is None else part.forms[form] + part.sign
            part.text.set_text(shown)
            part.text.set_fontsize(sign if form is None else points)
            part.text.set_visible(bool(shown))

    def _choose(self, width: float, height: float) -> tuple[int | None, float]:
        """Return the form of the numbers, None for none, and their size in points."""
        sizes = [min(self._top, 0.84 * width / bare, 0.98 * width / signed, 0.96 * height / self._line)
                 for bare, signed in self.widths]
        for least in (min(self._top, _COMFORTABLE), LEAST):
            for form, size in enumerate(sizes):
                if size >= least:
                    return form, size
        return (len(sizes) - 1, LEAST) if self._forced and sizes else (None, 0.0)


def share_fit(fittings: Sequence[CellFitting]) -> None:
    """Give the numbers of several heat maps with cells of one size the same size and digits."""
    numbered = [f.widths for f in fittings if f.widths]
    for fitting in fittings:
        if fitting.widths:
            fitting.widths = [(max(bare), max(signed)) for bare, signed in
                              (zip(*forms, strict=True) for forms in zip(*numbered, strict=True))]
