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
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from suture._base.errors import SutureError
from suture._base.files import clean_file_name, replace_file
from suture.numbers.measures import MEASURES, get_measure
from suture.results.cell_verdict import ARTEFACT
from suture.results.report import figure_format as style
from suture.results.report import figures, histograms, page
from suture.results.summary import summarise_findings, tabulate_quality
from suture.results.table import format_csv
from tests.support.synthetic import HOSTILE, NAMES, comparison

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
        if self.in_map and "td" in self.open[-2:]:
            self.cells[-1][1] += data


def all_text(parsed):
    return " ".join(" ".join(parsed.text).split())


@pytest.mark.parametrize("kind", [{"same_network": True}, {"same_network": False},
                                  {"same_network": False, "same_architecture": False},
                                  {"detectors": ("maha", "energy")}])
def test_nothing_from_outside_becomes_markup(kind):
    given = comparison(7, 6, hostile=True, **kind)
    text = page.render_page([given])
    parsed = Page(text)
    assert "script" not in parsed.tags
    assert parsed.tags.count("img") == ("detectors" in kind)
    assert {"b", "i"}.isdisjoint(parsed.tags)
    assert not [a for a in parsed.attributes if a[1].startswith("on")]
    assert "<script>alert(1)</script>" not in text
    shown = all_text(parsed)
    for name in (*given.sources, *given.meta["notes"]):
        assert " ".join(name.split()) in shown
    assert "{{ 7 * 7 }}" in shown


@pytest.mark.parametrize("hostile", [False, True])
def test_nothing_is_loaded(hostile):
    text = page.render_page([comparison(7, 7, hostile=hostile),
                             comparison(same_network=False, detectors=("maha",))])
    parsed = Page(text)
    policy = next(v for t, n, v in parsed.attributes if t == "meta" and n == "content" and "default-src" in v)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    for tag, name, value in parsed.attributes:
        if tag == "img" and name == "src":
            assert base64.b64decode(value.removeprefix("data:image/png;base64,"),
                                    validate=True)[:4] == b"\x89PNG"
        elif name in ("src", "srcset", "poster", "action", "data"):
            pytest.fail(f"{name}={value!r}")
        if name == "href":
            assert value.startswith(("#", "data:text/csv"))
    style = re.search(r"<style>(.*?)</style>", text, re.S)[1]
    assert "url(" not in style + " ".join(v for _, n, v in parsed.attributes if n == "style")
    assert "@import" not in style
    assert {"link", "script", "iframe", "object", "base"}.isdisjoint(parsed.tags)
    if not hostile:
        assert "http:" not in text
        assert "https:" not in text


@pytest.mark.parametrize("kind", [{}, {"sources": 5, "targets": 3, "same_network": False},
                                  {"sources": 14, "targets": 13, "same_network": False},
                                  {"sources": 5, "detectors": ("maha", "energy")}])
def test_every_cell_is_in_the_page(kind):
    given = comparison(**kind)
    cells = {tuple(a["title"].split("\n")[:2]): (a, text)
             for a, text in Page(page.render_page([given])).cells}
    assert len(cells) == len(given.table)
    for _, row in given.table.iterrows():
        entry = get_measure(row["measure"])
        if row["reason"]:
            key = f"{entry.label} has no value: {row['reason']}"
        else:
            interval = "" if np.isnan(row["low"]) else f" [{row['low']:.6g}, {row['high']:.6g}]"
            key = f"{entry.label} = {row['value']:.6g}{interval}, n = {row['n']}"
        attributes, text = cells[f"{row['source']} → {row['target']}", key]
        assert text.strip() == ("" if row["reason"] else figures.format_value(row["value"]))
        if row["reason"]:
            assert "none" in attributes["class"]
        else:
            assert f"background:{figures.pick_colours(row['value'], entry)[0]}" in attributes["style"]


@pytest.mark.parametrize("missing", [False, True])
def test_cells_of_a_method_say_their_verdict_and_artefacts_are_lined(missing):
    given = comparison(detectors=("maha",), missing=missing)
    if missing:
        given = without(given, "tlm.kl", "layer1.0", "layer1.1")
    lined = dict.fromkeys(given.measures, 0)
    verdicts = {m: (given.cells(m), given.cells(m, "reason")) for m in ("dm", "tlm")}
    labels = {get_measure(m).label: m for m in given.measures}
    for attributes, _ in Page(page.render_page([given])).cells:
        pair, number, *rest = attributes["title"].split("\n")
        source, target = pair.split(" → ")
        name = next(labels[k] for k in labels if number.startswith((f"{k} = ", f"{k} has no value")))
        kinds = attributes.get("class", "").split()
        if "." not in name:
            assert (rest, "artefact" in kinds) == ([], False)
            continue
        word, reason = (of.loc[source, target] for of in verdicts[name.partition(".")[0]])
        assert rest == [f"{word}: {reason}"]
        assert ("artefact" in kinds) == (word == ARTEFACT and "none" not in kinds)
        lined[name] += "artefact" in kinds
    assert lined["tlm.accuracy"] == lined["tlm.frechet_shift"] == lined["tlm.fpr95_maha"] == 12
    assert lined["tlm.kl"] == 12 - missing
    assert lined["cka"] == 0


def without(given, name, source, target):
    """The comparison with one cell's value missing."""
    table = given.table.copy()
    at = (table["measure"] == name) & (table["source"] == source) & (table["target"] == target)
    table.loc[at, ["value", "low", "high"]] = np.nan
    table.loc[at, "reason"] = "it broke"
    return dataclasses.replace(given, table=table)


def test_the_page_counts_verdicts_and_shows_what_they_rest_on():
    given = comparison(detectors=("maha", "energy"))
    text = page.render_page([given])
    shown = all_text(Page(text))
    sentences = summarise_findings(given).cells
    assert [words.split(":")[0] for words in sentences] == ["Direct matching", "Task loss matching"]
    for words in sentences:
        assert shown.count(words) == 2  # at the verdict, and above the method's measures
    assert "works, out of distribution (artefact)" in shown
    for word in ("made from the data: 50 examples of <i>noise</i>", "given: 50 examples",
                 "Quality of maha (verdicts rest on it)", "Quality of energy", "a relative accuracy of 0.8",
                 "without the layer itself"):
        assert word in shown
    rows = re.findall(r"<tr><td>(layer[^<]*)</td>(.*?)</tr>", text)
    assert [site for site, _ in rows] == [*given.targets, *given.targets]
    found = given.meta["ood"]["quality"]["maha"]
    for j, (_, row) in enumerate(rows[:4]):
        cells = re.findall(r'<td class="number( low)?">([^<]*)</td>', row)
        keys = ("auxiliary", "auxiliary_one_sided", "unseen", "unseen_one_sided")
        assert [float(c.split()[0]) for _, c in cells] == pytest.approx([found[j][k] for k in keys], abs=5e-4)
        assert [bool(low) for low, _ in cells] == [found[j][k] < 0.8 and not k.endswith("sided")
                                                   for k in keys]
    plain = page.render_page([comparison()])
    for word in ("artefact)", "Quality of", "representations real", "<img"):
        assert word not in plain


def test_quality_that_is_not_there():
    given = comparison(detectors=("maha",))
    ood = given.meta["ood"]
    nothing = [{"auxiliary": None, "auxiliary_one_sided": None, "unseen": None, "unseen_one_sided": None}] * 4
    bare = dataclasses.replace(given, meta=given.meta | {"ood": {
        "verdict": "maha", "thresholds": ood["thresholds"], "quality": {"maha": nothing}}})
    assert [c["text"] for row in tabulate_quality(bare)[0]["rows"] for c in row["cells"]] == ["–"] * 16
    assert "no auxiliary data show what the detector maha sees at this site" in page.render_page([bare])
    assert tabulate_quality(comparison()) == []


def test_findings_tell_what_is_wrong_from_what_is_not():
    given = comparison()
    found, words = summarise_findings(given), given.verdict().words
    assert sorted((*found.shown, *found.passed)) == sorted(words)
    assert found.passed
    assert found.summary == (f"{len(found.passed)} of {len(words)} measures: no layer looks more similar to "
                             "a layer than itself")
    assert all(sentence.startswith(("TLM", "OPD")) for sentence in found.shown)
    assert found.cells == ()
    strangers = summarise_findings(comparison(same_network=False, same_architecture=False))
    assert (len(strangers.shown), strangers.passed, strangers.summary) == (1, (), "")
    one = dataclasses.replace(given, table=given.table[given.table["measure"] == "dm.residual"])
    assert (summarise_findings(one).summary == "1 of 1 measure: no layer looks more similar to a "
                                               "layer than itself")
    twins = comparison(same_network=False)
    assert summarise_findings(twins).summary.endswith("measures: every corresponding layer is the "
                                                      "most similar one")


def test_own_and_most_similar_cells_are_marked():
    given = comparison(missing=False)
    for attributes, _ in Page(page.render_page([given])).cells:
        pair, rest = attributes["title"].split("\n", 1)
        source, target = pair.split(" → ")
        kinds = attributes.get("class", "").split()
        assert ("own" in kinds) == (source == target)
        if rest.startswith("DM residual"):
            assert ("top" in kinds) == (source == target)
    strangers = Page(page.render_page([comparison(same_network=False, same_architecture=False)])).cells
    assert not any("own" in a.get("class", "") for a, _ in strangers)


def test_the_table_can_be_taken_away():
    given = comparison(7, 5, hostile=True, same_network=False)
    links = [v for t, n, v in Page(page.render_page([given])).attributes if t == "a" and n == "href"]
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
    shown = all_text(Page(page.render_page([given])))
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
    parsed = Page(page.render_page(many))
    ids = [v for _, n, v in parsed.attributes if n == "id"]
    assert sorted(ids) == ["c0", "c1", "c2"]
    assert len(parsed.cells) == sum(len(c.table) for c in many)
    with pytest.raises(SutureError, match="at least one"):
        page.render_page([])


@pytest.mark.parametrize(("loss", "drawn"), [(np.full((4, 4, 5), 0.5), True), (None, False),
                                             (np.full((4, 4, 5), np.nan), False),
                                             (np.zeros((4, 4, 1)), False)])
def test_learning_curves(loss, drawn):
    given = comparison()
    given.arrays.pop("tlm.loss")
    if loss is not None:
        given.arrays["tlm.loss"] = loss
    parsed = Page(page.render_page([given]))
    assert ("svg" in parsed.tags) == drawn
    if drawn:
        assert [v.count(",") for t, n, v in parsed.attributes if (t, n) == ("polyline", "points")] == [5]


def test_a_page_without_meta_or_measures():
    given = comparison()
    bare = type(given)("A", "B", (), (), False, True, given.table.iloc[:0], {}, {})
    assert "A → B" in page.render_page([bare])


def test_the_page_is_replaced_in_one_step(tmp_path, monkeypatch):
    path = tmp_path / "new" / "report.html"
    assert page.write_page([comparison()], path) == path
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space")

    monkeypatch.setattr("suture._base.files.write_new_file", full)
    with pytest.raises(SutureError, match="No space"):
        page.write_page([comparison(seed=1)], path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    with pytest.raises(SutureError, match=r"report\.html"):
        page.write_page([comparison()], tmp_path)


@pytest.mark.parametrize("name", list(MEASURES))
def test_bright_means_similar_and_limits_are_fixed(name):
    entry = MEASURES[name]
    similar, different = (entry.high, entry.low) if entry.larger_is_more_similar else (entry.low, entry.high)
    assert figures.pick_colours(similar, entry)[0] == to_hex(mpl.colormaps["viridis"](1.0))
    assert figures.pick_colours(different, entry)[0] == to_hex(mpl.colormaps["viridis"](0.0))
    assert figures.pick_colours(entry.high + 5, entry) == figures.pick_colours(entry.high, entry)
    for scale in (0.01, 0.5, 3.0):
        ax = Figure().add_subplot()
        figures.draw_heatmap(pd.DataFrame(scale * np.eye(3), list("abc"), list("xyz")), entry, ax)
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
    assert contrast(*figures.pick_colours(share, MEASURES["cka"])) >= 4.5


def hatches(ax):
    """Where cells are hatched as artefacts: (row, column) to patch."""
    return {(round(p.get_xy()[1] + 0.5), round(p.get_xy()[0] + 0.5)): p for p in ax.patches
            if p.get_gid() == "hatched"}


@pytest.mark.parametrize("name", ["tlm.relative_accuracy", "tlm.kl"])
@pytest.mark.parametrize("size", [4, 13])
def test_hatched_cells_stay_legible(name, size):
    entry = MEASURES[name]
    values = np.linspace(entry.low, entry.high, size * size).reshape(size, size)
    values[0, 1] = np.nan
    lined = np.arange(size * size).reshape(size, size) % 2 == 1
    ax = Figure().add_subplot()
    figures.draw_heatmap(pd.DataFrame(values), entry, ax, hatched=pd.DataFrame(lined))
    found = hatches(ax)
    assert set(found) == {(i, j) for i, j in np.argwhere(lined)} - {(0, 1)}
    texts = {(round(t.get_position()[1]), round(t.get_position()[0])): t for t in ax.texts}
    assert len(texts) == (size * size - 1 if size <= 12 else 0)
    for (i, j), patch in found.items():
        ground, ink = figures.pick_colours(values[i, j], entry)
        assert patch.get_hatch()
        assert contrast(patch.get_edgecolor(), ground) >= 4.5
        assert patch.get_facecolor()[3] == 0
        assert patch.get_zorder() > ax.images[0].get_zorder()
        if texts:
            box = texts[i, j].get_bbox_patch()
            assert (to_hex(box.get_facecolor()), texts[i, j].get_color()) == (ground, ink)
            assert texts[i, j].get_zorder() > patch.get_zorder()
    assert {cell for cell, t in texts.items() if t.get_bbox_patch()} == (set(found) if texts else set())
    assert ax.get_xlabel() == "target\nhatched: works, out of distribution"


def test_the_hatch_is_drawn_and_the_number_is_not_crossed():
    entry, grounds = MEASURES["tlm.accuracy"], []
    for lined in (False, True):
        figure = Figure(figsize=(3, 3), dpi=100)
        ax = figure.add_axes((0, 0, 1, 1))
        figures.draw_heatmap(pd.DataFrame([[0.9]]), entry, ax, hatched=pd.DataFrame([[lined]]))
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        box = ax.texts[0].get_window_extent()
        pixels = np.asarray(canvas.buffer_rgba())[::-1]
        number = pixels[round(box.y0):round(box.y1), round(box.x0):round(box.x1)]
        grounds.append((pixels, number))
    assert (grounds[0][0] != grounds[1][0]).any(axis=2).mean() > 0.01
    # The ground under the number is drawn by another path, which may round its colour differently.
    np.testing.assert_allclose(grounds[0][1].astype(int), grounds[1][1].astype(int), atol=1)


def test_artefacts_are_hatched_in_every_measure_of_their_method():
    given = comparison(detectors=("maha",))
    names = ["dm.accuracy", "tlm.kl", "tlm.auroc_maha", "tlm.frechet", "cka"]
    expected = {m: {(i, j) for i, j in np.argwhere((given.cells(m) == ARTEFACT).to_numpy())}
                for m in ("dm", "tlm")}
    assert len(expected["tlm"]) == 12
    made = {ax.get_title(): ax for ax in figures.draw_overview(given, names).axes if ax.images}
    for name in names:
        want = expected.get(name.partition(".")[0], set())
        plotted = given.plot(name, Figure().add_subplot())
        for ax in (made[get_measure(name).label], plotted, figures._draw_measure(given, name).axes[0]):
            assert set(hatches(ax)) == want
            assert ("hatched" in ax.get_xlabel()) == bool(want)
    assert not hatches(comparison().plot("tlm.kl", Figure().add_subplot()))


@pytest.mark.parametrize(("value", "text"), [(0.12345, "0.123"), (-0.5, "-0.500"), (9.87654, "9.877"),
                                             (12.34, "12.3"), (123.4, "123"), (123456.0, "1.2e+05")])
def test_values_as_written(value, text):
    assert figures.format_value(value) == text


@pytest.mark.parametrize(("size", "annotate", "texts"), [(3, True, 8), (3, False, 0), (12, True, 143),
                                                         (13, True, 0)])
def test_annotation_and_missing_cells(size, annotate, texts):
    values = np.full((size, size), 0.5)
    values[1, 2] = np.nan
    ax = Figure().add_subplot()
    figures.draw_heatmap(pd.DataFrame(values), MEASURES["cka"], ax, annotate=annotate)
    assert len(ax.texts) == texts
    patches = [p for p in ax.patches if isinstance(p, Rectangle) and p.get_hatch()]
    assert [p.get_xy() for p in patches] == [(1.5, 0.5)]


def test_rows_are_sources():
    matrix = comparison(3, 2, same_network=False).matrix("dm.accuracy")
    ax = Figure().add_subplot()
    figures.draw_heatmap(matrix, MEASURES["dm.accuracy"], ax)
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
    paths = figures.save_figures(given, tmp_path / "figures")
    stems = [*given.measures, "all"]
    assert sorted(p.name for p in paths) == sorted(f"{s}.{k}" for s in stems for k in ("png", "pdf"))
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == sorted(p.name for p in paths)
    assert all(p.read_bytes().startswith(b"\x89PNG" if p.suffix == ".png" else b"%PDF") for p in paths)
    pdf = (tmp_path / "figures" / "cka.pdf").read_bytes()
    assert b"/Subtype /Type0" in pdf or b"/CIDFontType2" in pdf  # Type 42 fonts are embedded as CID TrueType
    assert b"/Subtype /Type3" not in pdf


def test_details_have_no_files_and_are_left_out_of_the_overview(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "draw_overview", lambda given, names: shown.append(names) or Figure())
    monkeypatch.setattr(figures, "_draw_measure", lambda *_: Figure(figsize=(1, 1)))
    given = comparison(2, 2, detectors=("maha", "relative_mean"))
    stems = {p.stem for p in figures.save_figures(given, tmp_path)}
    assert stems == {*shown[0], "scores_maha", "scores_relative_mean", "all"}
    left_out = set(given.measures) - set(*shown)
    parts = {f"{m}.frechet_{p}" for m in ("dm", "tlm") for p in ("shift", "shrinkage", "rotation")}
    assert left_out == parts | {f"{m}.{w}_{d}" for m in ("dm", "tlm") for w in ("ap", "fpr95")
                                for d in ("maha", "relative_mean")}


def test_a_figure_drawn_once_is_the_figure():
    given = comparison(3, 3)
    data = io.BytesIO()
    with mpl.rc_context(style.STYLE):
        figures._draw_measure(given, "dm.kl").savefig(data, format="png", dpi=200)
    once = style.render_png(figures._draw_measure(given, "dm.kl"), 200)
    one, other = (plt.imread(io.BytesIO(d)) for d in (data.getvalue(), once))
    np.testing.assert_array_equal(one, other)
    assert style.render_pdf(figures._draw_measure(given, "dm.kl")) == style.render_pdf(
        figures._draw_measure(given, "dm.kl"))


def test_a_grid_has_one_map_per_measure():
    figure = figures.draw_overview(comparison())
    assert len([ax for ax in figure.axes if ax.images]) == len(NAMES)
    assert len([ax for ax in figures.draw_overview(comparison(), ["cka", "opd"]).axes if ax.images]) == 2
    with pytest.raises(SutureError, match="nearest: cka"):
        figures.draw_overview(comparison(), ["ckaa"])


def test_saved_figures_do_not_need_pyplot():
    code = ("import sys; sys.path.insert(0, sys.argv[1]); from tests.support.synthetic import comparison; "
            "from suture.results.report import figures; figures.draw_overview(comparison(2, 2), ['cka']); "
            "sys.exit('matplotlib.pyplot' in sys.modules)")
    here = str(Path(__file__).parents[2])
    assert subprocess.run([sys.executable, "-c", code, here], check=False).returncode == 0


@pytest.mark.parametrize(("name", "expected"), [("a/../b", "a-..-b"), ("..", "unnamed"), ("", "unnamed"),
                                                (HOSTILE[0], "script-alert-1-script"),
                                                ("resnet18", "resnet18")])
def test_names_in_file_names(name, expected):
    assert clean_file_name(name) == expected


def test_replace_leaves_no_traces(tmp_path):
    replace_file(tmp_path / "a" / "x.bin", b"1")
    replace_file(tmp_path / "a" / "x.bin", b"2")
    assert [(p.name, p.read_bytes()) for p in (tmp_path / "a").iterdir()] == [("x.bin", b"2")]


def test_csv_text_is_exact():
    table = pd.DataFrame({"a": [0.1 + 0.2, np.nan], "b": ["x,y", "q\"\n\r"], "n": [1, 2]})
    assert format_csv(table) == 'a,b,n\n0.30000000000000004,"x,y",1\n,"q""\n\r",2\n'


# -- histograms ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("same", [True, False])
def test_stitched_scores_are_of_all_sources_but_the_layer_itself(same):
    given = comparison(5, 4, same_network=same, detectors=("maha", "energy"))
    for j, target in enumerate(given.targets):
        found = histograms.collect_scores(given, "energy", j)
        assert list(found) == ["native", "auxiliary", "unseen", "dm", "tlm"]
        others = [i for i, s in enumerate(given.sources) if not (same and s == target)]
        assert len(others) == 5 - same
        for method in ("dm", "tlm"):
            expected = np.concatenate([given.arrays[f"{method}.score_energy"][i, j] for i in others])
            np.testing.assert_array_equal(np.sort(found[method]), np.sort(expected))
        for kind in ("native", "auxiliary", "unseen"):
            np.testing.assert_array_equal(found[kind], given.arrays[f"{kind}.energy"][j])


def samples(seed, far=4.0, spread=1.0):
    rng = np.random.default_rng(seed)
    return {"native": rng.standard_normal(500), "dm": rng.standard_normal(900) * spread - far}


@pytest.mark.parametrize("far", [0.0, 4.0, 1e3, 1e9])
def test_every_score_is_in_a_bin_and_native_ones_stay_wide(far):
    found = samples(0, far)
    found["dm"][:2] = -np.inf, np.inf
    bins = histograms.choose_bins(found)
    assert len(bins) == histograms.BINS + 1
    assert (np.diff(bins) > 0).all()
    low, high = np.percentile(found["native"], [1, 99])
    assert bins[0] <= low < high <= bins[-1]
    assert (high - low) / (bins[-1] - bins[0]) > 1 / 9.01
    for kind, height in histograms.compute_densities(found, bins).items():
        assert (height * np.diff(bins)).sum() == pytest.approx(1), kind
    slow = [np.mean((found["native"] >= a) & (found["native"] < b)) / (b - a) for a, b in pairwise(bins)]
    np.testing.assert_allclose(histograms.compute_densities(found, bins)["native"][1:-1],
                               slow[1:-1], rtol=1e-9)


def test_the_range_does_not_follow_one_far_score():
    found = samples(0)
    before = histograms.choose_bins(found)
    found["dm"][0] = -1e6
    np.testing.assert_allclose(histograms.choose_bins(found), before, atol=0.1)


@pytest.mark.parametrize("found", [{}, {"native": np.zeros(5)}, {"native": np.zeros(5), "dm": np.ones(3)},
                                   {"dm": np.full(3, -np.inf)},
                                   {"native": np.array([7.0]), "dm": np.array([1e12])}])
def test_bins_of_samples_without_a_spread(found):
    bins = histograms.choose_bins(found)
    assert np.isfinite(bins).all()
    assert (np.diff(bins) > 0).all()
    for height in histograms.compute_densities(found, bins).values():
        assert (height * np.diff(bins)).sum() == pytest.approx(1)


def test_one_panel_per_target_site():
    given = comparison(7, 6, hostile=True, detectors=("maha",))
    given.arrays["dm.score_maha"][0, 0, :3] = np.nan
    given.arrays["tlm.score_maha"][:, 2] = np.nan
    made = histograms.draw_histograms(given, "maha")
    assert [ax.get_title() for ax in made.axes] == [figures.make_printable(t) for t in given.targets]
    kinds = [[p.get_gid() for p in ax.patches] for ax in made.axes]
    every = ["native", "auxiliary", "unseen", "dm", "tlm"]
    assert kinds == [every, every, every[:-1], every, every, every]
    assert [t.get_text() for t in made.legends[0].get_texts()] == ["native", "auxiliary", "unseen",
                                                                   "direct matching", "task loss matching"]
    for ax in made.axes:
        assert len({tuple(p.get_data().edges) for p in ax.patches}) == 1
    assert style.render_png(made, 50).startswith(b"\x89PNG")
    assert style.render_pdf(made).startswith(b"%PDF")


def test_detectors_without_scores_have_no_histogram():
    given = comparison(3, 3, detectors=("maha",))
    for name in ("dm.score_other", "native.third"):
        given.arrays[name] = given.arrays["native.maha"]
    assert histograms.list_scored_detectors(given) == ["maha"]
    with pytest.raises(SutureError, match="nearest: maha"):
        histograms.draw_histograms(given, "maah")
    with pytest.raises(SutureError, match=r"ood=suture\.OOD"):
        histograms.draw_histograms(comparison(2, 2), "maha")
    only = {k: v for k, v in given.arrays.items() if not k.startswith(("auxiliary", "unseen", "tlm.score"))}
    less = dataclasses.replace(given, arrays=only)
    assert list(histograms.collect_scores(less, "maha", 0)) == ["native", "dm"]
    assert len(histograms.draw_histograms(less, "maha").axes) == 3
    assert "<img" in page.render_page([less])
    assert "<img" not in page.render_page([dataclasses.replace(given, arrays={})])
