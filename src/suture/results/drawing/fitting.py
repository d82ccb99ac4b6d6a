"""Titles and numbers in cells that fit their room, found anew whenever a figure is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.text import Text

from suture.results.drawing.measuring import (
    COMFORTABLE,
    LEAST,
    SPACING,
    find_free_width,
    find_size,
    fit_words,
    measure_height,
    measure_width,
)


class WordsFitting(Artist):
    """Fits a text centred over or below axes, such as their title, to the room at every layout."""

    def __init__(self, ax: Axes, text: Text, words: str, top: float) -> None:
        super().__init__()
        self.set_zorder(-1)
        self.set_in_layout(False)
        self.text, self._words, self._top = text, words, top
        self._last, self._written = (0.0, 0.0), ""
        text.set_text("")
        text.set_parse_math(False)  # a dollar sign in a name would start a formula
        ax.add_artist(self)
        self.fit()

    def draw(self, renderer: Any) -> None:
        """Fit the text; nothing is drawn."""
        self.fit(self._last[1])

    def fit(self, most: float | None = None) -> float:
        """Break the text into lines, choose its size, and return it; a text of the user's stays.

        Args:
            most: largest size in points. Default: as given.
        """
        if isinstance(self.axes, Axes) and self.text.get_text() == self._written:
            room = find_free_width(self.axes), most or self._last[1] or self._top
            if abs(room[0] - self._last[0]) > 1 or room[1] != self._last[1]:
                self._last = room
                fit_words(self.text, self._words, *room)
                self._written = self.text.get_text()
        return float(self.text.get_fontsize())


class SideFitting(Artist):
    """Fits words along the left side of axes to its height; where they cannot stand upright, the first lies.

    Args:
        words: lines, the outer ones first.
        beside: words at other axes of the figure, which have one size with these.
    """

    def __init__(self, ax: Axes, words: str, beside: Sequence[str] = ()) -> None:
        super().__init__()
        self.set_zorder(-1)
        self.set_in_layout(False)
        self._label, self._lines, self._written = ax.yaxis.label, words.split("\n"), words
        self._beside = tuple(beside)
        self._top = float(self._label.get_fontsize())
        self._label.set(text=words, parse_math=False, linespacing=SPACING)
        ax.add_artist(self)

    def draw(self, renderer: Any) -> None:
        """Fit the words; nothing is drawn."""
        self.fit()

    def fit(self) -> bool:
        """Set size and rotation; return True if they changed. Words of the user's stay."""
        if not isinstance(self.axes, Axes) or self._label.get_text() != self._written:
            return False
        before = self._label.get_rotation(), self._label.get_fontsize()
        font, height = self._label.get_fontproperties(), find_size(self.axes)[1]
        fitting = height / (max(measure_width(line, font) for line in (*self._lines, *self._beside)) or 1.0)
        upright = fitting >= LEAST
        self._written = "\n".join(self._lines) if upright else self._lines[0]
        across = max(LEAST, min(self._top, height / measure_height(font)))
        self._label.set(text=self._written, rotation=90 if upright else 0,
                        fontsize=min(self._top, fitting) if upright else across,
                        horizontalalignment="center" if upright else "right",
                        verticalalignment="bottom" if upright else "center")
        return before != (self._label.get_rotation(), self._label.get_fontsize())


class BarFitting(Artist):
    """Fits the numbers and the words along a colour bar to its length before they are drawn.

    Args:
        level: the bar lies.
    """

    def __init__(self, ax: Axes, level: bool) -> None:
        super().__init__()
        self.set_zorder(-1)
        self.set_in_layout(False)
        self._level = level
        self._axis: Any = ax.xaxis if level else ax.yaxis
        self._top = float(self._axis.label.get_fontsize())
        ax.add_artist(self)

    def draw(self, renderer: Any) -> None:
        """Fit the text; nothing is drawn."""
        self.fit()

    def fit(self) -> None:
        """Set the size of the words, and place the numbers, of which the middle one goes first."""
        if not isinstance(self.axes, Axes):
            return
        length, label = find_size(self.axes)[0 if self._level else 1], self._axis.label
        if not self._level:
            font, lines = label.get_fontproperties(), label.get_text().split("\n")
            widest = max(measure_width(line, font) for line in lines) or 1.0
            label.set_fontsize(max(LEAST, min(self._top, length / widest)))
        numbers = self._axis.get_ticklabels()
        if len(numbers) != 3:  # the user's own
            return
        font, size = numbers[0].get_fontproperties(), numbers[0].get_fontsize()
        sizes = [size * (measure_width(f"{n.get_text()} ", font) if self._level else 1.1) for n in numbers]
        numbers[1].set_visible(length >= sum(sizes))
        outside = length < sizes[0] + sizes[2]
        if self._level:  # within, because the numbers at the ends would meet those of the next bar
            for number, side in zip(numbers[::2], ("right", "left") if outside else ("left", "right"),
                                    strict=True):
                number.set_horizontalalignment(side)
        else:
            for number, side in zip(numbers[::2], ("top", "bottom"), strict=True):
                number.set_verticalalignment(side if outside else "center_baseline")


@dataclass
class CellText:
    """A text of a cell: the forms that its number may take, the longest first, and the sign after it."""

    text: Text
    forms: tuple[str, ...]
    sign: str


class CellFitting(Artist):
    """Fits the numbers and signs of a heat map to its cells before they are drawn.

    All cells have one size and one number of digits. Where a number of `LEAST` points is too wide, numbers
    are left out, and signs alone remain, as small as the cells.
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
        sign = min(self._top, 0.95 * min(cell) / self._line)
        for part in self._cells:
            shown = part.sign if form is None else part.forms[form] + part.sign
            part.text.set_text(shown)
            part.text.set_fontsize(sign if form is None else points)
            part.text.set_visible(bool(shown))

    def _choose(self, width: float, height: float) -> tuple[int | None, float]:
        """Return the form of the numbers, None for none, and their size in points."""
        sizes = [min(self._top, 0.8 * width / bare, 0.9 * width / signed, 0.96 * height / self._line)
                 for bare, signed in self.widths]
        for least in (min(self._top, COMFORTABLE), LEAST):
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
