"""Heat maps: fixed colours, legible values, hatched artefacts."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from suture.numbers.measures import MEASURES
from suture.results import heatmaps
from suture.results.drawing.maps import Heat, draw_matrix
from tests.support.comparisons import of_values
from tests.support.synthetic import comparison


@pytest.mark.parametrize("name", list(MEASURES))
def test_bright_means_similar(name):
    entry = MEASURES[name]
    similar, different = (entry.high, entry.low) if entry.larger_is_more_similar else (entry.low, entry.high)
    assert heatmaps.pick_colours(similar, entry)[0] == to_hex(mpl.colormaps["viridis"](1.0))
    assert heatmaps.pick_colours(different, entry)[0] == to_hex(mpl.colormaps["viridis"](0.0))
    assert heatmaps.pick_colours(entry.high + 5, entry) == heatmaps.pick_colours(entry.high, entry)


def draw_measure(given, name, ax, hatched, annotate=None):
    """Draw a measure of a comparison, whose artefacts by method are given."""
    draw_matrix(Heat.of(given, name, hatched), ax, annotate)


LIMITS = {(entry.low, entry.high): name for name, entry in MEASURES.items()}
"""A measure for each pair of limits."""


@pytest.mark.parametrize("name", LIMITS.values())
def test_limits_are_fixed(name):
    entry = MEASURES[name]
    for scale in (0.01, 3.0):
        ax = Figure().add_subplot()
        draw_measure(of_values(name, scale * np.eye(3)), name, ax, {})
        assert ax.images[0].get_clim() == (entry.low, entry.high)


def contrast(one, other):
    """WCAG 2 contrast of two colours; 4.5 is level AA."""
    def luminance(colour):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
    low, high = sorted(luminance(c) for c in (one, other))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("share", np.linspace(0, 1, 21))
def test_values_are_legible_on_their_ground(share):
    assert contrast(*heatmaps.pick_colours(share, MEASURES["cka"])) >= 4.5


def hatches(ax):
    """Where cells are hatched as artefacts: (row, column) to patch."""
    return {(round(p.get_xy()[1] + 0.5), round(p.get_xy()[0] + 0.5)): p for p in ax.patches
            if p.get_gid() == "hatched"}


@pytest.mark.parametrize("name", ["tlm.relative_accuracy", "tlm.kl"])
@pytest.mark.parametrize("size", [4, 31])
def test_hatched_cells_stay_legible(name, size):
    entry = MEASURES[name]
    values = np.linspace(entry.low, entry.high, size * size).reshape(size, size)
    values[0, 1] = np.nan
    lined = np.arange(size * size).reshape(size, size) % 2 == 1
    ax = Figure().add_subplot()
    draw_measure(of_values(name, values), name, ax, {"tlm": pd.DataFrame(lined)})
    found = hatches(ax)
    assert set(found) == {(i, j) for i, j in np.argwhere(lined)} - {(0, 1)}
    texts = {(round(t.get_position()[1]), round(t.get_position()[0])): t for t in ax.texts
             if t.get_visible()}
    assert len(texts) == (size * size - 1 if size < 31 else 0)
    for (i, j), patch in found.items():
        ground, ink = heatmaps.pick_colours(values[i, j], entry)
        assert patch.get_hatch()
        assert contrast(patch.get_edgecolor(), ground) >= 4.5
        assert patch.get_facecolor()[3] == 0
        assert patch.get_zorder() > ax.images[0].get_zorder()
        if texts:
            box = texts[i, j].get_bbox_patch()
            assert (to_hex(box.get_facecolor()), texts[i, j].get_color()) == (ground, ink)
            assert texts[i, j].get_zorder() > patch.get_zorder()
    assert {cell for cell, t in texts.items() if t.get_bbox_patch()} == (set(found) if texts else set())
    assert " ".join(ax.get_xlabel().split()) == (
        "target hatched: works, beyond what natural inputs reach; grey: no value")


def test_the_hatch_is_drawn_and_the_number_is_not_crossed():
    grounds = []
    for lined in (False, True):
        figure = Figure(figsize=(3, 3), dpi=100)
        ax = figure.add_axes((0, 0, 1, 1))
        draw_measure(of_values("tlm.accuracy", [[0.9]]), "tlm.accuracy", ax,
                             {"tlm": pd.DataFrame([[lined]])})
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        box = ax.texts[0].get_window_extent()
        pixels = np.asarray(canvas.buffer_rgba())[::-1]
        number = pixels[round(box.y0):round(box.y1), round(box.x0):round(box.x1)]
        grounds.append((pixels, number))
    assert (grounds[0][0] != grounds[1][0]).any(axis=2).mean() > 0.01
    # The ground under the number is drawn by another path, which may round its colour differently.
    np.testing.assert_allclose(grounds[0][1].astype(int), grounds[1][1].astype(int), atol=1)


@pytest.mark.parametrize(("value", "text"), [(0.12345, "0.123"), (-0.5, "-0.500"), (9.87654, "9.877"),
                                             (12.34, "12.3"), (123.4, "123"), (123456.0, "1.2e+05")])
def test_values_as_written(value, text):
    assert heatmaps.format_value(value) == text


@pytest.mark.parametrize(("size", "annotate", "texts"), [(3, None, 8), (3, False, 0), (12, None, 143),
                                                         (31, None, 0), (31, True, 960)])
def test_annotation_and_missing_cells(size, annotate, texts):
    values = np.full((size, size), 0.5)
    values[1, 2] = np.nan
    ax = Figure().add_subplot()
    draw_measure(of_values("cka", values), "cka", ax, {}, annotate)
    assert len([t for t in ax.texts if t.get_visible()]) == texts
    behind, = (p for p in ax.patches if isinstance(p, Rectangle) and p.get_hatch())
    assert behind.get_zorder() < ax.images[0].get_zorder()
    assert (behind.get_xy(), behind.get_width()) == ((-0.5, -0.5), size)
    assert np.argwhere(np.ma.getmaskarray(ax.images[0].get_array())).tolist() == [[1, 2]]


def test_rows_are_sources():
    given = comparison(3, 2, same_network=False)
    matrix = given.matrix("dm.accuracy")
    ax = Figure().add_subplot()
    draw_measure(given, "dm.accuracy", ax, {})
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("target", "source")
    assert [t.get_text() for t in ax.get_yticklabels()] == list(matrix.index)
    assert [t.get_text() for t in ax.get_xticklabels()] == list(matrix.columns)
    np.testing.assert_array_equal(ax.images[0].get_array(), matrix.to_numpy())
    assert ax.get_figure().axes[1].get_ylabel() == "more similar →"
    assert not any(isinstance(c, QuadMesh) for c in ax.collections)
