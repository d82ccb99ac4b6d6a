"""Heat maps of a measure in fixed colours, so that figures can be compared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize, to_hex
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from suture.numbers import Floats, Measure, get_measure
from suture.results.inference.nulls import find_chance
from suture.results.measured import Measured, take_cells

ANNOTATED_SITES = 12
"""Largest number of rows and columns of a heat map with values written into it."""
HATCH_LEGEND = "hatched: works, beyond what natural inputs reach"
CHANCE_SIGN = "°"
CHANCE_LEGEND = f"{CHANCE_SIGN}: not above chance"
# Average precision, FPR at 95 % recall, and the parts of the Fréchet distance (shift, shrinkage, rotation).
_DETAILS = ("ap", "fpr95", "frechet")


def make_printable(name: str) -> str:
    """Replace characters of a name that a font cannot draw, such as line breaks, by blanks."""
    return "".join(c if c.isprintable() else " " for c in name)


def format_networks(measured: Measured) -> str:
    """Format the names of the compared networks as a title."""
    return make_printable(f"{measured.source} → {measured.target}")


def is_detail(name: str) -> bool:
    """Return True if a measure adds detail to another one, such as a part of it; overviews leave it out."""
    kind, of, _ = name.rpartition(".")[2].partition("_")
    return bool(of) and kind in _DETAILS


@cache  # because matplotlib copies a colour map at every access
def choose_colormap(entry: Measure) -> Colormap:
    """Return viridis, reversed if smaller is more similar: bright always means similar."""
    return mpl.colormaps["viridis" if entry.larger_is_more_similar else "viridis_r"]


def pick_colours(value: float, entry: Measure) -> tuple[str, str]:
    """Return the hex colours of a cell with this value: background and legible text."""
    colours = choose_colormap(entry)
    share = min(1.0, max(0.0, (value - entry.low) / (entry.high - entry.low)))
    return _pick_step(colours.name, min(int(share * colours.N), colours.N - 1))


@cache  # a page has thousands of cells, in the 256 colours of a map
def _pick_step(colormap: str, step: int) -> tuple[str, str]:
    red, green, blue, _ = mpl.colormaps[colormap](step)
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


@dataclass(frozen=True, eq=False)
class Heat:
    """A matrix of one measure to draw.

    Attributes:
        matrix: values; rows are sources, columns targets; NaN where there is none.
        measure: what they are.
        starred, chance, lined: booleans of the cells that are marked, not above chance, and artefacts.
    """

    matrix: pd.DataFrame
    measure: Measure
    starred: NDArray[np.bool_]
    chance: NDArray[np.bool_]
    lined: NDArray[np.bool_]

    @classmethod
    def of(cls, measured: Measured, name: str, hatched: Mapping[str, pd.DataFrame]) -> Heat:
        """Take one measure of a comparison, with the artefacts of its methods."""
        matrix = measured.matrix(name)
        artefacts = hatched.get(name.partition(".")[0])
        lined = np.zeros(matrix.shape, bool) if artefacts is None else artefacts.to_numpy() & matrix.notna()
        return cls(matrix, get_measure(name), take_cells(measured, name, "mark") != "",
                   find_chance(measured, name), np.asarray(lined))


def draw_heatmap(measured: Measured, name: str, ax: Axes, hatched: Mapping[str, pd.DataFrame],
                 annotate: bool = True, titled: bool = False) -> None:
    """Draw one measure of a comparison; marked cells get a star, those at chance a °, missing ones are grey.

    Values beyond the measure's colour limits get the limit's colour, and the colour bar an arrow.

    Args:
        hatched: artefacts by stitching method, to be hatched.
        annotate: write the values into the cells (at most 12 x 12 cells).
        titled: name the networks in a second line of the title.
    """
    draw_matrix(Heat.of(measured, name, hatched), ax, annotate,
                f"\n{format_networks(measured)}" if titled else "")


def draw_matrix(heat: Heat, ax: Axes, annotate: bool = True, subtitle: str = "",
                points: float | None = None) -> None:
    """Draw a matrix of a measure as `draw_heatmap` does.

    Args:
        subtitle: put after the title.
        points: size of the labels. Default: by their number.
    """
    matrix, measure = heat.matrix, heat.measure
    values, size = matrix.to_numpy(dtype=np.float64), max(matrix.shape)
    image = ax.imshow(np.ma.masked_invalid(values), cmap=choose_colormap(measure),
                      norm=Normalize(measure.low, measure.high), aspect="equal", interpolation="nearest")
    if np.isnan(values).any():  # the image is transparent there, and shows what is behind it
        ax.add_patch(Rectangle((-0.5, -0.5), *values.T.shape, facecolor="0.88", edgecolor="0.55",
                               hatch="////", linewidth=0, zorder=-1, in_layout=False))
    for cell, value in np.ndenumerate(values):
        if not math.isnan(value):
            _draw_cell(ax, cell, float(value), measure, size, annotate and size <= ANNOTATED_SITES,
                       bool(heat.starred[cell]), bool(heat.lined[cell]))
            if heat.chance[cell]:
                _draw_sign(ax, cell, pick_colours(float(value), measure)[1], size)
    legends = (HATCH_LEGEND, heat.lined), (CHANCE_LEGEND, heat.chance)
    _label_axes(matrix, ax, "; ".join(words for words, seen in legends if seen.any()), points)
    # A dollar sign in a name would start a formula.
    ax.set_title(make_printable(measure.label) + subtitle, fontsize=8.5, parse_math=False)
    _draw_colour_bar(image, values, measure, ax)


def _draw_cell(ax: Axes, cell: tuple[int, ...], value: float, measure: Measure, size: int,
               annotated: bool, starred: bool, lined: bool) -> None:
    """Draw hatching, number and star in a cell of a heat map with `size` rows or columns."""
    # They lie within the axes, so the layout is computed without them, in less time.
    i, j = cell
    ground, ink = pick_colours(value, measure)
    small = min(7.5, 46 / size)
    if lined:
        ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor="none", edgecolor=ink, hatch="\\\\\\",
                               linewidth=0, gid="hatched", in_layout=False))
    if annotated:
        # The box keeps the hatching off the number.
        box = {"facecolor": ground, "edgecolor": "none", "pad": 0.6} if lined else None
        ax.text(j, i, format_value(value, 3 if size <= 6 else 2), ha="center", va="center", color=ink,
                fontsize=small, bbox=box, in_layout=False)
    if starred:
        ax.text(j + 0.45, i - 0.45, "*", ha="right", va="top", color=ink, fontsize=small, gid="mark",
                in_layout=False)


def _draw_sign(ax: Axes, cell: tuple[int, ...], ink: str, size: int) -> None:
    """Draw the sign of a cell that is not above chance, in its lower left corner."""
    ax.text(cell[1] - 0.42, cell[0] + 0.42, CHANCE_SIGN, ha="left", va="bottom", gid="chance", color=ink,
            fontsize=min(7.5, 46 / size), in_layout=False)


def _label_axes(matrix: pd.DataFrame, ax: Axes, legend: str, points: float | None) -> None:
    sources = [make_printable(str(name)) for name in matrix.index]
    targets = [make_printable(str(name)) for name in matrix.columns]
    small = points or min(7.5, max(3.0, 90 / max(matrix.shape)))
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
