"""Names along an axis, whose size, rotation and number follow the room at every layout."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter

from suture.results.drawing.fitting import SideFitting, WordsFitting
from suture.results.drawing.measuring import (
    COMFORTABLE,
    LEAST,
    PIXEL,
    cut_middle,
    find_place,
    find_size,
    measure_height,
    measure_width,
    resolve_points,
)

_SHARE = 0.36
"""Largest share of a map's place that the names on one side take."""
_SHORT = 4
"""Letters of a name that is never rotated."""


class NameTicks(FixedLocator):
    """Ticks with names at equal distances, whose size, rotation and number follow the room at every layout.

    Names lie level if they fit so, else upright. They shrink to `LEAST` points; then every second, third, ...
    is shown, and names that are too long get an ellipsis. A size or rotation that the user sets stays.

    Args:
        names: texts.
        points: largest size. Default: that of the settings.
        places: where on the axis. Default: 0, 1, ...
    """

    def __init__(self, names: Sequence[str], points: float | None = None,
                 places: Sequence[float] | None = None) -> None:
        self._places = np.arange(len(names), dtype=float) if places is None else np.asarray(places, float)
        super().__init__(self._places.tolist())
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
        self()  # after which another size is the user's own

    def _format(self, place: float, _: int | None = None) -> str:
        near = abs(self._places - place)
        return self.shown[int(near.argmin())] if len(near) and near.min() < 0.5 else ""

    def __call__(self) -> Any:
        places, axis = super().__call__(), self.axis
        if not isinstance(axis, Axis) or not self.names:
            return places
        for fitting in axis.axes.artists:  # a layout asks for ticks first, and then for the room of words
            if isinstance(fitting, WordsFitting | SideFitting):
                fitting.fit()
        return places[::self._fit(axis)]

    def _fit(self, axis: Any) -> int:
        """Set size, rotation and texts; return the step from name to name."""
        ax, label = axis.axes, axis.majorTicks[0].label1
        if self._last is not None and self._last != (label.get_fontsize(), label.get_rotation()):
            return 1  # the user's own
        level = axis.axis_name == "x"
        cell = find_size(ax)[0 if level else 1] / len(self.names)
        room = _SHARE * (min(find_place(ax)) if level else find_place(ax)[0])
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
        if size >= min(top, max(COMFORTABLE, 0.75 * top)):
            return FittedNames(size, 0.0, 1, None)
        if widest <= 0.65 * _SHORT:
            return FittedNames(min(top, LEAST + 1), 0.0, math.ceil((LEAST + 1) * (widest + 0.3) / cell), None)
    size = max(LEAST, math.floor(2 * min(top, (cell - PIXEL) / line)) / 2)
    step = max(1, math.ceil((size * line + PIXEL) / cell - 0.01))
    if size * widest > room:
        size = max(LEAST, math.floor(2 * room / widest) / 2)
    return FittedNames(size, 90.0 if level else 0.0, step, room / size if size * widest > room else None)


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
    return fitting or [cut_middle(name, fits) for name in ways[-1]]


def _count_common(parts: Sequence[Sequence[str]]) -> int:
    """Count the first parts that all names share, of which each keeps at least one more."""
    count = 0
    while len(parts) > 1 and all(len(p) > count + 1 and p[count] == parts[0][count] for p in parts):
        count += 1
    return count
