"""Figures fit their room: nothing overlaps or is clipped, fonts are embedded, arguments follow matplotlib."""

from __future__ import annotations

import dataclasses
import io
import pickle
from functools import cache

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure

import suture
from suture.results import Heat, draw_matrix, draw_matrix_grid
from suture.results.drawing.fitting import CellFitting
from suture.results.drawing.measuring import LEAST
from suture.results.drawing.names import fit_names, shorten_names
from suture.results.drawing.pair import list_distances
from tests.support.drawn_texts import collect_texts, find_faults
from tests.support.synthetic import comparison

LONG = "encoder.layer.{}.attention.output"


@cache
def made(n: int, long: bool = False, missing: bool = True) -> suture.Comparison:
    """A comparison of n layers with everything that figures show."""
    given = comparison(n, n, detectors=("energy",), missing=missing)
    if not long:
        return given
    names = {name: LONG.format(k) for k, name in enumerate(given.sources)}
    table, sites = given.table, tuple(names.values())
    table = table.assign(source=table["source"].map(names), target=table["target"].map(names))
    return dataclasses.replace(given, sources=sites, targets=sites, table=table)


def matrix(n: int, name: str = "layer{}") -> pd.DataFrame:
    away = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    names = [name.format(k) for k in range(n)]
    return pd.DataFrame(np.exp(-away / 3), index=names, columns=names)


def draw_grid(n: int, name: str) -> Figure:
    """Three measures with a bar each, all signs, and missing values."""
    some = matrix(n, name)
    heats = [Heat(some, "tlm.auroc_mahalanobis_distance", lined=some < 0.3, chance=some < 0.2),
             Heat(2.2 * (1 - some), "tlm.informational_residual", starred=some > 0.9),
             Heat(some.where(some < 1), "cka")]
    return draw_matrix_grid([heats], title="a long title of networks " * 4)


def plot(given: suture.Comparison) -> Figure:
    with plt.ioff():
        figure = given.plot("tlm.ood_energy").get_figure()
    plt.close(figure)
    return figure


# -- nothing overlaps or is clipped at 3.3 inches


DRAWN = {
    "map, 2": lambda: plot(made(2)), "map, 12": lambda: plot(made(12)),
    "map, long": lambda: plot(made(12, True)),
    "pair, 2": lambda: made(2).plot_pair(), "pair, 6": lambda: made(6).plot_pair("ood_energy"),
    "pair, 12": lambda: made(12).plot_pair(), "pair, long": lambda: made(12, True).plot_pair(),
    "grid, 6": lambda: draw_grid(6, "layer{}"), "grid, long": lambda: draw_grid(12, LONG),
    "grid, 40": lambda: draw_matrix_grid([[Heat(matrix(40), "cka"), Heat(matrix(40), "opd")]]),
    "profile, 2": lambda: made(2).plot_profile(), "profile, long": lambda: made(12, True).plot_profile(),
    "curves": lambda: made(6).plot_curves(),
    "scores, 2": lambda: made(2).plot_scores(), "scores, long": lambda: made(6, True).plot_scores(),
}


@pytest.mark.parametrize("name", DRAWN)
def test_no_text_overlaps_or_is_clipped_at_column_width(name: str) -> None:
    with suture.style("column"):
        figure = DRAWN[name]()
    assert figure.get_figwidth() == pytest.approx(3.3)
    assert find_faults(figure) == []


@pytest.mark.parametrize("size", [6, 10, 20])
def test_text_of_any_size_fits(size: float) -> None:
    with mpl.rc_context({"font.size": size}):
        assert find_faults(made(6).plot_pair(width=max(3.3, size / 4))) == []


def test_a_map_among_the_users_own_axes_fits_too() -> None:
    figure = Figure(figsize=(7, 3), layout="constrained")
    names = "dm.relative_accuracy", "tlm.informational_residual"
    for ax, name in zip(figure.subplots(1, 2), names, strict=True):
        made(6, True).plot(name, ax)
    assert find_faults(figure) == []


def test_signs_alone_are_as_small_as_the_cells() -> None:
    some = matrix(40)
    figure = draw_matrix_grid([[Heat(some, "cka", starred=some > 0.9)]], width=2)
    assert find_faults(figure, 0.5) == []
    assert shown_numbers(figure.axes[0]) == ["*"] * 40


def test_the_measure_finds_overlaps_and_clipped_text() -> None:
    figure = Figure(figsize=(2, 2))
    for x, word in ((0.5, "one"), (0.52, "two"), (0.99, "three")):
        figure.text(x, 0.5, word, fontsize=4)
    figure.add_axes((0, 0, 1, 1)).imshow([[0]])
    faults = " ".join(find_faults(figure))
    for fault in ("'two' overlaps 'one'", "'three' is clipped", "'one' has 4.0 points",
                  "'two' lies on a map"):
        assert fault in faults


# -- how text fits


def shown_numbers(ax) -> list[str]:
    return [t.get_text() for t in ax.texts if t.get_visible()]


@pytest.mark.parametrize(("n", "inches", "form"), [(2, 3.3, "0.717"), (6, 2.3, "0.72"), (12, 3.0, ".72"),
                                                  (25, 3.3, "")])
def test_numbers_lose_digits_before_they_are_left_out(n: int, inches: float, form: str) -> None:
    with suture.style("column"):
        figure = draw_matrix_grid([[Heat(matrix(n), "cka")]], width=inches)
    collect_texts(figure)
    assert (form in shown_numbers(figure.axes[0])) == bool(form)
    assert len(shown_numbers(figure.axes[0])) == n * n * bool(form)


def test_numbers_follow_the_axes_when_the_figure_changes() -> None:
    figure = Figure(figsize=(6, 6))
    ax = figure.add_axes((0.2, 0.2, 0.6, 0.6))
    draw_matrix(Heat(matrix(6), "cka"), ax)
    forms = []
    for inches in (6, 2, 0.9):
        figure.set_size_inches(inches, inches)
        collect_texts(figure)
        forms.append(shown_numbers(ax)[:1])
    assert forms == [["1.000"], ["1.0"], []]


def test_numbers_that_are_asked_for_are_written_in_any_case() -> None:
    for annotate, count in ((True, 625), (False, 0), (None, 0)):
        ax = Figure(figsize=(2, 2)).add_subplot()
        draw_matrix(Heat(matrix(25), "cka"), ax, annotate)
        assert len(shown_numbers(ax)) == count


@pytest.mark.parametrize(("width", "cell", "level", "rotation", "step"), [
    (2.0, 30, True, 0, 1), (4.0, 20, True, 90, 1), (4.0, 3, True, 90, 2), (4.0, 3, False, 0, 2),
    (1.0, 3, True, 0, 3), (4.0, 20, False, 0, 1)])
def test_names_are_rotated_then_shrunk_then_left_out(width: float, cell: float, level: bool, rotation: float,
                                                     step: int) -> None:
    found = fit_names([width] * 9, cell, 1000, 8, 1.0, level)
    assert (found.rotation, found.step, found.longest) == (rotation, step, None)
    assert found.points >= LEAST


def test_long_names_keep_what_tells_them_apart() -> None:
    names = [LONG.format(k) for k in range(12)]
    for most in range(40, 3, -1):
        short = shorten_names(names, lambda name, most=most: len(name) <= most)
        assert max(map(len, short)) <= most
        assert len(set(short)) == 12 or most < 5
    assert shorten_names(names, lambda name: len(name) <= 14)[11] == "…11.attention…"
    assert shorten_names(["a" * 30], lambda name: len(name) <= 9) == ["aa…aaaaaa"]


def test_the_user_may_change_names_afterwards() -> None:
    ax = made(6).plot("cka", Figure(figsize=(3, 3)).add_subplot())
    ax.tick_params(labelsize=3, labelrotation=45)
    ax.set_title("mine")
    collect_texts(ax.get_figure())
    assert {(t.get_fontsize(), t.get_rotation()) for t in ax.get_xticklabels()} == {(3, 45)}
    assert ax.get_title() == "mine"


# -- settings of matplotlib


def test_sizes_follow_the_settings() -> None:
    sizes = []
    for scale in (1.0, 2.0):
        with mpl.rc_context({"font.size": 6 * scale}):
            ax = made(2).plot("cka", Figure(figsize=(8, 8)).add_subplot())
        texts = *ax.get_yticklabels(), ax.yaxis.label, ax.title, ax.texts[0]
        sizes.append([t.get_fontsize() for t in texts])
    np.testing.assert_allclose(sizes[1], 2 * np.array(sizes[0]))


def test_limits_colours_and_titles_are_those_asked_for() -> None:
    before = plt.get_fignums()
    ax = made(4).plot("cka", Figure().add_subplot(), vmin=0.2, vmax=0.6, cmap="cividis", title="$a_b",
                      colorbar=False)
    assert ax.images[0].get_clim() == (0.2, 0.6)
    assert ax.images[0].get_cmap().name == "cividis"
    assert (ax.get_title(), ax.title.get_parse_math()) == ("$a_b", False)
    assert len(ax.get_figure().axes) == 1
    with pytest.raises(suture.SutureError, match=r"viridiss.*nearest: viridis"):
        made(4).plot("cka", cmap="viridiss")
    for low, high in ((1.0, 1.0), (2.0, None), (float("nan"), 1.0)):
        with pytest.raises(suture.SutureError, match="vmin"):
            made(4).plot("cka", Figure().add_subplot(), vmin=low, vmax=high)
    assert plt.get_fignums() == before


def test_a_style_is_set_within_its_block_only() -> None:
    before = dict(mpl.rcParams)
    for kind, width in (("column", 3.3), ("two-column", 6.75), ("slide", 10.0)):
        with suture.style(kind):
            assert mpl.rcParams["figure.figsize"][0] == width
            assert mpl.rcParams["pdf.fonttype"] == 42
    assert dict(mpl.rcParams) == before
    with pytest.raises(suture.SutureError, match=r"colum.*nearest: column"):
        suture.style("colum")


# -- fonts


def save(figure: Figure, kind: str = "pdf") -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format=kind)
    return data.getvalue()


def test_pdf_files_embed_truetype_fonts_whoever_saves_them() -> None:
    assert mpl.rcParams["pdf.fonttype"] == 3
    plain = Figure(figsize=(2, 2))
    plain.add_subplot().set_title("one")
    assert b"/Type3" in save(plain)
    draw_matrix(Heat(matrix(2), "cka"), plain.axes[0])
    own = made(2).plot_curves(width=2)
    for figure in (plain, pickle.loads(pickle.dumps(own))):
        pdf = save(figure)
        assert b"/Type3" not in pdf
        assert b"/CIDFontType2" in pdf
    assert b"/FontType 42" in save(own, "ps")
    assert mpl.rcParams["pdf.fonttype"] == 3


def test_a_document_of_figures_keeps_the_fonts_of_the_settings(tmp_path) -> None:
    for kind, mark in ((3, b"/Type3"), (42, b"/CIDFontType2")):
        with mpl.rc_context({"pdf.fonttype": kind}), PdfPages(tmp_path / "a.pdf") as pages:
            pages.savefig(made(2).plot_curves())
        assert mark in (tmp_path / "a.pdf").read_bytes()


# -- the pair


def test_a_pair_shows_both_methods_over_each_other() -> None:
    given = made(4)
    figure = given.plot_pair("auroc_energy")
    images = {ax: ax.images[0].get_array() for ax in figure.axes if ax.images}
    for values, name in zip(images.values(), ("tlm.relative_accuracy", "tlm.auroc_energy",
                                              "dm.relative_accuracy", "dm.auroc_energy"), strict=True):
        np.testing.assert_array_equal(values.filled(np.nan), given.matrix(name))
    assert [ax.get_ylabel().split("\n")[0] for ax in list(images)[::2]] == ["TLM", "DM"]
    assert len(figure.axes) == 4 + 2  # one colour bar for each measure
    assert list_distances(given)[:3] == ["natural_distance", "ood_energy", "auroc_energy"]
    assert [h.get_text() for h in figure.axes[0].texts if h.get_text().endswith("*")] == []


def keep(given: suture.Comparison, *words: str) -> suture.Comparison:
    """A comparison without the measures that hold one of the words."""
    names = given.table["measure"]
    gone = np.logical_or.reduce([names.str.contains(word, regex=False) for word in words])
    return dataclasses.replace(given, table=given.table[~gone])


def test_a_pair_shows_the_methods_that_there_are_and_says_what_is_missing() -> None:
    given = made(3)
    assert len([ax for ax in keep(given, "tlm.").plot_pair().axes if ax.images]) == 2
    with pytest.raises(suture.SutureError, match=r"natural_distanc.*nearest: natural_distance"):
        given.plot_pair("natural_distanc")
    with pytest.raises(suture.SutureError, match="methods"):
        keep(given, "tlm.", "dm.").plot_pair()
    with pytest.raises(suture.SutureError, match="ood"):
        keep(given, "natural", "energy", "residual", "frechet").plot_pair()


# -- grids


def test_a_grid_shares_bars_names_and_digits() -> None:
    some, other = matrix(3), matrix(3)
    row = [Heat(some, "dm.accuracy"), Heat(other, "tlm.accuracy")]
    figure = draw_matrix_grid([row, row], rows=("a", "b"), columns=("c", "d"))
    maps = [ax for ax in figure.axes if ax.images]
    assert len(figure.axes) == 5
    assert "accuracy" in figure.axes[-1].get_ylabel()
    assert [bool(ax.get_ylabel()) for ax in maps] == [True, False, True, False]
    assert [bool(ax.get_xlabel()) for ax in maps] == [False, False, True, True]
    assert [ax.get_title() for ax in maps] == ["c", "d", "", ""]
    mixed = [[Heat(some, "cka"), None], [Heat(some, "opd"), Heat(some, "cka")]]
    assert len(draw_matrix_grid(mixed).axes) == 6
    fittings = [a for ax in maps for a in ax.artists if isinstance(a, CellFitting)]
    assert len({tuple(f.widths) for f in fittings}) == 1


@pytest.mark.parametrize(("given", "options"), [
    ([], {}), ([[]], {}), ([[None]], {}), ([[1], [1, 1]], {}), ([[1]], {"rows": "ab"}),
    ([[1]], {"columns": ()}), ([[1]], {"width": 0.1})])
def test_a_grid_that_is_none_is_refused(given, options) -> None:
    heats = [[Heat(matrix(2), "cka") if h else h for h in row] for row in given]
    with pytest.raises(suture.SutureError):
        draw_matrix_grid(heats, **options)


@pytest.mark.parametrize("options", [{"starred": [[True]]}, {"cmap": "no"}, {"measure": "ckaa"},
                                     {"vmin": 2.0}, {"matrix": [[1.0]]}])
def test_a_matrix_that_cannot_be_drawn_is_refused(options) -> None:
    with pytest.raises(suture.SutureError):
        Heat(**{"matrix": matrix(2), "measure": "cka", **options})


# -- profiles and curves


def test_a_profile_shows_corresponding_layers_with_intervals_and_nulls() -> None:
    given = made(4, missing=False)
    tests = np.full((7, 4, 4), np.nan)
    tests[1], tests[2] = 0.2, 0.01
    given = dataclasses.replace(given, arrays={**given.arrays, "null.tests/cka": tests})
    figure = given.plot_profile(["dm.accuracy", "tlm.accuracy", "cka"])
    assert len(figure.axes) == 2
    curves = {c.lines[0].get_gid(): c for ax in figure.axes for c in ax.containers}
    for name in ("dm.accuracy", "cka"):
        np.testing.assert_array_equal(curves[name].lines[0].get_ydata(), np.diag(given.matrix(name)))
    bars = curves["dm.accuracy"].lines[2][0].get_segments()
    low, high = (np.array([bar[k][1] for bar in bars]) for k in (0, 1))
    np.testing.assert_allclose(low, np.diag(given.matrix("dm.accuracy", "low")))
    np.testing.assert_allclose(high, np.diag(given.matrix("dm.accuracy", "high")))
    band, = (c for c in figure.axes[1].collections if c.get_gid() == "null")
    ends = np.unique(band.get_paths()[0].vertices[:, 1].round(6))
    np.testing.assert_allclose(ends, [0.1804, 0.2196], atol=1e-4)
    with pytest.raises(suture.SutureError, match="ckaa"):
        given.plot_profile(["ckaa"])
    with pytest.raises(suture.SutureError, match="layer9"):
        given.plot_profile(correspond={"layer9": "layer1.0"})


def test_curves_are_medians_of_corresponding_and_of_other_cells() -> None:
    given = made(4)
    ax = given.plot_curves().axes[0]
    losses = given.arrays["tlm.loss"]
    own = np.eye(4, dtype=bool)
    for line, cells in zip(ax.lines, (own, ~own), strict=True):
        np.testing.assert_allclose(line.get_ydata(), np.median(losses[cells], 0), rtol=1e-6)
    with pytest.raises(suture.SutureError, match="losses"):
        dataclasses.replace(given, arrays={}).plot_curves()


def test_scores_of_sites_that_are_asked_for() -> None:
    given = made(4)
    few = given.targets[:2]
    assert [ax.get_title() for ax in given.plot_scores(sites=few).axes] == list(few)
    for options in ({"detector": "energi"}, {"sites": ["layer9"]}, {"sites": []}):
        with pytest.raises(suture.SutureError):
            given.plot_scores(**options)
    with pytest.raises(suture.SutureError, match="scores"):
        comparison(2, 2).plot_scores()
