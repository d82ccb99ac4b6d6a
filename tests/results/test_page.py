"""The page: every value, nothing unescaped, nothing from the network."""

from __future__ import annotations

import base64
import csv
import dataclasses
import gzip
import hashlib
import html
import io
import json
import re

import numpy as np
import pytest

from suture._base import escape_controls
from suture._base.errors import SutureError
from suture.numbers.measures import MEASURES, get_measure
from suture.results import format_people_csv, page, summarise_findings
from suture.results.page.data import encode_numbers
from suture.results.page.frame import load_script
from suture.results.page.maps import choose_lead
from suture.results.verdicts import ARTEFACT, judge_methods
from tests.support.pages import Page, render
from tests.support.synthetic import comparison


@pytest.mark.parametrize("kind", [{"same_network": True, "targets": 7}, {"same_network": False},
                                  {"same_network": False, "same_architecture": False},
                                  {"detectors": ("maha", "energy")}])
def test_nothing_from_outside_becomes_markup(kind):
    kind = {"sources": 7, "targets": 2, "hostile": True} | kind
    given, text = comparison(**kind), render(**kind)
    parsed = Page(text)
    assert parsed.tags.count("script") == 2
    assert parsed.scripts[1] == load_script()
    assert {"img", "i"}.isdisjoint(parsed.tags)
    assert "says nothing" not in "".join(re.findall("<b>.*?</b>", text))
    assert not [a for a in parsed.attributes if a[1].startswith("on")]
    assert "<script>alert(1)</script>" not in text
    for name in (*given.sources, *given.meta["notes"]):
        assert " ".join(name.replace("\r", r"\r").split()) in parsed.words
    assert "{{ 7 * 7 }}" in parsed.words


@pytest.mark.parametrize("hostile", [False, True])
def test_nothing_is_loaded(hostile):
    text = page.render_page([comparison(7, 2, hostile=hostile),
                             comparison(2, 2, same_network=False, detectors=("maha",))])
    parsed = Page(text)
    policy = next(v for t, n, v in parsed.attributes if t == "meta" and n == "content" and "default-src" in v)
    digest = base64.b64encode(hashlib.sha256(parsed.scripts[1].encode()).digest()).decode()
    assert policy == ("default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
                      f"script-src 'sha256-{digest}'")
    for tag, name, value in parsed.attributes:
        if name in ("src", "srcset", "poster", "action", "data"):
            pytest.fail(f"{tag} {name}={value!r}")
        if name == "href":
            assert value.startswith(("#", "data:application/gzip"))
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    assert "url(" not in style + " ".join(v for _, n, v in parsed.attributes if n == "style")
    assert "@import" not in style
    assert {"link", "iframe", "object", "base", "img"}.isdisjoint(parsed.tags)
    if not hostile:
        assert "http:" not in text
        assert "https:" not in text


@pytest.mark.parametrize("name", ["</script><script>alert(1)</script>", "<!--<script>", "a\u2028b\u2029",
                                  "\udc80", "\u202egnp.exe", "]]>&lt;"])
def test_no_name_ends_the_data_of_the_maps(name):
    given = comparison(2, 2, same_network=False)
    text = page.render_page([dataclasses.replace(given, source=name, meta=given.meta | {"notes": [name]})])
    parsed = Page(text)
    assert parsed.scripts[1:] == [load_script()]
    assert len(parsed.cells) == len(given.table)
    shown = escape_controls(name)
    assert parsed.cells[0].grid == f"{shown} → B"
    assert set("<>&\u2028\u2029\u202e").isdisjoint(parsed.scripts[0])


@pytest.mark.parametrize("kind", [{}, {"sources": 5, "targets": 3, "same_network": False},
                                  {"sources": 14, "targets": 2, "same_network": False},
                                  {"detectors": ("maha", "energy")}])
def test_every_cell_is_in_the_page(kind):
    given = comparison(**kind)
    cells = {(c.row, c.column, c.key): c for c in Page(render(**kind)).cells}
    assert len(cells) == len(given.table)
    for _, row in given.table.iterrows():
        cell = cells[row["source"], row["target"], row["measure"]]
        assert cell.label == get_measure(row["measure"]).label
        for shown, name in ((cell.value, "value"), (cell.low, "low"), (cell.high, "high")):
            assert shown == (None if np.isnan(row[name]) else float(f"{row[name]:.6g}"))
        assert cell.n == (None if row["reason"] else row["n"])
        assert (f"no value: {row['reason']}" in cell.lines) == bool(row["reason"])


@pytest.mark.parametrize(("values", "encoded"), [
    ([0.5, np.nan], [0.5, None]), ([np.inf, -np.inf], ["Infinity", "-Infinity"]),
    ([1 / 3, 2.0], [0.333333, 2]), ([-0.0, 1e300], [0, 1e300]), ([7.0, 7.0], 7),
    ([np.nan, np.nan], None), ([0.1], [0.1]), ([], [])])
def test_numbers_of_a_map(values, encoded):
    found = encode_numbers(np.array(values))
    assert found == encoded
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize("missing", [False, True])
def test_cells_of_a_method_say_their_verdict_and_artefacts_are_hatched(missing):
    given = comparison(detectors=("maha",), missing=missing)
    if missing:
        given = without(given, "tlm.kl", "layer1.0", "layer1.1")
    hatched = dict.fromkeys(given.measures, 0)
    verdicts = {m: (given.cells(m), given.cells(m, "reason")) for m in ("dm", "tlm")}
    for cell in Page(page.render_page([given])).cells:
        if "." not in cell.key:
            assert (cell.word, "hatch" in cell.signs) == ("", False)
            continue
        word, reason = (of.loc[cell.row, cell.column] for of in verdicts[cell.key.partition(".")[0]])
        assert cell.word == word
        assert cell.lines[-1] == f"verdict: {word}: {reason}"
        assert ("hatch" in cell.signs) == (word == ARTEFACT and cell.value is not None)
        hatched[cell.key] += "hatch" in cell.signs
    assert hatched["tlm.accuracy"] == hatched["tlm.frechet_shift"] == hatched["tlm.fpr95_maha"] == 12
    assert hatched["tlm.kl"] == 12 - missing
    assert hatched["cka"] == 0


def without(given, name, source, target):
    """The comparison with one cell's value missing."""
    table = given.table.copy()
    at = (table["measure"] == name) & (table["source"] == source) & (table["target"] == target)
    table.loc[at, ["value", "low", "high"]] = np.nan
    table.loc[at, "reason"] = "it broke"
    return dataclasses.replace(given, table=table)


def test_the_page_counts_verdicts_and_shows_what_they_rest_on():
    given, text = comparison(detectors=("maha", "energy")), render(detectors=("maha", "energy"))
    shown = Page(text).words
    for sentence in summarise_findings(given).all:
        assert shown.count(sentence) == 1
    for found in judge_methods(given).values():
        assert shown.count(found.counts) == 1  # above the method's measures
    for word in (": works, beyond what natural inputs reach (artefact)", "<b>noise</b>",
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
    plain = render().partition("<body>")[2].partition("<script>")[0]
    for word in ("artefact)", "Quality of", 'class="panels"'):
        assert word not in plain


def test_own_and_most_similar_cells_are_known():
    for cell in Page(render(missing=False)).cells:
        assert cell.own == (cell.row == cell.column)
        if cell.key == "dm.residual":
            assert ("top" in cell.signs) == cell.own
    strangers = Page(render(same_network=False, same_architecture=False)).cells
    assert not any(cell.own for cell in strangers)


@pytest.mark.parametrize("drop", ["", "tlm.", "dm.", "c"])
def test_the_first_screen_shows_what_the_methods_say(drop):
    given = comparison(detectors=("maha",))
    names = [m for m in given.measures if not (drop and m.startswith(drop))]
    kept = dataclasses.replace(given, table=given.table[given.table["measure"].isin(names)])
    chosen = choose_lead(kept)
    assert chosen[:2] == {"": ["tlm.relative_accuracy", "dm.relative_accuracy"],
                          "tlm.": ["dm.relative_accuracy", "cka_debiased"],
                          "dm.": ["tlm.relative_accuracy", "cka_debiased"],
                          "c": ["tlm.relative_accuracy", "dm.relative_accuracy"]}[drop]
    assert len(set(chosen)) == 3
    text = page.render_page([kept])
    lead = re.findall(r'<figure class="lead" data-grid="0" data-map="(\d+)">', text)
    assert [kept.measures[int(k)] for k in lead] == chosen[:2]
    shown = text[:text.index("<figure")]
    found = [s for s in summarise_findings(kept).sentences if s in html.unescape(shown)]
    assert found == list(summarise_findings(kept).sentences[:3])


def test_nulls_are_said_of_each_cell():
    given = comparison(3, 3, same_network=False, missing=False)
    tests = np.full((7, 3, 3), 0.25)
    tests[3] = np.array([[0.001, 0.9, 0.001]] * 3)
    tests[6] = np.nan
    about = {"cka": {"methods": {"moments": "all"}, "reasons": {"": "all"}},
             "opd": {"methods": {}, "reasons": {"no null in closed form": "all"}}}
    made = dataclasses.replace(given, arrays={**given.arrays, "null.tests/cka": tests},
                               meta=given.meta | {"nulls": about})
    text = page.render_page([made])
    for cell in Page(text).cells:
        above = cell.column != "layer1.1"
        assert ("chance" in cell.signs) == (cell.key == "cka" and not above)
        if cell.key == "cka":
            assert cell.lines[0].startswith(f"by chance 0.25 ± 0.25; {'' if above else 'not '}above chance (")
        assert ("no null: no null in closed form" in cell.lines) == (cell.key == "opd")
    assert "<td>CKA (biased)</td><td class=\"number\">6</td><td class=\"number\">9</td>" in text
    assert "degree sign" in text
    assert "degree sign" not in render()


def test_the_table_can_be_taken_away():
    kind = {"sources": 7, "targets": 2, "hostile": True, "same_network": False}
    given = comparison(**kind)
    links = [v for t, n, v in Page(render(**kind)).attributes if t == "a" and n == "href"]
    packed = next(v for v in links if v.startswith("data:"))
    data = gzip.decompress(base64.b64decode(packed.split("base64,")[1])).decode()
    assert data.encode() == format_people_csv(given.table)
    rows = list(csv.DictReader(io.StringIO(data, newline="")))
    assert len(rows) == len(given.table)
    for got, (_, row) in zip(rows, given.table.iterrows(), strict=True):
        assert (got["source"], got["reason"]) == (row["source"], row["reason"])
        assert (float(got["value"]) if got["value"] else None) == (None if row["reason"] else row["value"])


@pytest.mark.parametrize("kind", [{}, {"same_network": False},
                                  {"same_network": False, "same_architecture": False}])
def test_what_stands_on_the_page(kind):
    given = comparison(**kind)
    shown = Page(render(**kind)).words
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
    assert {"c0", "c1", "c2"} <= set(ids)
    assert len(ids) == len(set(ids))
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
    assert ("polyline" in parsed.tags) == drawn
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
