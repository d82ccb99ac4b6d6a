"""Figures of a study: network map, embedding, tree, trend."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from suture._base import SutureError, expect, make_unknown_error
from suture.numbers import Floats, get_measure
from suture.results import (
    COLOURS,
    SIGNS,
    STYLE,
    Heat,
    NameTicks,
    WordsFitting,
    draw_matrix_grid,
    embed_fonts,
    make_figure,
    make_printable,
    resolve_points,
    shorten_name,
    strip_spines,
    write_legend,
)
from suture.studies.network_study.compared_networks import find_words
from suture.studies.network_study.findings import choose_columns
from suture.studies.network_study.geometry import embed_networks, keep_complete, link_networks
from suture.studies.network_study.layers import Reduce

if TYPE_CHECKING:
    from suture.studies.network_study.result import Study

_NAMED = 40
"""Largest number of networks whose names an embedding shows."""
_WIDEST = 32
"""Letters of a name in a figure."""


def plan_figures(study: Study, measure: str, reduce: Reduce = "diagonal", along: Sequence[str] = (),
                 colour: str | None = None) -> tuple[dict[str, Callable[[], Figure]], dict[str, str]]:
    """Return functions that draw each figure that can be drawn, and why others cannot, by their names.

    Args:
        along: columns that a trend was found along.
        colour: column of `about` that colours the embedding. Default: the first of numbers or groups.
    """
    drawn: dict[str, Callable[[], Figure]] = {"map": partial(draw_map, study, measure, reduce)}
    lost = {}
    for name, fewest, make in (("embedding", 3, partial(draw_embedding, study, measure, colour)),
                               ("tree", 2, partial(draw_tree, study, measure))):
        try:
            complete = len(keep_complete(study.distances(measure)))
            expect(complete >= fewest, f"at least {fewest} networks with distances of each other", complete)
        except SutureError as error:
            lost[name] = str(error)
        else:
            drawn[name] = make
    drawn |= {f"trend_{column}": partial(draw_trend, study, measure, column, reduce) for column in along}
    return {name: partial(_draw_for_page, make) for name, make in drawn.items()}, lost


@mpl.rc_context(STYLE)
def _draw_for_page(make: Callable[[], Figure]) -> Figure:
    return make()


def draw(study: Study, what: str, measure: str, reduce: Reduce, along: str | None) -> Figure:
    """Draw one figure by its name."""
    column = along or next(iter(choose_columns(study)[0]), None)
    known: Mapping[str, Callable[[], Figure]] = {
        "map": partial(draw_map, study, measure, reduce), "tree": partial(draw_tree, study, measure),
        "embedding": partial(draw_embedding, study, measure, along),
        "trend": partial(draw_trend, study, measure, column or "", reduce)}
    if what not in known:
        raise make_unknown_error("figure", what, known)
    if what == "trend" and column is None:
        raise SutureError("expected a column of numbers for a trend, got none; write along='epoch' and "
                          "about={name: {'epoch': ...}}")
    return known[what]()


def draw_map(study: Study, measure: str, reduce: Reduce = "diagonal") -> Figure:
    """Draw the matrix over networks; a star means that cells of a pair are left out."""
    matrix = study.matrix(measure, reduce)
    names = _shorten_all(study.networks)
    heat = Heat(matrix.set_axis(names, axis=0).set_axis(names, axis=1), measure,
                find_partial(study, measure, reduce), star="some cells left out")
    return draw_matrix_grid([[heat]])


def find_partial(study: Study, measure: str, reduce: Reduce) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return True for pairs (sources, targets) of whose cells some are left out."""
    place = {name: k for k, name in enumerate(study.networks)}
    found = np.zeros((len(place), len(place)), bool)
    for (a, b), made in study.reduce(measure, reduce).items():
        found[place[a], place[b]] = made.left_out > 0 and made.cells > 0
        if made.symmetric and (b, a) not in study.comparisons:
            found[place[b], place[a]] = found[place[a], place[b]]
    return found


def draw_tree(study: Study, measure: str) -> Figure:
    """Draw the tree of the networks, average linkage of their distances."""
    made = make_figure(None)
    line = 1.45 * resolve_points("ytick.labelsize") / 72
    made.set_figheight(max(0.3 * made.get_figwidth(), line * (len(study.networks) + 4)))
    draw_links(study, measure, made.add_subplot())
    made.draw_without_rendering()  # ticks get the style of now
    return made


def draw_links(study: Study, measure: str, ax: Axes) -> None:
    """Draw the tree on axes."""
    from scipy.cluster.hierarchy import dendrogram

    distances = keep_complete(study.distances(measure))
    found: Any = dendrogram(link_networks(distances), ax=ax, orientation="right", color_threshold=0,
                       above_threshold_color="0.25", no_labels=True)
    names = _shorten_all(distances.index[k] for k in found["leaves"])
    NameTicks(names, places=[10 * k + 5 for k in range(len(names))]).put_on(ax.yaxis)
    ax.tick_params(axis="y", labelleft=True, left=False)
    label = f"distance by {get_measure(measure).label}, average linkage"
    WordsFitting(ax, ax.xaxis.label, label, resolve_points("axes.labelsize"))
    strip_spines(ax, "top", "right", "left")
    embed_fonts(ax.get_figure(root=True))


def draw_trend(study: Study, measure: str, along: str, reduce: Reduce = "diagonal") -> Figure:
    """Draw the pairs over the difference of their networks in a column of numbers."""
    found = study.trend(measure, along, reduce)
    made = make_figure(None)
    made.set_figheight(0.7 * made.get_figwidth())
    ax = found.plot(made.add_subplot())
    strip_spines(ax)
    words = f"Spearman {found.rho:.2f}, p = {found.p:.2g}, {found.networks} networks"
    WordsFitting(ax, ax.title, words, resolve_points("axes.titlesize"))
    made.draw_without_rendering()  # ticks get the style of now
    return made


def draw_embedding(study: Study, measure: str, colour: str | None = None) -> Figure:
    """Draw the networks as points in a plane, coloured by a column of `about`."""
    found = embed_networks(keep_complete(study.distances(measure)), measure)
    points, names = found.points.to_numpy(), list(found.points.index)
    made = make_figure(None)
    made.set_figheight(0.8 * made.get_figwidth())
    ax = made.add_subplot()
    numbers, groups = choose_columns(study)
    column = colour or next(iter((*numbers, *groups)), None)
    words = None if column is None else find_words(study, column).reindex(names)
    if column is None or words is None:
        ax.plot(*points.T, "o", color=COLOURS[0], markersize=5)
    elif column in numbers:
        _draw_numbers(ax, points, words.to_numpy(float), column)
    else:
        _draw_groups(ax, points, [str(v) for v in words], column)
    ax.set_aspect("equal", "datalim")
    ax.margins(0.12)
    ax.set(xticks=[], yticks=[])
    lost = len(study.networks) - len(names)
    title = f"{get_measure(measure).label}: distances as in the plane up to stress {found.stress:.2f}"
    if lost:
        title += f"\nwithout {lost} of {len(study.networks)} networks, which lack a distance"
    WordsFitting(ax, ax.title, title, resolve_points("font.size"))
    made.draw_without_rendering()  # which finds the place of the axes
    if len(points) <= _NAMED:
        _label_points(made, ax, points, _shorten_all(names))
    return made


def _draw_numbers(ax: Axes, points: Floats, numbers: Floats, column: str) -> None:
    """Colour points by numbers; a line joins them in their order if each has another one."""
    known = ~np.isnan(numbers)
    if len(set(numbers[known])) == known.sum() > 2:
        ax.plot(*points[known][np.argsort(numbers[known])].T, "-", color="0.75", linewidth=0.8, zorder=1)
    ax.plot(*points[~known].T, "o", color="0.8", markersize=5)
    drawn = ax.scatter(points[known, 0], points[known, 1], c=numbers[known], cmap="viridis", s=28, zorder=2,
                       norm=Normalize(numbers[known].min(), numbers[known].max()))
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.colorbar(drawn, ax=ax, fraction=0.046, pad=0.03).set_label(
        make_printable(column), parse_math=False)


def _draw_groups(ax: Axes, points: Floats, labels: Sequence[str], column: str) -> None:
    kinds = list(dict.fromkeys(labels))
    for k, kind in enumerate(kinds):
        chosen = points[[label == kind for label in labels]]
        ax.plot(*chosen.T, SIGNS[k // len(COLOURS) % len(SIGNS) if len(kinds) > 7 else k % len(SIGNS)],
                color=COLOURS[k % len(COLOURS)], markersize=5, linestyle="none",
                label=make_printable(shorten_name(kind, _WIDEST)))
    if len(kinds) <= 12:
        write_legend(ax, *ax.get_legend_handles_labels(), title=make_printable(column), below=True)


def _label_points(figure: Figure, ax: Axes, points: Floats, names: Sequence[str]) -> None:
    """Write a name beside each point, where it covers nothing; a name without such a place is left out."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    renderer, at = canvas.get_renderer(), ax.transData.transform(points)
    taken: list[tuple[float, ...]] = [(x - 4, y - 4, x + 4, y + 4) for x, y in at]
    frame, size = ax.get_window_extent(renderer), resolve_points("font.size", 0.8)
    for point, (x, y), name in zip(points, at, names, strict=True):
        text = ax.annotate(name, tuple(point), xytext=(0, 0), textcoords="offset points", fontsize=size,
                           in_layout=False, parse_math=False)
        box = text.get_window_extent(renderer)
        w, h = box.width, box.height
        corners = [(x + dx * (6 + w / 2) - w / 2, y + dy * (5 + h / 2) - h / 2)
                   for dy, dx in product((0, 1, -1), (1, -1, 0)) if dx or dy]
        boxes = [(left, low, left + w, low + h) for left, low in corners]
        costs = [sum(_overlap(one, other) for other in taken) + w * h - _overlap(one, frame.extents)
                 for one in boxes]
        best = int(np.argmin(costs))
        if costs[best] > 0.02 * w * h:
            text.remove()
            continue
        taken.append(boxes[best])
        text.set_position(((taken[-1][0] - x) * 72 / figure.dpi, (taken[-1][1] - y) * 72 / figure.dpi))


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the area that two boxes (left, low, right, high) share."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _shorten_all(names: Iterable[str]) -> list[str]:
    return [make_printable(shorten_name(name, _WIDEST)) for name in names]
