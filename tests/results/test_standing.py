"""By which measure cells work, and the line on a target network that is not above chance."""

from __future__ import annotations

import dataclasses
from math import comb

import numpy as np
import pandas as pd
import pytest

from suture.cli import console
from suture.numbers import Estimate, is_above_chance
from suture.results import Comparison, page, summarise_findings
from suture.results.standing import Criterion, describe_flaw, find_standing
from suture.results.verdicts import ARTEFACT, UNPROVEN
from tests.support.synthetic import comparison

NAN = float("nan")
SOUND = {"scored": 200, "hits": 190, "label": 25, "prediction": 25, "unit": "examples"}


def with_chance(made: Comparison, **counts: object) -> Comparison:
    return dataclasses.replace(made, meta=made.meta | {"chance": SOUND | counts})


def without_labels(made: Comparison) -> Comparison:
    """The same comparison as if the test data had no labels."""
    table, gone = made.table.copy(), made.table["measure"].str.endswith("accuracy")
    table.loc[gone, ["value", "low", "high"]] = NAN
    table.loc[gone, "reason"] = "the test data have no labels"
    return dataclasses.replace(made, table=table, arrays={
        k: v for k, v in made.arrays.items() if not k.endswith("correct")})


# -- chance --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("hits", "n", "most"), [(5, 40, 4), (12, 40, 4), (11, 40, 4), (0, 40, 4),
                                                 (40, 40, 39), (4, 4, 2), (7, 7, 4), (96, 100, 90),
                                                 (97, 100, 90)])
def test_above_chance_is_what_the_tail_of_the_binomial_says(hits, n, most):
    p = most / n
    tail = sum(comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(hits, n + 1))
    assert is_above_chance(hits, n, most) == (tail < 0.01)


@pytest.mark.parametrize(("counts", "words"), [
    ({"hits": 190}, ""), ({"hits": None}, ""), ({"label": None}, ""), ({"scored": 0}, ""),
    ({"hits": 22}, "at chance on its own test data (accuracy 0.11, largest class 0.12)"),
    ({"hits": 0}, "at chance on its own test data (accuracy 0.00"),
    ({"hits": 28}, "not clearly above chance on its own test data (accuracy 0.14"),
    ({"hits": 22, "unit": "tokens"}, "most frequent token 0.12"),
    ({"hits": 200, "label": 200}, "All 200 test examples have the same label"),
    ({"scored": 3, "hits": 3, "label": 1}, "3 test examples are too few"),
    ({"scored": 3, "hits": 3, "label": 1, "unit": "tokens"}, "3 test tokens are too few"),
    ({"scored": 5, "hits": 5, "label": 1}, "")])
def test_the_line_on_chance(counts, words):
    line = describe_flaw(SOUND | counts)
    assert bool(line) == bool(words)
    assert words in line
    assert not line or "below" in line.partition("): ")[2]


def test_at_chance_every_word_on_a_comparison_says_so_first(capsys, tmp_path):
    made = with_chance(comparison(detectors=("maha",)), hits=22)
    line, verdict = describe_flaw(made.meta["chance"]), made.verdict()
    assert verdict.first == verdict.words[0] == line
    assert len(verdict.words) == len(verdict.table) + 1
    assert verdict.gap == ""
    for method in ("dm", "tlm"):
        assert (made.cells(method) == UNPROVEN).all(axis=None)
        assert made.cells(method, "reason").iloc[0, 0].startswith("the target network is at chance")
    assert summarise_findings(made).first == line
    text = page.render_page([made])
    assert text.index(line) < text.index("Mend this first") < text.index("<figure")
    console.print_verdict(dataclasses.replace(made, meta=made.meta | {"notes": [line]}))
    out = capsys.readouterr().out
    assert out.strip().splitlines()[1].strip() == line
    assert out.count(line) == 1  # not again among the notes


@pytest.mark.parametrize("same", [True, False])
def test_a_comparison_that_is_sound_or_old_has_no_first_line(same):
    old = comparison(same_network=same, same_architecture=same, detectors=("maha",))
    made = with_chance(old)
    assert (made.verdict().first, made.verdict().words) == ("", old.verdict().words)
    assert made.verdict().gap == old.verdict().gap != ""
    for method in ("dm", "tlm"):
        assert made.cells(method).equals(old.cells(method))
    broken = with_chance(old, hits=0).verdict()
    assert broken.words == (broken.first, *old.verdict().words)


def test_labels_of_training_at_chance_come_first():
    made = comparison(detectors=("maha",))
    made = dataclasses.replace(made, meta=made.meta | {"warning": "the labels are wrong"})
    assert made.verdict().first == "The labels are wrong."
    assert (made.cells("tlm") == ARTEFACT).any(axis=None)


# -- by what a cell works ------------------------------------------------------------------------------------


def test_without_labels_cells_work_by_agreement():
    labelled = comparison(detectors=("maha",))
    made = without_labels(labelled)
    assert "no labels" in made.verdict().first
    assert "an agreement of at least 0.8" in made.verdict().first
    assert "agreement" in made.verdict().gap
    for method in ("dm", "tlm"):
        words, reasons = made.cells(method), made.cells(method, "reason")
        low, high = (made.matrix(f"{method}.agreement", end) for end in ("low", "high"))
        assert ((words == "dissimilar") == (high < 0.8)).all(axis=None)
        assert (words[low >= 0.8].iloc[:, :-1].isin(["similar", ARTEFACT, NAN])).all(axis=None)
        assert not reasons.map(lambda words: "accuracy" in words).any(axis=None)
    assert list(np.diag(made.cells("dm"))[:-1]) == ["similar"] * 3
    assert "a stitched network works with an agreement of at least 0.8" in page.render_page([made]).lower()


@pytest.mark.parametrize(("quantity", "counts", "trivial"), [
    ("relative_accuracy", {"label": 170, "hits": 190}, 170 / 190), ("agreement", {"prediction": 186}, 0.93)])
def test_what_a_constant_output_reaches_proves_nothing(quantity, counts, trivial):
    """A majority class of 85 % gives every constant output a relative accuracy of 0.89."""
    labelled = comparison(detectors=("maha",))
    made = with_chance(labelled if quantity == "relative_accuracy" else without_labels(labelled), **counts)
    assert find_standing(made).criteria["dm"] == Criterion(quantity, 0.8, trivial)
    assert "A constant output reaches a" in made.verdict().first
    low = made.matrix(f"tlm.{quantity}", "low")
    for method in ("dm", "tlm"):
        words, low = made.cells(method), made.matrix(f"{method}.{quantity}", "low")
        assert (words[(low >= 0.8) & (low <= trivial)].isin([UNPROVEN, NAN])).all(axis=None)
    assert made.cells("dm").iloc[0, 0] == "similar"


def test_a_network_that_predicts_one_class_agrees_with_a_constant():
    made = with_chance(without_labels(comparison(detectors=("maha",))), prediction=200)
    assert "predicts one class" in made.verdict().first
    assert "preprocessing" in made.verdict().first
    assert not (made.cells("tlm") == ARTEFACT).any(axis=None)


ERROR = Criterion("output_error", 0.2, 0.15)


@pytest.mark.parametrize(("value", "mark", "works", "reason"), [
    ((0.05, 0.04, 0.06), "", True, "relative error of the output 0.05"),
    ((0.05, 0.04, 0.06), "one epoch: no", True, "relative error of the output 0.05"),
    ((0.35, 0.3, 0.4), "", False, "relative error of the output 0.35 is above 0.2"),
    ((0.35, 0.3, 0.4), "one epoch: no", None, "(one epoch: no)"),
    ((0.19, 0.17, 0.21), "", None, "not clearly above or below 0.2 (95 % interval 0.17 to 0.21)"),
    ((0.12, 0.1, 0.15), "", None, "not clearly better than 0.15, which a constant output reaches"),
    ((NAN, NAN, NAN, "why"), "", None, "the relative error of the output is missing: why")])
def test_without_predictions_cells_work_by_the_error_of_the_output(value, mark, works, reason):
    found, words = ERROR.decide(Estimate(*value), mark)
    assert found is works
    assert reason in words
    assert "nan" not in words


def test_a_comparison_without_predictions():
    made = comparison(detectors=("maha",))
    rows = made.table[made.table["measure"] == "dm.agreement"]
    errors = rows.assign(measure="dm.output_error", value=1 - rows["value"], low=1 - rows["high"],
                         high=1 - rows["low"], direction="smaller")
    kept = made.table[~made.table["measure"].str.contains("accuracy|agreement|output_")]
    bare = dataclasses.replace(made, table=pd.concat([kept, errors], ignore_index=True))
    assert "relative error of the output of at most 0.2" in bare.verdict().first
    assert bare.cells("dm").iloc[0, 0] == "similar"
    assert bare.cells("dm").equals(without_labels(made).cells("dm"))
