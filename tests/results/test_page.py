"""The page: every value, nothing unescaped, nothing from the network."""

from __future__ import annotations

import base64
import csv
import dataclasses
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from suture._base.errors import SutureError
from suture.numbers.measures import MEASURES, get_measure
from suture.results import heatmaps, page, summarise_findings
from suture.results.verdicts import ARTEFACT, judge_methods
from tests.support.pages import render
from tests.support.synthetic import comparison

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


@pytest.mark.parametrize("kind", [{"same_network": True, "targets": 7}, {"same_network": False},
                                  {"same_network": False, "same_architecture": False},
                                  {"detectors": ("maha", "energy")}])
def test_nothing_from_outside_becomes_markup(kind):
    kind = {"sources": 7, "targets": 2, "hostile": True} | kind
    given, text = comparison(**kind), render(**kind)
    parsed = Page(text)
    assert "script" not in parsed.tags
    assert parsed.tags.count("img") == ("detectors" in kind)
    assert {"b", "i"}.isdisjoint(parsed.tags)
    assert not [a for a in parsed.attributes if a[1].startswith("on")]
    assert "<script>alert(1)</script>" not in text
    shown = all_text(parsed)
    for name in (*given.sources, *given.meta["notes"]):
        assert " ".join(name.replace("\r", r"\r").split()) in shown
    assert "{{ 7 * 7 }}" in shown


@pytest.mark.parametrize("hostile", [False, True])
def test_nothing_is_loaded(hostile):
    text = page.render_page([comparison(7, 2, hostile=hostile),
                             comparison(2, 2, same_network=False, detectors=("maha",))])
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
                                  {"sources": 14, "targets": 2, "same_network": False},
                                  {"detectors": ("maha", "energy")}])
def test_every_cell_is_in_the_page(kind):
    given = comparison(**kind)
    cells = {tuple(a["title"].split("\n")[:2]): (a, text)
             for a, text in Page(render(**kind)).cells}
    assert len(cells) == len(given.table)
    for _, row in given.table.iterrows():
        entry = get_measure(row["measure"])
        if row["reason"]:
            key = f"{entry.label} has no value: {row['reason']}"
        else:
            interval = "" if np.isnan(row["low"]) else f" [{row['low']:.6g}, {row['high']:.6g}]"
            key = f"{entry.label} = {row['value']:.6g}{interval}, n = {row['n']}"
        attributes, text = cells[f"{row['source']} → {row['target']}", key]
        assert text.strip() == ("" if row["reason"] else heatmaps.format_value(row["value"]))
        if row["reason"]:
            assert "none" in attributes["class"]
        else:
            assert f"background:{heatmaps.pick_colours(row['value'], entry)[0]}" in attributes["style"]


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
    given, text = comparison(detectors=("maha", "energy")), render(detectors=("maha", "energy"))
    shown = all_text(Page(text))
    for sentence in summarise_findings(given).all:
        assert shown.count(sentence) == 1
    for found in judge_methods(given).values():
        assert shown.count(found.counts) == 1  # above the method's measures
    for word in ("works, beyond what natural inputs reach (artefact)", "<b>noise</b>",
                 "made from the data: 50 examples of <i>noise</i>", "given: 50 examples", "Quality of maha",
                 "Quality of energy", "a relative accuracy of at least 0.8", "without the layer itself"):
        assert word in shown
    rows = re.findall(r"<tr><td>(layer[^<]*)</td>(.*?)</tr>", text)
    assert [site for site, _ in rows] == [*given.targets] * 3
    assert all("0.4 (0.3 to 0.5)" in row for _, row in rows[:3])
    assert "the network works under no shift" in rows[3][1]
    quality = given.meta["ood"]["quality"]["maha"]
    for j, (_, row) in enumerate(rows[4:8]):
        cells = re.findall(r'<td class="number">([^<]*)</td>', row)
        keys = ("auxiliary", "auxiliary_one_sided", "unseen", "unseen_one_sided")
        assert [float(text) for text in cells] == pytest.approx([quality[j][k] for k in keys], abs=5e-4)
    plain = render()
    for word in ("artefact)", "Quality of", "natural inputs reach", "<img"):
        assert word not in plain


def test_own_and_most_similar_cells_are_marked():
    for attributes, _ in Page(render(missing=False)).cells:
        pair, rest = attributes["title"].split("\n", 1)
        source, target = pair.split(" → ")
        kinds = attributes.get("class", "").split()
        assert ("own" in kinds) == (source == target)
        if rest.startswith("DM residual"):
            assert ("top" in kinds) == (source == target)
    strangers = Page(render(same_network=False, same_architecture=False)).cells
    assert not any("own" in a.get("class", "") for a, _ in strangers)


def test_the_table_can_be_taken_away():
    kind = {"sources": 7, "targets": 2, "hostile": True, "same_network": False}
    given = comparison(**kind)
    links = [v for t, n, v in Page(render(**kind)).attributes if t == "a" and n == "href"]
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
    shown = all_text(Page(render(**kind)))
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
    many = [comparison(2, 2, seed=0), comparison(2, 3, seed=1, same_network=False), comparison(3, 3, seed=2)]
    parsed = Page(page.render_page(many))
    ids = [v for _, n, v in parsed.attributes if n == "id"]
    assert sorted(ids) == ["c0", "c1", "c2"]
    assert len(parsed.cells) == sum(len(c.table) for c in many)
    with pytest.raises(SutureError, match="at least one"):
        page.render_page([])


@pytest.mark.parametrize(("loss", "drawn"), [(np.full((2, 2, 5), 0.5), True), (None, False),
                                             (np.full((2, 2, 5), np.nan), False),
                                             (np.zeros((2, 2, 1)), False)])
def test_learning_curves(loss, drawn):
    given = comparison(2, 2)
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
    assert page.write_page([comparison(2, 2)], path) == path
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space")

    monkeypatch.setattr("suture._base.files.write_new_file", full)
    with pytest.raises(SutureError, match="No space"):
        page.write_page([comparison(2, 2, seed=1)], path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    with pytest.raises(SutureError, match=r"report\.html"):
        page.write_page([comparison(2, 2)], tmp_path)
