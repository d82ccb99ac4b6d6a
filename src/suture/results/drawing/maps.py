"""Heat maps of matrices in fixed colours, so that figures can be compared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize, to_hex
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from suture._base import SutureError, checked, expect, make_unknown_error
from suture.numbers import METHOD_NAMES, Measure, get_measure
from suture.results.drawing.fitting import (
    BarFitting,
    CellFitting,
    CellText,
    SideFitting,
    WordsFitting,
)
from suture.results.drawing.measuring import LEAST, SPACING, find_place, measure_width, resolve_points
from suture.results.drawing.names import NameTicks
from suture.results.drawing.style import embed_fonts
from suture.results.heatmaps import (
    CHANCE_LEGEND,
    CHANCE_SIGN,
    GREY_LEGEND,
    HATCH_LEGEND,
    choose_colormap,
    choose_ink,
    format_networks,
    format_value,
    make_printable,
)
from suture.results.inference.nulls import find_chance
from suture.results.measured import Measured, take_cells

_MOST_NUMBERS = 30
"""Rows and columns from which no numbers are written, whatever the room."""


@dataclass(frozen=True, eq=False)
class Heat:
    """A matrix of one measure to draw.

    Attributes:
        matrix: values; rows are sources, columns targets; NaN where there is none.
        measure: what they are, or its name; it gives colours, limits and title.
        starred, lined, chance: booleans (rows, columns) of the cells that get a star, are hatched, or get a °
            because they are not above chance. None: no cell.
        vmin, vmax: limits of the colours. Default: the measure's, the same in every figure.
        cmap: colour map. Default: viridis, bright where similar.
        title: default: the measure's label.
        star: what a star says, in the legend.

    Raises:
        SutureError: a mask of another shape, limits that are no range, or no such measure or colour map.
    """

    matrix: pd.DataFrame
    measure: Measure | str
    starred: Any = None
    lined: Any = None
    chance: Any = None
    vmin: float | None = None
    vmax: float | None = None
    cmap: str | Colormap | None = None
    title: str | None = None
    star: str = "not to be trusted"

    def __post_init__(self) -> None:
        expect(isinstance(self.matrix, pd.DataFrame), "a table of pandas as matrix", self.matrix)
        if isinstance(self.measure, str):
            object.__setattr__(self, "measure", get_measure(self.measure))
        for name in ("starred", "lined", "chance"):
            given = getattr(self, name)
            mask = np.zeros(self.matrix.shape, bool) if given is None else np.asarray(given, bool)
            expect(mask.shape == self.matrix.shape, f"booleans of shape {self.matrix.shape} as {name}",
                   mask.shape)
            object.__setattr__(self, name, mask)
        low, high = self.limits
        expect(math.isfinite(low) and math.isfinite(high) and low < high, "vmin below vmax",
               f"vmin={low:g} and vmax={high:g}")
        object.__setattr__(self, "cmap", self._find_colours())

    @classmethod
    def of(cls, measured: Measured, name: str, hatched: Mapping[str, pd.DataFrame], titled: bool = False,
           **options: Any) -> Heat:
        """Take one measure of a comparison, with the artefacts of its methods.

        Args:
            hatched: artefacts by stitching method.
            titled: name the networks in a second line of the title.
        """
        matrix = measured.matrix(name)
        if titled:
            label = make_printable(get_measure(name).label)
            options = {"title": f"{label}\n{format_networks(measured)}", **options}
        artefacts = hatched.get(name.partition(".")[0])
        lined = None if artefacts is None else artefacts.to_numpy() & matrix.notna()
        return cls(matrix, name, take_cells(measured, name, "mark") != "", lined,
                   find_chance(measured, name), **options)

    def _find_colours(self) -> Colormap:
        if self.cmap is None:
            return choose_colormap(self.kind)
        if isinstance(self.cmap, Colormap):
            return self.cmap
        if self.cmap not in mpl.colormaps:
            raise make_unknown_error("colour map", str(self.cmap), list(mpl.colormaps))
        return mpl.colormaps[self.cmap]

    @property
    def kind(self) -> Measure:
        """The measure."""
        assert isinstance(self.measure, Measure)
        return self.measure

    @property
    def colours(self) -> Colormap:
        """The colour map."""
        assert isinstance(self.cmap, Colormap)
        return self.cmap

    @property
    def limits(self) -> tuple[float, float]:
        """Limits of the colours."""
        return (self.kind.low if self.vmin is None else float(self.vmin),
                self.kind.high if self.vmax is None else float(self.vmax))

    @property
    def numbers(self) -> NDArray[np.float64]:
        """The matrix without labels."""
        return self.matrix.to_numpy(dtype=np.float64)

    @property
    def legend(self) -> str:
        """Explanation of the signs in the cells, such as hatching; empty without them."""
        known = ~np.isnan(self.numbers)
        shown = ((HATCH_LEGEND, self.lined & known), (GREY_LEGEND, ~known),
                 (f"*: {self.star}", self.starred & known), (CHANCE_LEGEND, self.chance & known))
        return "; ".join(words for words, where in shown if where.any())


@checked
def draw_matrix(heat: Heat, ax: Axes, annotate: bool | None = None, colorbar: bool = True,
                labels: str = "both", legend: bool = True, points: float | None = None,
                fitted: bool = False) -> AxesImage:
    """Draw a matrix of a measure on axes; missing cells are grey.

    Text has the sizes of matplotlib's settings, and smaller ones where there is less room. Values beyond the
    limits get the limit's colour, and the colour bar an arrow.

    Args:
        annotate: write the values into the cells. None: if they fit. True: in any case.
        colorbar: draw a colour bar beside the axes.
        labels: names and titles of the axes: ``"both"``, ``"rows"``, ``"columns"`` or ``""``.
        legend: explain hatching and signs below the axes.
        points: size of the names. Default: as tick labels of the settings.
        fitted: the figure will be fitted to square cells.

    Returns:
        The image, for a colour bar of one's own.
    """
    values, (low, high) = heat.numbers, heat.limits
    expect(values.size > 0, "a matrix with cells", f"one of shape {values.shape}")
    image = ax.imshow(np.ma.masked_invalid(values), cmap=heat.colours, norm=Normalize(low, high),
                      aspect="equal", interpolation="nearest", origin="upper")
    ax.grid(False, "both")  # which styles such as ggplot draw across the numbers
    ax.minorticks_off()
    if np.isnan(values).any():  # the image is transparent there, and shows what is behind it
        ax.add_patch(Rectangle((-0.5, -0.5), *values.T.shape, facecolor="0.88", edgecolor="0.55",
                               hatch="////", linewidth=0, zorder=-1, in_layout=False))
    ax.spines[:].set_visible(False)
    if colorbar:
        draw_colour_bar(image, [heat], ax, cells=values.shape if fitted else None)
    title = make_printable(heat.kind.label) if heat.title is None else heat.title
    WordsFitting(ax, ax.title, title, resolve_points("axes.titlesize"))
    _label_axes(heat, ax, labels, legend, points)
    _write_cells(heat, ax, annotate)
    embed_fonts(ax.get_figure(root=True))
    return image


def _label_axes(heat: Heat, ax: Axes, labels: str, legend: bool, points: float | None) -> None:
    sides = (ax.xaxis, heat.matrix.columns, "columns"), (ax.yaxis, heat.matrix.index, "rows")
    for axis, names, side in sides:
        ticks = NameTicks([make_printable(str(name)) for name in names], points)
        ticks.put_on(axis)
        if labels not in ("both", side):
            axis.set_tick_params(labelbottom=False, labelleft=False)
    if labels in ("both", "rows"):
        SideFitting(ax, "source")
    lines = ["target"] if labels in ("both", "columns") else []
    lines += [heat.legend] * (legend and bool(heat.legend))
    WordsFitting(ax, ax.xaxis.label, "\n".join(lines), float(ax.xaxis.label.get_fontsize()))


def _write_cells(heat: Heat, ax: Axes, annotate: bool | None) -> None:
    """Write numbers and signs into the cells; the layout needs not know them."""
    values, (low, high) = heat.numbers, heat.limits
    numbered = bool(annotate) or (annotate is None and max(values.shape) <= _MOST_NUMBERS)
    top, cells = resolve_points("font.size", 0.9), []
    for (i, j), value in np.ndenumerate(values):
        if math.isnan(value):
            continue
        share = min(1.0, max(0.0, (value - low) / (high - low)))
        ground = heat.colours(share)
        ink = choose_ink(ground)
        if heat.lined[i, j]:
            ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor="none", edgecolor=ink, hatch="\\\\\\",
                                   linewidth=0, gid="hatched", in_layout=False))
        sign = "*" * bool(heat.starred[i, j]) + CHANCE_SIGN * bool(heat.chance[i, j])
        if not (numbered or sign):
            continue
        # The box keeps the hatching off the number.
        box = {"facecolor": to_hex(ground), "edgecolor": "none", "pad": 0.6} if heat.lined[i, j] else None
        text = ax.text(j, i, "", ha="center", va="center", color=ink, bbox=box, in_layout=False)
        cells.append(CellText(text, _list_forms(value) if numbered else (), sign))
    CellFitting(ax, values.shape, cells, top, bool(annotate))


def _list_forms(value: float) -> tuple[str, ...]:
    """Return a number with three digits, with two, and without its leading zero: 0.123, 0.12, .12."""
    short = format_value(value, 2)
    bare = short.replace("0.", ".", 1) if abs(value) < 1 and short.lstrip("-").startswith("0.") else (
        format_value(value, 1))
    return format_value(value, 3), short, bare


def name_scale(heat: Heat) -> str:
    """Name a measure without its stitching method, for the colour bar that both methods share."""
    tag, label = heat.kind.name.partition(".")[0], make_printable(heat.kind.label)
    return label.removeprefix(f"{tag.upper()} ") if tag in METHOD_NAMES else label


def draw_colour_bar(image: ScalarMappable, heats: list[Heat], ax: Any, named: bool = False,
                    cells: tuple[int, int] | None = None, location: str = "right") -> None:
    """Draw the colour bar of matrices with one scale; its arrows say which values lie beyond the limits.

    Args:
        image, heats: what it explains.
        ax: axes, or a list of them, beside which it lies.
        named: name the measure.
        cells: rows and columns of all axes together, if the figure is fitted to square cells; then the bar is
            as long as the axes, and neither thin beside few columns nor thick below few rows.
        location: ``"right"`` or ``"bottom"``.
    """
    axes = ax if isinstance(ax, Axes) else ax[0]
    figure = axes.get_figure(root=True)
    if figure is None:
        raise SutureError("expected axes of a figure, got axes that were removed from theirs")
    size = min(resolve_points("xtick.labelsize"), resolve_points("font.size", 0.85))
    low, high = heats[0].limits
    below = location == "bottom"
    rows, columns = cells or (1, 1)
    # Cells of a figure as high as a page are flat, so that more rows do not make it higher.
    ratio = max(0.15, columns / rows) if below else rows / columns
    shape: dict[str, Any] = {**_shape_bar(ratio), **({"panchor": (0.5, 1.0)} if below else {})}
    bar = figure.colorbar(image, ax=ax, location=location, extend=_find_beyond(heats), pad=0.03, **shape)
    bar.set_ticks([low, (low + high) / 2, high])
    bar.ax.tick_params(labelsize=size, length=2)
    word = "more similar →" if heats[0].kind.larger_is_more_similar else "← more similar"
    if below:
        room = 0.7 * find_place(axes)[0] / measure_width(word, axes.title.get_fontproperties())
        size = max(LEAST, min(size, room))
    bar.set_label(f"{name_scale(heats[0])}\n{word}" if named else word, fontsize=size, parse_math=False)
    bar.ax.xaxis.label.set_linespacing(SPACING)
    bar.ax.yaxis.label.set_linespacing(SPACING)
    BarFitting(bar.ax, level=below)
    bar.outline.set_visible(False)


def _shape_bar(ratio: float) -> dict[str, float]:
    """Return thickness (in the width of the axes) and aspect of a bar.

    Args:
        ratio: length of the axes beside it, in their width.
    """
    fraction = 0.046 * min(max(1.0, ratio), 8.0)
    return {"fraction": fraction, "aspect": max(min(20.0, 50 * ratio), ratio / fraction)}


def _find_beyond(heats: list[Heat]) -> str:
    """Return the ends of a colour bar beyond which values lie, by more than rounding."""
    low, high = heats[0].limits
    values, slack = np.concatenate([h.numbers.ravel() for h in heats]), 1e-6 * (high - low)
    beyond = bool((values < low - slack).any()), bool((values > high + slack).any())
    return {(True, True): "both", (True, False): "min", (False, True): "max"}.get(beyond, "neither")
