"""Figures and the page: fixed colours, every value, nothing unescaped, nothing from the network."""

from __future__ import annotations

import base64
import csv
import dataclasses
import io
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from suture._errors import SutureError
from suture.measures import MEASURES
from suture.report import figures, page
from suture.report.files import csv_text, replace, slug
from tests.synthetic import HOSTILE, comparison

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Tags, attributes and the cells of the heat maps; fails on tags that are not closed."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.attributes, self.tags, self.open, self.text, self.cells = [], [], [], [], []
        self.in_map = False
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "td":
            self.in_map = "title" in dict(attrs)
            if self.in_map:
                self.cells.append([dict(attrs), ""])

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.in_map and self.open[-1:] == ["td"]:
            self.cells[-1][1] += data


def all_text(parsed):
    return " ".join(" ".join(parsed.text).split())


@pytest.mark.parametrize("kind", [{"same_network": True}, {"same_network": False},
                                  {"same_network": False, "same_architecture": False}])
def test_nothing_from_outside_becomes_markup(kind):
    given = comparison(7, 6, hostile=True, **kind)
    text = page.render([given])
    parsed = Page(text)
    assert "script" not in parsed.tags
    assert "img" not in parsed.tags
    assert "b" not in parsed.tags
    assert not [a for a in parsed.attributes if a[1].startswith("on")]
    assert "<script>alert(1)</script>" not in text
    shown = all_text(parsed)
    for name in (*given.sources, *given.meta["notes"]):
        assert " ".join(name.split()) in shown
    assert "{{ 7 * 7 }}" in shown


@pytest.mark.parametrize("hostile", [False, True])
def test_nothing_is_loaded(hostile):
    text = page.render([comparison(7, 7, hostile=hostile), comparison(same_network=False)])
    parsed = Page(text)
    for _, name, value in parsed.attributes:
        if name in ("src", "srcset", "poster", "action", "data"):
            pytest.fail(f"{name}={value!r}")
        if name == "href":
            assert value.startswith(("#", "data:text/csv"))
    style = re.search(r"<style>(.*?)</style>", text, re.S)[1]
    assert "url(" not in style + " ".join(v for _, n, v in parsed.attributes if n == "style")
    assert "@import" not in style
    assert {"link", "script", "iframe", "img", "object", "base"}.isdisjoint(parsed.tags)
    if not hostile:
        assert "http:" not in text
        assert "https:" not in text


@pytest.mark.parametrize("kind", [{}, {"sources": 5, "targets": 3, "same_network": False},
                                  {"sources": 14, "targets": 13, "same_network": False}])
def test_every_cell_is_in_the_page(kind):
    given = comparison(**kind)
    cells = {tuple(a["title"].split("\n")): (a, text) for a, text in Page(page.render([given])).cells}
    assert len(cells) == len(given.table)
    for _, row in given.table.iterrows():
        entry = MEASURES[row["measure"]]
        if row["reason"]:
            key = f"{entry.label} has no value: {row['reason']}"
        else:
            interval = "" if np.isnan(row["low"]) else f" [{row['low']:.6g}, {row['high']:.6g}]"
            key = f"{entry.label} = {row['value']:.6g}{interval}, n = {row['n']}"
        attributes, text = cells[f"{row['source']} → {row['target']}", key]
        assert text.strip() == ("" if row["reason"] else figures.written(row["value"]))
        if row["reason"]:
            assert "none" in attributes["class"]
        else:
            assert f"background:{figures.colour(row['value'], entry)[0]}" in attributes["style"]


def test_own_and_most_similar_cells_are_marked():
    given = comparison(missing=False)
    for attributes, _ in Page(page.render([given])).cells:
        pair, rest = attributes["title"].split("\n", 1)
        source, target = pair.split(" → ")
        kinds = attributes.get("class", "").split()
        assert ("own" in kinds) == (source == target)
        if rest.startswith("DM residual"):
            assert ("top" in kinds) == (source == target)
    strangers = Page(page.render([comparison(same_network=False, same_architecture=False)])).cells
    assert not any("own" in a.get("class", "") for a, _ in strangers)


def test_the_table_can_be_taken_away():
    given = comparison(7, 5, hostile=True, same_network=False)
    links = [v for t, n, v in Page(page.render([given])).attributes if t == "a" and n == "href"]
    data = base64.b64decode(links[-1].split("base64,")[1]).decode()
    rows = list(csv.DictReader(io.StringIO(data, newline="")))
    assert len(rows) == len(given.table)
    for got, (_, row) in zip(rows, given.table.iterrows(), strict=True):
        assert (got["source"], got["reason"]) == (row["source"], row["reason"])
        assert (float(got["value"]) if got["value"] else None) == (None if row["reason"] else row["value"])


@pytest.mark.parametrize("kind", [{}, {"same_network": False},
                                  {"same_network": False, "same_architecture": False}])
def test_what_stands_on_the_page(kind):
    given = comparison(**kind)
    shown = all_text(Page(page.render([given])))
    for sentence in given.verdict().words:
        assert sentence in shown
    for word in (*given.sources, "100 to fit", "200 to test", "torch 2.4.0", "suture demo --fast",
                 '{"epochs": 8', "TLM had not converged", "arXiv:2412.11299", "direct matching (DM)",
                 "constant & <b>says nothing</b>"):
        assert word in shown
    for name in given.measures:
        assert MEASURES[name].about in shown
        assert MEASURES[name].label in shown


def test_several_comparisons_stand_on_one_page():
    many = [comparison(seed=0), comparison(seed=1, same_network=False), comparison(seed=2)]
    parsed = Page(page.render(many))
    ids = [v for _, n, v in parsed.attributes if n == "id"]
    assert sorted(ids) == ["c0", "c1", "c2"]
    assert len(parsed.cells) == sum(len(c.table) for c in many)
    with pytest.raises(SutureError, match="at least one"):
        page.render([])


@pytest.mark.parametrize(("loss", "drawn"), [(np.full((4, 4, 5), 0.5), True), (None, False),
                                             (np.full((4, 4, 5), np.nan), False),
                                             (np.zeros((4, 4, 1)), False)])
def test_learning_curves(loss, drawn):
    given = comparison()
    given.arrays.pop("tlm.loss")
    if loss is not None:
        given.arrays["tlm.loss"] = loss
    parsed = Page(page.render([given]))
    assert ("svg" in parsed.tags) == drawn
    if drawn:
        assert [v.count(",") for t, n, v in parsed.attributes if (t, n) == ("polyline", "points")] == [5]


def test_a_page_without_meta_or_measures():
    given = comparison()
    bare = type(given)("A", "B", (), (), False, True, given.table.iloc[:0], {}, {})
    assert "A → B" in page.render([bare])


def test_the_page_is_replaced_in_one_step(tmp_path, monkeypatch):
    path = tmp_path / "new" / "report.html"
    assert page.write([comparison()], path) == path
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space")

    monkeypatch.setattr("suture.report.files.write", full)
    with pytest.raises(SutureError, match="No space"):
        page.write([comparison(seed=1)], path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    with pytest.raises(SutureError, match=r"report\.html"):
        page.write([comparison()], tmp_path)


@pytest.mark.parametrize("name", list(MEASURES))
def test_bright_means_similar_and_limits_are_fixed(name):
    entry = MEASURES[name]
    similar, different = (entry.high, entry.low) if entry.larger_is_more_similar else (entry.low, entry.high)
    assert figures.colour(similar, entry)[0] == to_hex(mpl.colormaps["viridis"](1.0))
    assert figures.colour(different, entry)[0] == to_hex(mpl.colormaps["viridis"](0.0))
    assert figures.colour(entry.high + 5, entry) == figures.colour(entry.high, entry)
    for scale in (0.01, 0.5, 3.0):
        ax = Figure().add_subplot()
        figures.heatmap(pd.DataFrame(scale * np.eye(3), list("abc"), list("xyz")), entry, ax)
        assert ax.images[0].get_clim() == (entry.low, entry.high)


@pytest.mark.parametrize("share", np.linspace(0, 1, 21))
def test_values_are_legible_on_their_ground(share):
    def luminance(colour):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
    low, high = sorted(luminance(c) for c in figures.colour(share, MEASURES["cka"]))
    assert (high + 0.05) / (low + 0.05) >= 4.5  # WCAG AA


@pytest.mark.parametrize(("value", "text"), [(0.12345, "0.123"), (-0.5, "-0.500"), (9.87654, "9.877"),
                                             (12.34, "12.3"), (123.4, "123"), (123456.0, "1.2e+05")])
def test_values_as_written(value, text):
    assert figures.written(value) == text


@pytest.mark.parametrize(("size", "annotate", "texts"), [(3, True, 8), (3, False, 0), (12, True, 143),
                                                         (13, True, 0)])
def test_annotation_and_missing_cells(size, annotate, texts):
    values = np.full((size, size), 0.5)
    values[1, 2] = np.nan
    ax = Figure().add_subplot()
    figures.heatmap(pd.DataFrame(values), MEASURES["cka"], ax, annotate=annotate)
    assert len(ax.texts) == texts
    patches = [p for p in ax.patches if isinstance(p, Rectangle) and p.get_hatch()]
    assert [p.get_xy() for p in patches] == [(1.5, 0.5)]


def test_rows_are_sources():
    matrix = comparison(3, 2, same_network=False).matrix("dm.accuracy")
    ax = Figure().add_subplot()
    figures.heatmap(matrix, MEASURES["dm.accuracy"], ax)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("target", "source")
    assert [t.get_text() for t in ax.get_yticklabels()] == list(matrix.index)
    assert [t.get_text() for t in ax.get_xticklabels()] == list(matrix.columns)
    np.testing.assert_array_equal(ax.images[0].get_array(), matrix.to_numpy())
    assert ax.get_figure().axes[1].get_ylabel() == "more similar →"
    assert not any(isinstance(c, QuadMesh) for c in ax.collections)


def test_saved_figures(tmp_path):
    given = comparison(7, 5, hostile=True, same_network=False)
    few = given.table[given.table["measure"].isin(["cka", "dm.residual"])]
    given = dataclasses.replace(given, table=few)
    paths = figures.save(given, tmp_path / "figures")
    stems = [*given.measures, "all"]
    assert sorted(p.name for p in paths) == sorted(f"{s}.{k}" for s in stems for k in ("png", "pdf"))
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == sorted(p.name for p in paths)
    assert all(p.read_bytes().startswith(b"\x89PNG" if p.suffix == ".png" else b"%PDF") for p in paths)
    pdf = (tmp_path / "figures" / "cka.pdf").read_bytes()
    assert b"/Subtype /Type0" in pdf or b"/CIDFontType2" in pdf  # Type 42 fonts are embedded as CID TrueType
    assert b"/Subtype /Type3" not in pdf


def test_a_grid_has_one_map_per_measure():
    figure = figures.grid(comparison())
    assert len([ax for ax in figure.axes if ax.images]) == len(MEASURES)
    assert len([ax for ax in figures.grid(comparison(), ["cka", "opd"]).axes if ax.images]) == 2
    with pytest.raises(SutureError, match="nearest: cka"):
        figures.grid(comparison(), ["ckaa"])


def test_saved_figures_do_not_need_pyplot():
    code = ("import sys; sys.path.insert(0, sys.argv[1]); from synthetic import comparison; "
            "from suture.report import figures; figures.grid(comparison(2, 2), ['cka']); "
            "sys.exit('matplotlib.pyplot' in sys.modules)")
    here = str(Path(__file__).parent)
    assert subprocess.run([sys.executable, "-c", code, here], check=False).returncode == 0


@pytest.mark.parametrize(("name", "expected"), [("a/../b", "a-..-b"), ("..", "unnamed"), ("", "unnamed"),
                                                (HOSTILE[0], "script-alert-1-script"),
                                                ("resnet18", "resnet18")])
def test_names_in_file_names(name, expected):
    assert slug(name) == expected


def test_replace_leaves_no_traces(tmp_path):
    replace(tmp_path / "a" / "x.bin", b"1")
    replace(tmp_path / "a" / "x.bin", b"2")
    assert [(p.name, p.read_bytes()) for p in (tmp_path / "a").iterdir()] == [("x.bin", b"2")]


def test_csv_text_is_exact():
    table = pd.DataFrame({"a": [0.1 + 0.2, np.nan], "b": ["x,y", "q\"\n\r"], "n": [1, 2]})
    assert csv_text(table) == 'a,b,n\n0.30000000000000004,"x,y",1\n,"q""\n\r",2\n'
