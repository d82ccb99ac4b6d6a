"""What a notebook shows of results: the finding first, maps in the page's colours, nothing that runs."""

from __future__ import annotations

import base64
import dataclasses
import html.parser
import io
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from suture import SutureError
from suture._base import escape_controls
from suture.numbers import get_measure
from suture.results import Comparison, notebook
from suture.results.heatmaps import pick_colours
from suture.results.verdicts import ARTEFACT
from tests.support.comparisons import of_values
from tests.support.synthetic import comparison


class Reader(html.parser.HTMLParser):
    """Reads tags, whether they are closed, and texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        assert not any(name.startswith("on") or "script:" in (value or "") for name, value in attrs)
        if tag not in ("br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


ALLOWED = {"div", "b", "br", "p", "table", "tr", "td", "th", "img", "details", "summary"}


@pytest.fixture(scope="module")
def made() -> Comparison:
    return comparison(hostile=True, detectors=("maha",))


def test_a_comparison_begins_with_its_finding(made: Comparison) -> None:
    shown = made._repr_html_()
    assert shown is not None
    read = Reader(shown)
    assert read.tags <= ALLOWED
    assert f"{escape_controls(made.source)} → {escape_controls(made.target)}" in read.texts
    assert all(escape_controls(site)[:32] in read.texts for site in made.sources)
    places = [shown.index(notebook.quote(s)) for s in made.findings().all]
    assert places == sorted(places)
    assert places[-1] < shown.index("<table")


def test_a_map_has_the_values_and_colours_of_the_page(made: Comparison) -> None:
    shown = made._repr_html_() or ""
    for name in ("tlm.relative_accuracy", "dm.relative_accuracy", "cka_debiased"):
        assert notebook.quote(get_measure(name).label) in shown
        for value in made.matrix(name).to_numpy().ravel():
            ground, ink = pick_colours(value, get_measure(name)) if value == value else ("", "")
            assert value != value or f"background:{ground};color:{ink}\">{value:.2f}" in shown
    assert made.cells("tlm").isin([ARTEFACT]).to_numpy().any()
    assert "! artefact" in shown


def test_signs_are_those_of_marks_and_chance() -> None:
    matrix = pd.DataFrame([[0.5, np.nan]], index=["a<"], columns=["x", "y"])
    shown = notebook.render_map(get_measure("cka"), matrix, {(0, 0): "*°"})
    assert [t for t in Reader(shown).texts if t not in ("1", "2")] == ["CKA (biased)", "a<", "0.50*°", "·"]


def test_an_image_has_the_colours_of_its_cells() -> None:
    entry = get_measure("cka")
    values = np.random.default_rng(0).random((14, 3))
    values[2, 1] = np.nan
    shown = notebook.render_map(entry, pd.DataFrame(values))
    data = re.search(r"base64,([^\"]+)", shown)
    assert data is not None
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(data[1]))))
    assert image.shape == (14, 3, 4)
    for i, j in np.ndindex(*values.shape):
        known = not np.isnan(values[i, j])
        wanted = (*bytes.fromhex(pick_colours(values[i, j], entry)[0][1:]), 255) if known else (0, 0, 0, 0)
        assert tuple(image[i, j]) == wanted


def test_the_size_is_bounded() -> None:
    made, large = comparison(12, 12, hostile=True, examples=20), np.random.default_rng(0).random((60, 60))
    for shown in (made._repr_html_(), made.verdict()._repr_html_(), made.findings()._repr_html_(),
                  notebook.render_comparison(of_values("cka", large))):
        assert shown is not None
        assert len(shown.encode()) < 60_000
        assert Reader(shown).tags <= ALLOWED


def test_parts_that_are_too_large_are_left_out() -> None:
    parts = ["<p>1</p>", "x" * 60_000, "<p>2</p>"]
    assert notebook.render_card("t", ["s"], parts).count("<p>") == 1


def test_findings_and_verdicts(made: Comparison) -> None:
    verdict = made.verdict()
    for shown, sentences in ((made.findings()._repr_html_(), made.findings().all),
                             (verdict._repr_html_(), verdict.words)):
        read = Reader(shown or "")
        assert read.tags <= ALLOWED
        assert all(escape_controls(sentence) in read.texts for sentence in sentences)
    first = (verdict._repr_html_() or "").partition("<details>")[0]
    violated = [words for words, row in zip(verdict.words, verdict.table["violated"], strict=True) if row]
    assert len(violated) > 4
    assert [w for w in violated if notebook.quote(w) in first] == violated[:4]



def test_texts_in_a_console(made: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says the finding first, not the measures; `print` says all that was found."""
    found = list(map(escape_controls, made.findings().all))
    head, *sentences = str(made).splitlines()
    assert sentences == found == repr(made.findings()).splitlines()
    assert repr(made) == f"{head}: {found[0]}"
    assert f"{len(made.measures)} measures" in head
    verdict = made.verdict()
    assert repr(verdict).splitlines() == [escape_controls(text) for text in (*verdict.words, verdict.gap)]
    monkeypatch.setattr("suture.results.comparison.summarise_findings", refuse_all)
    unknown = dataclasses.replace(made)
    assert repr(unknown) == str(unknown) == head


def refuse_all(measured: Any) -> str:
    raise SutureError("no")


def test_what_cannot_be_shown_is_plain_text(made: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook, "render_comparison", refuse_all)
    assert made._repr_html_() is None
