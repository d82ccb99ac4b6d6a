"""Figures of the shapes, names and places that are rare: nothing overlaps, is clipped, or misleads."""

from __future__ import annotations

import dataclasses
from functools import cache

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import suture
from suture.results import Heat, draw_matrix, draw_matrix_grid
from suture.results.drawing.measuring import find_free_width, find_place
from tests.results.test_drawing import made, matrix
from tests.support.drawn_texts import collect_texts, find_faults
from tests.support.synthetic import comparison


@cache
def shaped(rows: int, columns: int) -> suture.Comparison:
    return comparison(rows, columns, same_network=False, missing=False, detectors=("energy",))


def table(rows: int, columns: int) -> pd.DataFrame:
    return pd.DataFrame(np.linspace(0, 1, rows * columns).reshape(rows, columns),
                        [f"layer{k}" for k in range(rows)], [f"layer{k}" for k in range(columns)])


def grid_of(rows: int, columns: int) -> Figure:
    """Two measures with a bar each, over each other twice, as in a pair."""
    heats = [Heat(table(rows, columns), "cka"), Heat(table(rows, columns), "opd")]
    return draw_matrix_grid([heats, heats], rows=("TLM", "DM"))


@pytest.mark.parametrize(("rows", "columns"), [(1, 20), (2, 12), (24, 1)])
def test_a_flat_or_a_high_map_fits(rows: int, columns: int) -> None:
    with suture.style("column"):
        figure = grid_of(rows, columns)
    assert find_faults(figure) == []
    assert figure.get_figwidth() == 3.3
    assert figure.get_figheight() <= 9


def test_a_bar_beside_few_rows_or_columns_has_numbers_that_can_be_read() -> None:
    for shape in ((1, 20), (20, 1)):
        with suture.style("column"):
            figure = draw_matrix_grid([[Heat(table(*shape), "cka")]], width=2.0 if shape[0] == 1 else 1.2)
        assert find_faults(figure) == []
        bar = figure.axes[-1].get_window_extent()
        assert min(bar.width, bar.height) > 0.02 * figure.dpi


def test_nothing_of_a_pair_is_clipped_in_the_sizes_of_matplotlib() -> None:
    assert find_faults(made(4).plot_pair()) == []


@pytest.mark.parametrize("kind", ["two-column", "slide"])
def test_a_pair_in_a_wide_style_is_one_row(kind: str) -> None:
    given = shaped(2, 3)
    with suture.style(kind):
        figure = given.plot_pair()
    assert find_faults(figure) == []
    maps = [ax for ax in figure.axes if ax.images]
    assert [ax.get_title().replace("\n", " ") for ax in maps] == [
        "TLM relative accuracy", "TLM natural distance", "DM relative accuracy", "DM natural distance"]
    assert len({round(ax.get_position().y0, 3) for ax in maps}) == 1
    assert figure.get_figheight() < 0.6 * figure.get_figwidth()


def test_names_of_panels_that_are_one_long_word_lose_their_middle() -> None:
    given = made(4)
    names = {name: f"{'encoder_block_' * 6}{k}" for k, name in enumerate(given.sources)}
    sites = tuple(names.values())
    long = dataclasses.replace(given, sources=sites, targets=sites, table=given.table.assign(
        source=given.table["source"].map(names), target=given.table["target"].map(names)))
    with suture.style("column"):
        figure = long.plot_scores(sites=sites[:2])
    assert find_faults(figure) == []
    assert [ax.get_title()[-1] for ax in figure.axes] == ["0", "1"]


# -- what signs mean


def test_all_signs_in_the_cells_are_explained() -> None:
    some = matrix(3)
    signs = {"starred": some > 0.9, "lined": some < 0.6, "chance": some < 0.6}
    heat = Heat(some.where(some != some.iloc[0, 1]), "cka", **signs)
    words = heat.legend.split("; ")
    assert [word.split(":")[0] for word in words] == ["hatched", "grey", "*", "°"]
    assert Heat(some, "cka").legend == ""
    assert Heat(some, "cka", starred=some > 0.9, star="mine").legend == "*: mine"
    ax = draw_matrix(heat, Figure(figsize=(4, 4)).add_subplot()).axes
    assert "*: not to be trusted" in ax.get_xlabel().replace("\n", " ")


def test_an_arrow_at_a_bar_is_not_of_rounding() -> None:
    for beyond, ends in ((1e-7, "neither"), (1e-3, "max")):
        figure = Figure()
        draw_matrix(Heat(matrix(3) * (1 + beyond), "cka"), figure.add_subplot())
        assert figure.axes[1]._colorbar.extend == ends


# -- places


def test_words_over_a_map_know_their_part_of_the_figure() -> None:
    figure = Figure(figsize=(8, 4))
    one, two = figure.subfigures(1, 2)
    ax, other = one.subplots(), two.subplots(2)[0]
    assert find_free_width(ax) == pytest.approx(find_free_width(other))
    centre = ax.get_position().x0 + ax.get_position().width / 2
    assert find_free_width(ax) == pytest.approx(1.96 * 72 * 4 * min(centre, 1 - centre))
    assert find_place(ax) == pytest.approx((4 * 72, 4 * 72))
    assert find_place(other) == pytest.approx((4 * 72, 2 * 72))


def test_a_colour_bar_is_no_neighbour_that_a_title_must_avoid() -> None:
    titles = []
    for layout in (None, "tight", "constrained"):
        figure = Figure(figsize=(9, 4), layout=layout)
        ax = figure.subplots(1, 2)[0]
        draw_matrix(Heat(matrix(4), "pwcca", starred=matrix(4) > 0.9), ax)
        collect_texts(figure)
        titles.append((ax.get_title(), ax.get_xlabel()))
    assert set(titles) == {("PWCCA (source weighted)", "target\n*: not to be trusted")}


@pytest.mark.parametrize("draw", ["plot_curves", "plot_profile"])
@pytest.mark.filterwarnings("error")
def test_letters_of_a_narrow_figure_are_smaller(draw: str) -> None:
    assert find_faults(getattr(made(4), draw)(width=2)) == []


@pytest.mark.parametrize("kind", ["polar", "3d"])
def test_axes_that_cannot_hold_a_map_are_refused(kind: str) -> None:
    with pytest.raises(suture.SutureError, match=kind):
        made(2).plot("cka", Figure().add_subplot(projection=kind))


def test_measures_of_a_profile_are_a_list_of_some() -> None:
    for given, wanted in (("cka", "list of strings.*'cka'"), ([], "none")):
        with pytest.raises(suture.SutureError, match=wanted):
            made(2).plot_profile(given)


def test_styles_with_grids_and_minor_ticks_leave_the_cells_clean() -> None:
    grids = {"axes.grid": True, "axes.grid.which": "both", "xtick.minor.visible": True,
             "ytick.minor.visible": True, "image.origin": "lower"}
    pixels = []
    for settings in ({}, grids):
        with mpl.rc_context(settings):
            ax = made(2).plot("cka", Figure(figsize=(3, 3), dpi=50).add_subplot(), colorbar=False)
            pixels.append(render(ax.get_figure()))
    np.testing.assert_array_equal(*pixels)


def render(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())
