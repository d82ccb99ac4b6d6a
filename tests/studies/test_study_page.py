"""The page and the figures of a study: the finding first, every cell, nothing unescaped."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

import suture
from suture import Study, SutureError
from suture.results import shorten_name
from suture.studies.network_study import figures, inference, page
from suture.studies.network_study.findings import choose_columns, find_study
from suture.studies.network_study.group_contrast import contrast_groups
from suture.studies.network_study.layers import reduce_layers
from suture.studies.network_study.report import describe_failures
from tests.results.test_latex import read_rows
from tests.support.comparisons import of_values
from tests.support.drawn_texts import find_faults
from tests.support.pages import Page
from tests.support.studies import of_pairs, on_a_line

HOSTILE = ("<script>alert(1)</script>", "x" * 300, "$a_b$", "line\nbreak")
PLACES = {"a": 0.0, "b": 1.0, "c": 5.0, "d": 6.5}
ABOUT = {"epoch": [0, 1, 5, 6], "half": ["early", "early", "late", "late"], "seed": [0, 1, 0, 1],
         "one": [3, 3, 3, 3]}


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "DRAWS", 60)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Names of the figures that a page shows, which are not drawn."""
    seen: list[Any] = []
    monkeypatch.setattr(page, "_draw", lambda name, make: seen.append(name) or {
        "title": name, "note": "", "image": "data:,"})
    return seen


def write(study: Study, tmp_path: Path, **options: Any) -> str:
    return study.report(tmp_path / "p.html", **options).read_text()


def test_the_page_says_the_finding_first_and_shows_what_is_missing(tmp_path: Path,
                                                                   undrawn: list[Any]) -> None:
    whole = on_a_line(PLACES, about=ABOUT, settings={"sites": "l"})
    values = {pair: whole.comparisons[pair] for pair in whole.pairs if pair != ("a", "d")}
    values["b", "d"] = of_values("cka", [[0.5, 0.9], [0.9, np.nan]])
    failures = {("a", "x"): "<b>out of memory", ("a", "d"): "diverged"}
    made = Study((*PLACES, "x"), whole.about.reindex([*PLACES, "x"]), values, failures, whole.meta)
    text = write(made, tmp_path)
    parsed = Page(text)
    found = find_study(made).sentences
    assert found[0].startswith("Most similar by CKA (biased): a and b (0.950); least: b and d (0.500); mean "
                               "of 5 pairs of 4 networks ")
    assert "2 of 11 pairs failed" in found[-1]
    assert "1 of 10 cells are missing or marked" in found[-1]
    assert len(found) <= 4
    assert text.index("Most similar by") < text.index("<figure") < text.index("Cite and reproduce")
    cells = {(cell.row, cell.column): cell for cell in parsed.cells}
    assert cells["b", "d"].value == cells["d", "b"].value == 0.5
    assert "star" in cells["b", "d"].signs
    assert "left out: why" in cells["b", "d"].lines[0]
    assert cells["a", "d"].value is None
    assert cells["a", "d"].lines == ("no value: diverged",)
    assert "&lt;b&gt;out of memory" in text
    assert "not compared" in cells["c", "x"].lines[0]
    assert undrawn == ["embedding", "tree", "trend_epoch"]


@pytest.mark.parametrize(("make", "named"), [
    (lambda: on_a_line(dict(zip(HOSTILE, range(4), strict=True))), "&lt;script&gt;"),
    (lambda: on_a_line({"a": 0}), "no pair of different networks"),
    (lambda: on_a_line({"a": 0, "b": 1}, about={"epoch": [0, 1]}), "epoch: expected at least 3 pairs"),
    (lambda: of_pairs({}, failures={("a", "b"): "<b>diverged"}), "None of 1 pairs could be compared"),
    (lambda: of_pairs({("a", "b"): np.nan, ("a", "c"): np.nan}), "No pair of different networks has a value"),
    (lambda: on_a_line(PLACES, about=ABOUT, measure="dm.r2"), "dm.r2 is no metric"),
    (lambda: of_pairs({("a", "b"): 0.5, ("c", "d"): 0.5}, about=ABOUT), "a and b (0.500)"),
    (lambda: of_pairs(dict.fromkeys(itertools.pairwise([f"network {k}" for k in range(25)]), 0.5)),
     "network 24")])
def test_pages_of_all_kinds(make: Callable[[], Study], named: str, tmp_path: Path,
                            undrawn: list[Any]) -> None:
    made = make()
    text = write(made, tmp_path)
    parsed = Page(text)
    assert named in text
    assert parsed.tags.count("script") == 2
    links = [value for _, name, value in parsed.attributes if name in ("src", "href")]
    assert all(link.startswith("data:") for link in links)
    assert len(parsed.cells) == len(made.networks) ** 2 * bool(made.pairs)


def test_a_trend_is_said_in_words_and_adjusted() -> None:
    line = {f"n{k}": float(k) for k in range(7)}
    found = find_study(on_a_line(line, about={"epoch": range(7), "pair": [k // 2 for k in range(7)]}))
    assert found.sentences[1].startswith("Networks that differ more in epoch are less similar by CKA "
                                         "(biased) (Spearman -1.00")
    assert "adjusted for 2 tests" in found.sentences[1]
    assert found.adjusted["epoch"] == pytest.approx(2 * found.trends[0].p)
    unlike = find_study(on_a_line(line, about={"epoch": [3, 0, 6, 1, 5, 2, 4]}))
    assert unlike.sentences[1].startswith("No trend of CKA")


def test_columns_and_names() -> None:
    assert choose_columns(on_a_line(PLACES, about=ABOUT)) == (["epoch"], ["half", "seed"])
    assert choose_columns(on_a_line(PLACES, about={"epoch": [0, None, 2, 3], "name": list("abcd")})) == (
        ["epoch"], [])
    assert (shorten_name("abcdefghij", 5), shorten_name("abc", 5)) == ("ab…ij", "abc")
    with pytest.raises(SutureError, match="'epoch'"):
        find_study(on_a_line(PLACES), along="epoch")
    with pytest.raises(SutureError, match="opd"):
        find_study(on_a_line(PLACES), "opd")


def test_groups_against_all_permutations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "DRAWS", 1500)
    values = np.random.default_rng(0).random((5, 5))
    values[:2, :2] += 0.5
    made = on_a_line(dict.fromkeys("abcde", 0.0)).matrix("cka") * 0 + (values + values.T) / 2
    labels = ["p", "p", "q", "q", None]

    def difference(order: tuple[int, ...]) -> float:
        pairs = list(itertools.combinations(range(4), 2))
        equal = [labels[order[i]] == labels[order[j]] for i, j in pairs]
        cells = [made.iloc[i, j] for i, j in pairs]
        return (np.mean([c for c, e in zip(cells, equal, strict=True) if e])
                - np.mean([c for c, e in zip(cells, equal, strict=True) if not e]))

    every = [difference(order) for order in itertools.permutations(range(4))]
    found = contrast_groups(made, labels, "half", "cka", 0)
    assert found.difference == pytest.approx(every[0])
    assert found.p == pytest.approx(np.mean([abs(d) >= abs(every[0]) - 1e-12 for d in every]), abs=0.04)
    assert (found.networks, found.pairs, found.least_p) == (4, (2, 4), pytest.approx(1 / 3))
    assert found.low <= found.difference <= found.high
    with pytest.raises(SutureError, match="half"):
        contrast_groups(made, list("abcde"), "half", "cka", 0)


@pytest.mark.parametrize("shape", [(3, 3), (2, 5), (5, 2), (3, 4), (1, 4), (4, 1), (1, 1)])
def test_corresponding_layers_are_those_of_the_deeper_network(shape: tuple[int, int]) -> None:
    values = np.random.default_rng(1).random(shape)
    wide = values if shape[0] <= shape[1] else values.T
    s, t = wide.shape
    expected = np.mean([wide[round(j * (s - 1) / max(1, t - 1)), j] for j in range(t)])
    kind = {"same_network": False, "same_architecture": False}
    one = reduce_layers(of_values("cka", values, **kind), "cka", "diagonal")
    other = reduce_layers(of_values("cka", values.T, **kind), "cka", "diagonal")
    assert (one.value, other.value) == (pytest.approx(expected), pytest.approx(expected))
    assert one.cells == max(shape)
    assert one.distance == pytest.approx(
        np.mean([math.acos(wide[round(j * (s - 1) / max(1, t - 1)), j]) for j in range(t)]))


@pytest.mark.parametrize("what", ["map", "embedding", "tree", "trend"])
def test_figures_can_be_saved(what: str, tmp_path: Path) -> None:
    names = ("$a_b$", "<b>", "line\nbreak", "d")
    made = on_a_line(dict(zip(names, PLACES.values(), strict=True)), about=ABOUT).plot(what)
    made.savefig(tmp_path / "f.pdf")
    assert (tmp_path / "f.pdf").read_bytes().startswith(b"%PDF")
    words = [text.get_text() for ax in made.axes for text in (*ax.texts, *ax.get_yticklabels())]
    assert what == "trend" or {"$a_b$", "<b>", "line break", "d"} <= {*words}


@pytest.mark.parametrize(("what", "along"), [("map", None), ("embedding", "half"), ("embedding", "step"),
                                             ("tree", None), ("trend", "step")])
def test_no_text_of_a_figure_overlaps_or_is_clipped_at_column_width(what: str, along: str | None) -> None:
    names = [f"resnet18-cifar10-seed{k}" for k in range(8)]
    about = {"step": dict(zip(names, range(8), strict=True)),
             "half": {name: f"group {k % 3}" for k, name in enumerate(names)}}
    made = on_a_line({name: float(k) for k, name in enumerate(names)}, about=about)
    with suture.style("column"):
        assert find_faults(made.plot(what, along=along)) == []


def test_names_of_an_embedding_on_ones_own_axes_are_no_formulas() -> None:
    names = dict(zip((r"$\frac$", "line\nbreak", "c", "d"), PLACES.values(), strict=True))
    ax = on_a_line(names).embed().plot(plt.figure().add_subplot())
    ax.figure.draw_without_rendering()
    assert [text.get_text() for text in ax.texts] == [r"$\frac$", "line break", "c", "d"]
    plt.close(ax.figure)


def test_tables_of_latex() -> None:
    made = on_a_line({**PLACES, "a_b": 1.5})
    rows = read_rows(made.to_latex("matrix", digits=2))
    assert [row[0] for row in rows[1:]] == [name.replace("_", r"\_") for name in made.networks]
    assert rows[1][2] == f"{made.matrix('cka').iloc[0, 1]:.2f}"
    head, row = read_rows(made.to_latex("summary", digits=2))
    found = made.summary("cka").iloc[0]
    assert head == ["group", "value", "networks", "pairs", r"95\,\% interval"]
    assert row[1] == f"{found['value']:.2f}"
    assert row[4] == rf"{{\scriptsize [{found['low']:.2f}, {found['high']:.2f}]}}"
    with pytest.raises(SutureError, match="matrix"):
        made.to_latex("matrixx")


def test_figures_that_do_not_exist() -> None:
    for what, measure, named in (("mapp", "cka", "map"), ("trend", "cka", "along"),
                                 ("tree", "dm.r2", "metric")):
        with pytest.raises(SutureError, match=named):
            on_a_line(PLACES, measure=measure).plot(what)
    with pytest.raises(SutureError, match="'epok'"):
        on_a_line(PLACES).plot("embedding", along="epok")


def test_failures_of_one_reason_are_one_line() -> None:
    failures = {("a", "b"): "b is missing", ("a", "c"): "c", ("b", "b"): "b is missing", ("b", "c"): "c",
                ("c", "c"): "c", ("d", "d"): "d"}
    assert describe_failures(failures, 2) == ["a into b and another pair failed: b is missing",
                                              "a into c and 2 other pairs failed: c", "1 more failed."]


def test_labels_of_many_networks_can_be_read_and_do_not_touch() -> None:
    names = [f"network {k}" for k in range(56)]
    made = figures.draw_map(of_pairs(dict.fromkeys(itertools.pairwise(names), 0.5)), "cka")
    labels = made.axes[0].get_yticklabels()
    made.draw_without_rendering()
    assert labels[0].get_fontsize() >= 5
    boxes = [label.get_window_extent() for label in labels]
    assert not any(one.overlaps(other) for one, other in itertools.pairwise(boxes))
    plt.close("all")


def test_a_network_without_distances_is_left_out_of_the_plane_and_named(tmp_path: Path) -> None:
    whole = on_a_line({**PLACES, "x": 3.0})
    values = {pair: made for pair, made in whole.comparisons.items() if pair != ("a", "x")}
    made = figures.draw_embedding(Study(whole.networks, whole.about, values, {}, {}), "cka")
    assert "without 1 of 5 networks" in made.axes[0].get_title()


def test_the_report_draws_its_figures_into_a_folder(tmp_path: Path) -> None:
    made = on_a_line({"a": 0, "b": 1})
    made.report(tmp_path / "r.html", figures=True)
    assert sorted(p.name for p in (tmp_path / "r_figures").iterdir()) == [
        "map.pdf", "map.png", "tree.pdf", "tree.png"]
    assert len(re.findall("<img", (tmp_path / "r.html").read_text())) == 1
