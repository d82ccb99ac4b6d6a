"""Verdicts of cells: planted cases, an independent version, laws of the rules; their summary in sentences."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from suture._base.errors import SutureError
from suture.numbers import Estimate
from suture.results import page
from suture.results.standing import Criterion, format_near
from suture.results.verdicts import (
    ARTEFACT,
    DISSIMILAR,
    LABELS_ONLY,
    LEVEL,
    NOT_SHOWN,
    SIMILAR,
    UNPROVEN,
    VERDICTS,
    WORKING,
    CellEvidence,
    judge_cell,
    judge_cells,
    judge_methods,
)
from tests.support.synthetic import comparison

NAN = float("nan")
BY = Criterion("relative_accuracy", 0.8)


def alone(works, distance=(0.5,), residual=(0.4,), p=0.0, mark="", by=BY):
    return judge_cell(CellEvidence(Estimate(*works), Estimate(*distance), Estimate(*residual), p, mark), by)


@pytest.mark.parametrize(("works", "rest", "word", "parts"), [
    ((0.95,), {}, SIMILAR, ("0.95", "natural distance 0.50", "residual 0.40")),
    ((0.95,), {"distance": (9.1,)}, ARTEFACT, ("0.95", "natural inputs reach (natural distance 9.10")),
    ((0.95,), {"distance": (1.2, 0.9, 1.5)}, NOT_SHOWN, ("1.20", "0.90 to 1.50")),
    ((0.95,), {"distance": (0.9, 0.7, 1.1)}, NOT_SHOWN, ("0.90", "0.70 to 1.10")),
    ((0.95,), {"distance": (NAN, NAN, NAN, "no shift")}, NOT_SHOWN, ("no shift",)),
    ((0.95,), {"p": 0.2}, LABELS_ONLY, ("p 0.2",)),
    ((0.95,), {"residual": (1.0,)}, LABELS_ONLY, ("1.00",)),
    ((0.95,), {"residual": (0.85, 0.8, 0.91)}, LABELS_ONLY, ("0.85", "0.91")),
    ((0.95,), {"distance": (0.9, 0.7, 1.1), "p": 0.2}, LABELS_ONLY, ("0.70 to 1.10", "p 0.2")),
    ((0.95,), {"distance": (0.9, 0.7, 1.1), "residual": (NAN, NAN, NAN, "one class")}, NOT_SHOWN,
     ("one class",)),
    ((0.95,), {"residual": (NAN, NAN, NAN, "one class")}, NOT_SHOWN, ("one class",)),
    ((0.95,), {"p": NAN}, NOT_SHOWN, ("too few examples of each class",)),
    ((0.31,), {}, DISSIMILAR, ("0.31",)),
    ((0.31,), {"distance": (NAN, NAN, NAN, "none")}, DISSIMILAR, ("0.31",)),
    ((0.31,), {"mark": "one epoch: no"}, UNPROVEN, ("one epoch: no",)),
    ((0.95,), {"distance": (9.1,), "mark": "one epoch: no"}, ARTEFACT, ("marked (one epoch: no)",)),
    ((0.80, 0.76, 0.84), {}, UNPROVEN, ("0.76 to 0.84",)),
    ((NAN, NAN, NAN, "no labels"), {}, UNPROVEN, ("no labels",)),
])
def test_planted_cells(works, rest, word, parts):
    found, reason = alone(works, **rest)
    assert found == word
    assert all(part in reason for part in parts)


@pytest.mark.parametrize(("works", "distance", "word"), [
    (0.8, 0.5, SIMILAR), (np.nextafter(0.8, 0), 0.5, DISSIMILAR), (0.8, 1.0, SIMILAR),
    (0.8, np.nextafter(1.0, 2), ARTEFACT)])
def test_thresholds_themselves_are_reached(works, distance, word):
    found, reason = alone((works,), (distance,))
    assert found == word
    assert "nan" not in reason


def test_another_limit():
    assert alone((0.55,), by=Criterion("relative_accuracy", 0.5))[0] == SIMILAR
    assert alone((0.55,))[0] == DISSIMILAR


def judged_alone(works, distance, residual, p, mark):
    """The word of one cell by asking at the value and at both ends of the intervals."""
    def ends(e):
        return [x for x in (e.value, e.low, e.high) if not math.isnan(x)]

    at = ends(works)
    if not at or (works.value < 0.8 and mark) or len({x >= 0.8 for x in at}) == 2:
        return UNPROVEN
    if works.value < 0.8:
        return DISSIMILAR
    sides = {x > 1 for x in ends(distance)}
    if sides == {True}:
        return ARTEFACT
    if not sides or not ends(residual) or math.isnan(p):
        return NOT_SHOWN
    if p >= LEVEL or max(ends(residual)) >= 0.9:
        return LABELS_ONLY
    return SIMILAR if sides == {False} else NOT_SHOWN


def random_cells(seed, count=63):
    """Values, intervals around most of them, gaps, p-values and marks."""
    rng = np.random.default_rng(seed)

    def one(scale):
        value = round(scale * rng.random(), 2)
        if rng.random() < 0.1:
            return Estimate(NAN, reason="why")
        low, high = value - 0.1 * rng.random(), value + 0.1 * rng.random()
        return Estimate(value) if rng.random() < 0.3 else Estimate(value, low, high)

    return [(one(1.2), one(2.0), one(1.1), [0.0, 0.5, NAN][rng.integers(3)],
             "one epoch: no" if rng.random() < 0.3 else "") for _ in range(count)]


@pytest.mark.parametrize("seed", range(20))
def test_every_cell_equals_the_independent_version(seed):
    for cell in random_cells(seed):
        word, reason = judge_cell(CellEvidence(*cell), BY)
        assert word == judged_alone(*cell)
        assert reason
        assert "nan" not in reason


@pytest.mark.parametrize("seed", range(5))
def test_less_certainty_never_proves_more(seed):
    changed = 0
    for works, distance, residual, p, mark in random_cells(seed):
        word, _ = judge_cell(CellEvidence(works, distance, residual, p, mark), BY)
        wide = [dataclasses.replace(e, low=np.fmin(e.low, e.value) - 0.2, high=np.fmax(e.high, e.value) + 0.2)
                for e in (works, distance)]
        after, _ = judge_cell(CellEvidence(*wide, residual, p, mark), BY)
        assert after in (word, UNPROVEN, NOT_SHOWN) or (word, after) == (ARTEFACT, LABELS_ONLY)
        changed += after != word
    assert changed


def test_a_written_number_is_on_the_side_of_its_value():
    rng = np.random.default_rng(0)
    for threshold in (0.8, 0.2, 0.5, 1.0):
        for off in [0.0, *(rng.choice([-1, 1], 60) * 10.0 ** -rng.uniform(0, 17, 60))]:
            value = threshold + off
            text = format_near(value, threshold)
            assert np.sign(float(text) - threshold) == np.sign(value - threshold)
            assert float(text) == pytest.approx(value, abs=0.005)
    assert format_near(0.31, 0.8) == "0.31"
    assert format_near(0.7996, 0.8) == "0.7996"


# -- of a comparison -----------------------------------------------------------------------------------------


def read(made, measure, i, j):
    return Estimate(*(made.matrix(measure, what).iloc[i, j] for what in ("value", "low", "high")))


def test_cells_of_a_comparison():
    made = comparison(5, 4, same_network=False, detectors=("other", "maha"))
    for method in ("dm", "tlm"):
        words, reasons = made.cells(method), made.cells(method, "reason")
        assert (list(words.index), list(words.columns)) == (list(made.sources), list(made.targets))
        assert (words.index.name, words.columns.name) == ("source", "target")
        assert set(words.to_numpy().ravel()) <= set(VERDICTS)
        for i, j in np.ndindex(words.shape):
            expected = judged_alone(*(read(made, f"{method}.{name}", i, j) for name in
                                      ("relative_accuracy", "natural_distance", "informational_residual")),
                                    0.0, "")
            # Representations that equal the native ones are similar by construction.
            native = made.matrix(f"{method}.r2").iloc[i, j] >= 1 - 1e-6
            assert words.iloc[i, j] == (SIMILAR if native and expected in (UNPROVEN, NOT_SHOWN, LABELS_ONLY)
                                        else expected)
        assert (reasons != "").all(axis=None)
    assert (made.cells("tlm").iloc[:, :-1] == ARTEFACT).all(axis=None)
    assert (made.cells("tlm").iloc[:, -1] == NOT_SHOWN).all()
    pd.testing.assert_frame_equal(made.cells(), made.cells("dm", "word"))


def test_no_verdict_depends_on_other_cells():
    made = comparison(5, 4, same_network=False, detectors=("maha",))
    sources, targets = made.sources[1:3], made.targets[2:]
    few = made.table[made.table["source"].isin(sources) & made.table["target"].isin(targets)]
    arrays = {name: of[1:3, 2:] if name.endswith("residual_p") else of for name, of in made.arrays.items()}
    cut = dataclasses.replace(made, sources=sources, targets=targets, table=few, arrays=arrays)
    for method in ("dm", "tlm"):
        for what in ("word", "reason"):
            pd.testing.assert_frame_equal(cut.cells(method, what),
                                          made.cells(method, what).loc[list(sources), list(targets)])


@pytest.mark.parametrize("method", ["dm", "tlm"])
def test_counts_of_verdicts_are_one_sentence(method):
    made = comparison(detectors=("maha",))
    words = list(made.cells(method).to_numpy().ravel())
    found = judge_cells(made, method)
    for word in VERDICTS:
        noun = word.replace("works, ", "").replace("shares", "sharing")
        assert (f"{words.count(word)} {noun}" in found.counts) == (word in words)
    assert "of 16 cells" in found.counts
    assert found.count(*WORKING) == sum(word in WORKING for word in words)
    empty = dataclasses.replace(made, sources=(), targets=(), table=made.table[:0])
    assert judge_methods(empty) == {}


def test_cells_go_by_the_threshold_of_the_comparison():
    made = comparison(detectors=("maha",))
    ood = {**made.meta["ood"], "thresholds": {"works": 1.0, "out": 0.9}}  # the second one of earlier versions
    other = dataclasses.replace(made, meta={**made.meta, "ood": ood})
    assert (made.cells("tlm") == ARTEFACT).any(axis=None)
    assert not (other.cells("tlm") == ARTEFACT).any(axis=None)


def test_marks_and_reasons_reach_the_verdict():
    made = comparison(detectors=("maha",))
    table = made.table.copy()
    at = ((table["source"] == "layer1.0") & (table["target"] == "layer1.1")
          & table["measure"].str.startswith("dm."))
    table.loc[at, "mark"] = "still improving: yes"
    marked = dataclasses.replace(made, table=table)
    assert made.cells().loc["layer1.0", "layer1.1"] == DISSIMILAR
    assert marked.cells().loc["layer1.0", "layer1.1"] == UNPROVEN
    assert "still improving" in marked.cells("dm", "reason").loc["layer1.0", "layer1.1"]
    table.loc[at, ["value", "low", "high"]] = NAN
    table.loc[at, ["reason", "mark"]] = ["it broke", ""]
    assert "it broke" in dataclasses.replace(made, table=table).cells("dm",
                                                                      "reason").loc["layer1.0", "layer1.1"]


@pytest.mark.parametrize(("detectors", "args", "match"), [
    ((), ("dm",), r"ood=suture\.OOD\(\)"),
    (("maha",), ("dn",), "unknown method 'dn'; nearest: dm"),
    (("maha",), ("dm", "words"), "unknown column 'words'; nearest: word")])
def test_cells_that_are_not_there(detectors, args, match):
    with pytest.raises(SutureError, match=match):
        comparison(detectors=detectors).cells(*args)


def test_a_method_without_distances_is_named():
    made = comparison(detectors=("maha",))
    less = dataclasses.replace(made, table=made.table[made.table["measure"] != "tlm.natural_distance"])
    assert (less.cells("dm") != "").all(axis=None)
    with pytest.raises(SutureError, match=r"'tlm\.natural_distance' is not in"):
        less.cells("tlm")


def test_quality_that_is_not_there():
    given = comparison(detectors=("maha",))
    nothing = [{"auxiliary": None, "auxiliary_one_sided": None, "unseen": None, "unseen_one_sided": None}] * 4
    bare = dataclasses.replace(given, meta=given.meta | {"ood": given.meta["ood"] | {
        "quality": {"maha": nothing}}})
    assert [text for _, cells in page.tabulate_quality(bare)[0]["rows"] for text in cells] == ["–"] * 16
    assert page.tabulate_quality(comparison()) == []
