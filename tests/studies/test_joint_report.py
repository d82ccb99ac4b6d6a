"""Several results in one page, and what a notebook shows of studies and validations."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import suture
from suture import SutureError
from suture.results import Comparison
from suture.studies.measure_tests.record import TestOutcome
from suture.studies.measure_tests.validation import Validation
from tests.results.test_notebook import ALLOWED, Reader
from tests.support.studies import of_pairs, on_a_line
from tests.support.synthetic import comparison

SCRIPT = "<script>x</script>"


def rename(made: Comparison, source: str) -> Comparison:
    return dataclasses.replace(made, source=source, target=source)


def test_several_comparisons_in_one_page(tmp_path: Path) -> None:
    made = [rename(comparison(2, 2, examples=20, seed=k), f"network {k}") for k in range(2)]
    page = suture.report(made, tmp_path / "two.html")
    assert page == tmp_path / "two.html"
    text = page.read_text(encoding="utf-8")
    assert all(f"network {k}" in text for k in range(2))
    one = suture.report(made[0], tmp_path / "one.html").read_text(encoding="utf-8")
    assert one == made[0].report(tmp_path / "same.html").read_text(encoding="utf-8")


def test_a_study_has_its_own_page(tmp_path: Path) -> None:
    study = on_a_line({"a": 0, "b": 1, "c": 5})
    for given in (study, [study]):
        text = suture.report(given, tmp_path / "s.html").read_text(encoding="utf-8")
        assert text == study.report(tmp_path / "same.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("given", "value"), [
    ([], r"\[\]"), ("result", "'result'"), (["result"], r"write suture\.load\('result'\)"),
    (3, "3"), ([3], "3"), ([{"cka": 0.5}], "dict"), (None, "None")])
def test_other_things_are_no_results(given: Any, value: str, tmp_path: Path) -> None:
    with pytest.raises(SutureError, match=value):
        suture.report(given, tmp_path / "a.html")
    assert not list(tmp_path.iterdir())


def test_a_study_beside_comparisons_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SutureError, match="1 of 2 results"):
        suture.report([comparison(2, 2, examples=20), on_a_line({"a": 0, "b": 1})], tmp_path / "a.html")


# -- notebooks -----------------------------------------------------------------------------------------------

def test_a_study_in_a_notebook() -> None:
    shown = on_a_line({SCRIPT: 0, "b": 1, "c": 5})._repr_html_() or ""
    read = Reader(shown)
    assert read.tags <= ALLOWED
    assert read.texts[0] == "3 networks, 6 pairs"
    assert shown.index("Most similar") < shown.index("<table")
    assert SCRIPT in read.texts


def test_a_large_study_and_one_without_pairs_in_a_notebook() -> None:
    large = on_a_line({f"n{k}{SCRIPT * 9}": k for k in range(14)})._repr_html_() or ""
    assert len(large.encode()) < 60_000
    assert Reader(large).tags <= ALLOWED
    none = of_pairs({}, failures={("a", "b"): SCRIPT})._repr_html_() or ""
    assert f"a into b failed: {SCRIPT}" in Reader(none).texts


def test_a_validation_in_a_notebook() -> None:
    outcomes = [TestOutcome(test, "cka", *[np.nan] * 5, 3, "share", 0.0, passed, "") for test, passed in (
        (SCRIPT, True), ("depth", False), ("self", None))]
    made = Validation.make(outcomes, ("a", "b"), ("l",), ["first warning"])
    read = Reader(made._repr_html_() or "")
    assert read.tags <= ALLOWED
    assert {SCRIPT, "✓", "✗", "first warning", made.findings[0]} <= set(read.texts)
