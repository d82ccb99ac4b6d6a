"""Grids of heat maps that share names and colour bars, as a figure of a given width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine

from suture._base import checked, expect
from suture.results.drawing.fitting import BarFitting, CellFitting, SideFitting, WordsFitting, share_fit
from suture.results.drawing.maps import Heat, draw_colour_bar, draw_matrix, name_scale
from suture.results.drawing.measuring import find_size, fit_words, resolve_points
from suture.results.drawing.style import embed_fonts
from suture.results.heatmaps import make_printable

_PASSES = 4
"""Most often that the height of a figure is corrected."""
_HIGHEST = 9.0
"""Inches of the highest figure that is at most so wide, a page; cells of a higher one are not square."""


def make_figure(width: float | None, height: float | None = None) -> Figure:
    """Make a figure without pyplot, which embeds fonts.

    Args:
        width, height: inches. Default: those of the setting ``figure.figsize``.
    """
    given = mpl.rcParams["figure.figsize"]
    for name, side in (("width", width), ("height", height)):
        expect(side is None or 0.5 <= side <= 100, f"inches from 0.5 to 100 as {name}", side)
    figure = Figure(figsize=(width or given[0], height or given[1]),
                    layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.03, hspace=0.03))
    embed_fonts(figure)
    return figure


def fit_height(figure: Figure, grid: Sequence[Sequence[Axes | None]], highest: float | None = None) -> None:
    """Give a figure of square cells the height that leaves no blank space.

    Args:
        grid: axes with images, row by row.
        highest: largest height in inches; a figure that needs more gets narrower instead. Default: that of a
            page, whose cells may be flat.
    """
    page = max(_HIGHEST, figure.get_figwidth())
    rows = [[ax for ax in row if ax is not None] for row in grid]
    axes = [ax for row in rows for ax in row]
    engine = figure.get_layout_engine()
    assert engine is not None
    for ax in axes:  # else the labels lie beside the image, and not beside the room that the layout gives it
        ax.set_aspect("auto")
    for _ in range(_PASSES):
        engine.execute(figure)
        _fit_titles(axes)
        artists = [a for ax in figure.axes for a in ax.artists]
        turned = sum(a.fit() for a in artists if isinstance(a, SideFitting)) > 0
        for bar in (a for a in artists if isinstance(a, BarFitting)):
            bar.fit()
        width, height = figure.get_size_inches()
        missing = [max(map(_find_missing_height, row)) for row in rows if row]
        wanted = max(0.5, height + sum(missing))
        if highest is None and wanted > page:
            if height == page:
                return
            wanted = page
        if highest is not None and wanted > highest:
            width -= min(0.7 * width, max(map(_find_surplus_width, axes))) if height == highest else 0.0
            wanted = highest
        if not turned and abs(wanted - height) < 0.01 and abs(width - figure.get_figwidth()) < 0.01:
            break
        figure.set_size_inches(width, wanted)
    for ax in axes:
        ax.set_aspect("equal")


def _find_missing_height(ax: Axes) -> float:
    """Return the inches that an image as wide as its axes is higher than them."""
    image: Any = ax.images[0].get_array()
    width, height = find_size(ax)
    return float(width * image.shape[0] / image.shape[1] - height) / 72


def _find_surplus_width(ax: Axes) -> float:
    """Return the inches that axes are wider than an image as high as they are."""
    image: Any = ax.images[0].get_array()
    width, height = find_size(ax)
    return float(width - height * image.shape[1] / image.shape[0]) / 72


def _fit_titles(axes: Sequence[Axes]) -> None:
    """Fit the titles of all axes, in letters of one size."""
    fittings = [a for ax in axes for a in ax.artists if isinstance(a, WordsFitting) and a.text is ax.title]
    smallest = min((a.fit() for a in fittings), default=0.0)
    for fitting in fittings:
        fitting.fit(smallest)


@checked
def draw_matrix_grid(heats: Sequence[Sequence[Heat | None]], *, width: float | None = None,
                     rows: Sequence[str] | None = None, columns: Sequence[str] | None = None,
                     annotate: bool | None = None, title: str | None = None) -> Figure:
    """Draw matrices side by side, with one colour bar for all of one measure, whatever the stitching method.

    Maps of equal names share them, at the left and at the bottom. If all maps of a column have one scale, its
    bar lies below them; else, if all of a row have, at its right; else each map has a bar.

    >>> draw_matrix_grid([[Heat(tlm, "tlm.relative_accuracy"), Heat(far, "tlm.natural_distance")],
    ...                   [Heat(dm, "dm.relative_accuracy"), Heat(near, "dm.natural_distance")]],
    ...                  rows=("TLM", "DM"), width=3.3).savefig("pair.pdf")

    Args:
        heats: matrices, row by row; None leaves a place empty.
        width: inches. Default: the first of the setting ``figure.figsize``. The height follows.
        rows, columns: words beside each row and above each column. Without columns each map has its title.
        annotate: as for `draw_matrix`.
        title: of the figure.

    Raises:
        SutureError: no matrix, rows of different lengths, or other numbers of `rows` or `columns`.
    """
    count = len(heats[0]) if heats else 0
    expect(any(h is not None for row in heats for h in row) and all(len(row) == count for row in heats),
           "rows of matrices of one length", [len(row) for row in heats])
    for name, words, wanted in (("rows", rows, len(heats)), ("columns", columns, count)):
        expect(words is None or len(words) == wanted, f"{wanted} words as {name}", words)
    figure = make_figure(width)
    places = _draw_maps(figure, heats, rows, columns, annotate)
    _draw_bars(figure, heats, places)
    share_fit([a for ax in figure.axes for a in ax.artists if isinstance(a, CellFitting)])
    legend = "; ".join(dict.fromkeys(part for row in heats for h in row if h is not None and h.legend
                                     for part in h.legend.split("; ")))
    if legend:
        _write_below(figure, legend)
    if title:
        write_above(figure, title)
    fit_height(figure, [[found and found[0] for found in row] for row in places])
    return figure


def _draw_maps(figure: Figure, heats: Sequence[Sequence[Heat | None]], rows: Sequence[str] | None,
               columns: Sequence[str] | None, annotate: bool | None
               ) -> list[list[tuple[Axes, AxesImage] | None]]:
    sizes = [max((h.matrix.shape[1] for row in heats if (h := row[j]) is not None), default=1)
             for j in range(len(heats[0]))]
    heights = [max((h.matrix.shape[0] for h in row if h is not None), default=1) for row in heats]
    grid = figure.add_gridspec(len(heats), len(heats[0]), width_ratios=sizes, height_ratios=heights)
    places: list[list[tuple[Axes, AxesImage] | None]] = []
    for i, row in enumerate(heats):
        places.append([])
        for j, heat in enumerate(row):
            if heat is None:
                places[-1].append(None)
                continue
            ax = figure.add_subplot(grid[i, j])
            image = draw_matrix(_retitle(heat, i, j, columns), ax, annotate, colorbar=False, legend=False,
                                labels=_choose_labels(heats, i, j))
            if rows is not None and not any(h is not None for h in row[:j]):
                SideFitting(ax, f"{make_printable(rows[i])}\nsource", [make_printable(r) for r in rows])
            places[-1].append((ax, image))
    return places


def _retitle(heat: Heat, i: int, j: int, columns: Sequence[str] | None) -> Heat:
    if columns is None:
        return heat
    return replace(heat, title=columns[j] if i == 0 else "")


def _choose_labels(heats: Sequence[Sequence[Heat | None]], i: int, j: int) -> str:
    """Choose the sides of a map with names: those that no neighbour with the same names shows."""
    heat = heats[i][j]
    assert heat is not None
    left = [h for h in heats[i][:j] if h is not None]
    below = [h for row in heats[i + 1:] if (h := row[j]) is not None]
    named = not (left and all(list(h.matrix.index) == list(heat.matrix.index) for h in left))
    footed = not (below and all(list(h.matrix.columns) == list(heat.matrix.columns) for h in below))
    return {(True, True): "both", (True, False): "rows", (False, True): "columns"}.get((named, footed), "")


def _find_scale(heat: Heat) -> tuple[Any, ...]:
    return name_scale(heat), heat.limits, heat.colours.name


def _draw_bars(figure: Figure, heats: Sequence[Sequence[Heat | None]],
               places: Sequence[Sequence[tuple[Axes, AxesImage] | None]]) -> None:
    """Draw colour bars for columns, rows, or single maps, whichever have one scale first."""
    lines = [[(h, p) for h, p in zip(row, place, strict=True) if h is not None and p is not None]
             for row, place in zip(heats, places, strict=True)]
    stacks = [[(h, p) for row, place in zip(heats, places, strict=True)
               if (h := row[j]) is not None and (p := place[j]) is not None] for j in range(len(heats[0]))]
    every = [pair for line in lines for pair in line]

    def alike(groups: Sequence[Any]) -> bool:
        return all(len({_find_scale(h) for h, _ in group}) < 2 for group in groups)

    if alike([every]):
        groups, where = [every], "right"
    elif alike(stacks):
        groups, where = stacks, "bottom"
    elif alike(lines):
        groups, where = lines, "right"
    else:
        groups, where = [[pair] for pair in every], "right"
    for group in filter(None, groups):
        axes, name = [place[0] for _, place in group], name_scale(group[0][0])
        named = not any(name.lower() in ax.get_title().replace("\n", " ").lower() for ax in axes)
        draw_colour_bar(group[0][1][1], [h for h, _ in group], axes, named, _count_cells(axes), where)


def _count_cells(axes: Sequence[Axes]) -> tuple[int, int]:
    """Count the rows and the columns of cells of axes side by side and over each other."""
    rows, columns = dict[int, int](), dict[int, int]()
    for ax in axes:
        spec, shape = ax.get_subplotspec(), ax.images[0].get_size()
        assert spec is not None
        rows[spec.rowspan.start] = max(rows.get(spec.rowspan.start, 0), shape[0])
        columns[spec.colspan.start] = max(columns.get(spec.colspan.start, 0), shape[1])
    return sum(rows.values()), sum(columns.values())


def _write_below(figure: Figure, words: str) -> None:
    text = figure.supxlabel("", parse_math=False)
    fit_words(text, words, _find_width(figure), resolve_points("font.size", 0.85))


def write_above(figure: Figure, words: str) -> None:
    """Write a title above a figure."""
    text = figure.suptitle("", parse_math=False)
    lines = "\n".join(make_printable(line) for line in words.split("\n"))
    fit_words(text, lines, _find_width(figure), resolve_points("axes.titlesize"))


def _find_width(figure: Figure) -> float:
    return 0.96 * 72 * figure.get_figwidth()
