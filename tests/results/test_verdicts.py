"""Verdicts of cells: planted cases, an independent version, laws of the rules; their summary in sentences."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from suture._base.errors import SutureError
from suture.numbers import Estimate
from suture.ood import Thresholds
from suture.results import page
from suture.results.verdicts import (
    ARTEFACT,
    DISSIMILAR,
    SIMILAR,
    UNPROVEN,
    VERDICTS,
    explain_weakness,
    format_near,
    judge_cell,
    judge_cells,
    judge_methods,
    summarise_findings,
)
from tests.support.synthetic import comparison

NAN = float("nan")
SEEN = {"auxiliary": 0.99, "unseen": 0.95}


def alone(relative, outlying, quality=SEEN, mark="", thresholds=None):
    thresholds = thresholds or Thresholds()
    return judge_cell(Estimate(*relative), Estimate(*outlying),
                      explain_weakness(quality, "maha", thresholds.quality), mark, "maha", thresholds)


WORKS = "the stitched network works (relative accuracy 0.95), "
NATIVE = f"{WORKS}and its representations look like native ones (two-sided AUROC of maha 0.55)"
OUTSIDE = (f"{WORKS}but its representations are out of distribution (two-sided AUROC of maha 0.91, at least "
           "0.8)")
TYPICAL = (f"{WORKS}but its representations are more typical than native ones (two-sided AUROC of maha 0.05, "
           "at most 0.2)")


@pytest.mark.parametrize(("relative", "outlying", "rest", "word", "reason"), [
    ((0.95,), (0.55,), {}, SIMILAR, NATIVE),
    ((0.95,), (0.91,), {}, ARTEFACT, OUTSIDE),
    ((0.95,), (0.05,), {}, ARTEFACT, TYPICAL),
    ((0.31,), (0.55,), {}, DISSIMILAR, "relative accuracy 0.31 is below 0.8"),
    ((0.31,), (NAN, NAN, NAN, "none"), {"quality": {}}, DISSIMILAR, "relative accuracy 0.31 is below 0.8"),
    ((0.31,), (0.55,), {"mark": "one epoch: no"}, UNPROVEN,
     "relative accuracy 0.31 is below 0.8, but the stitching layer cannot be judged yet (one epoch: no)"),
    ((0.95,), (0.91,), {"mark": "one epoch: no"}, ARTEFACT,
     OUTSIDE + "; the cell is marked (one epoch: no)"),
    ((0.80, 0.76, 0.84), (0.55,), {}, UNPROVEN,
     "relative accuracy 0.80 is not clearly above or below 0.8 (95 % interval 0.76 to 0.84)"),
    ((0.79, 0.76, 0.84), (0.55,), {}, UNPROVEN,
     "relative accuracy 0.79 is not clearly above or below 0.8 (95 % interval 0.76 to 0.84)"),
    ((0.95,), (0.81, 0.78, 0.84), {}, UNPROVEN,
     "two-sided AUROC of maha 0.81 is not clearly above or below 0.8 (95 % interval 0.78 to 0.84)"),
    ((0.95,), (0.25, 0.15, 0.55), {}, UNPROVEN,
     "two-sided AUROC of maha 0.25 is not clearly above or below 0.2 (95 % interval 0.15 to 0.55)"),
    ((0.95,), (0.55,), {"quality": {"auxiliary": 0.62, "unseen": 0.97}}, UNPROVEN,
     "the detector maha is too weak at this site: its AUROC on auxiliary data is 0.62, below 0.8"),
    ((0.95,), (0.95,), {"quality": {"auxiliary": 0.97, "unseen": 0.7996}}, UNPROVEN,
     "the detector maha is too weak at this site: its AUROC on unseen data is 0.7996, below 0.8"),
    ((0.95,), (0.55,), {"quality": {"auxiliary": None, "unseen": NAN}}, UNPROVEN,
     "no auxiliary data test the detector maha at this site"),
    ((0.95,), (0.55,), {"quality": {"auxiliary": None, "unseen": 0.9}}, SIMILAR, NATIVE),
    ((0.95,), (NAN, NAN, NAN, "the layer failed"), {}, UNPROVEN,
     "the out-of-distribution score of maha is missing: the layer failed"),
    ((NAN, NAN, NAN, "no labels"), (0.55,), {}, UNPROVEN, "the relative accuracy is missing: no labels"),
])
def test_planted_cells(relative, outlying, rest, word, reason):
    assert alone(relative, outlying, **rest) == (word, reason)


@pytest.mark.parametrize(("relative", "outlying", "word"), [
    (0.8, 0.5, SIMILAR), (np.nextafter(0.8, 0), 0.5, DISSIMILAR), (0.8, 0.8, ARTEFACT),
    (0.8, np.nextafter(0.8, 0), SIMILAR), (0.8, 0.2, ARTEFACT), (0.8, 0.2 + 1e-9, SIMILAR)])
def test_thresholds_themselves_are_reached(relative, outlying, word):
    found, reason = alone((relative,), (outlying,))
    assert found == word
    assert "nan" not in reason


@pytest.mark.parametrize(("quality", "word"), [(0.8, SIMILAR), (np.nextafter(0.8, 0), UNPROVEN)])
def test_the_quality_itself_is_reached(quality, word):
    assert alone((0.9,), (0.5,), {"auxiliary": quality, "unseen": 1.0})[0] == word


def test_other_thresholds():
    limits = Thresholds(works=0.5, out=0.9, quality=0.6)
    assert alone((0.55,), (0.85,), {"auxiliary": 0.65}, thresholds=limits)[0] == SIMILAR
    assert alone((0.55,), (0.85,), {"auxiliary": 0.65})[0] == DISSIMILAR


def judged_alone(value, low, high, gone, score, lowest, highest, quality, mark, t):
    """The word of one cell by asking at the value and at both ends of the intervals."""
    if gone or math.isnan(value):
        return UNPROVEN
    at = [x for x in (value, low, high) if not math.isnan(x)]
    if value < t.works and mark:
        return UNPROVEN
    if len({x >= t.works for x in at}) == 2:
        return UNPROVEN
    if value < t.works:
        return DISSIMILAR
    known = [q for q in quality.values() if q is not None]
    if not known or min(known) < t.quality or math.isnan(score):
        return UNPROVEN
    ends = [x for x in (score, lowest, highest) if not math.isnan(x)]
    sides = {"high" if x >= t.out else "low" if 1 - x >= t.out else "middle" for x in ends}
    return UNPROVEN if len(sides) > 1 else SIMILAR if sides == {"middle"} else ARTEFACT


THRESHOLDS = Thresholds(works=0.3, out=0.7, quality=0.8)


def random_cells(seed, count=63):
    """Values, intervals around most of them, gaps, marks and qualities."""
    rng = np.random.default_rng(seed)

    def one():
        value = round(rng.random(), 2)
        if rng.random() < 0.1:
            return Estimate(NAN, reason="why")
        low, high = value - 0.1 * rng.random(), value + 0.1 * rng.random()
        return Estimate(value) if rng.random() < 0.3 else Estimate(value, low, high)

    choices = [{}, {"auxiliary": 0.9, "unseen": 0.7}, {"auxiliary": None, "unseen": 0.85}, SEEN]
    return [(one(), one(), choices[rng.integers(len(choices))], "one epoch: no" if rng.random() < 0.3 else "")
            for _ in range(count)]


def judged(relative, outlying, quality, mark):
    return judge_cell(relative, outlying, explain_weakness(quality, "maha", THRESHOLDS.quality), mark, "maha",
                      THRESHOLDS)


@pytest.mark.parametrize("seed", range(20))
def test_every_cell_equals_the_independent_version(seed):
    for relative, outlying, quality, mark in random_cells(seed):
        word, reason = judged(relative, outlying, quality, mark)
        assert word == judged_alone(relative.value, relative.low, relative.high, relative.reason != "",
                                    outlying.value, outlying.low, outlying.high, quality, mark, THRESHOLDS)
        assert reason
        assert "nan" not in reason


@pytest.mark.parametrize("seed", range(5))
def test_less_certainty_never_proves_more(seed):
    changed = 0
    for relative, outlying, quality, mark in random_cells(seed):
        word, _ = judged(relative, outlying, quality, mark)
        wide = [dataclasses.replace(e, low=np.fmin(e.low, e.value) - 0.2, high=np.fmax(e.high, e.value) + 0.2)
                for e in (relative, outlying)]
        after, _ = judged(*wide, quality, mark)
        assert after in (word, UNPROVEN)
        changed += after != word
    assert changed


def test_an_interval_that_misses_its_value_holds_it_all_the_same():
    assert alone((0.79, 0.81, 0.85), (0.5,))[0] == UNPROVEN


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


def test_cells_of_a_comparison():
    made = comparison(5, 4, same_network=False, detectors=("other", "maha"))
    for method in ("dm", "tlm"):
        words, reasons = made.cells(method), made.cells(method, "reason")
        assert (list(words.index), list(words.columns)) == (list(made.sources), list(made.targets))
        assert (words.index.name, words.columns.name) == ("source", "target")
        assert set(words.to_numpy().ravel()) <= set(VERDICTS)
        for i, j in np.ndindex(words.shape):
            numbers = [made.matrix(f"{method}.{m}").iloc[i, j] for m in ("relative_accuracy", "ood_other")]
            expected = judged_alone(
                numbers[0],
                *(made.matrix(f"{method}.relative_accuracy", e).iloc[i, j] for e in ("low", "high")), False,
                numbers[1], *(made.matrix(f"{method}.ood_other", e).iloc[i, j] for e in ("low", "high")),
                {k: made.meta["ood"]["quality"]["other"][j][k] for k in ("auxiliary", "unseen")},
                "", Thresholds())
            # Representations that equal the native ones are similar, whatever the detector.
            native = made.matrix(f"{method}.r2").iloc[i, j] >= 1 - 1e-6
            assert words.iloc[i, j] == ("similar" if native and expected == UNPROVEN else expected)
        assert "other" in " ".join(reasons.to_numpy().ravel())
        assert "maha" not in " ".join(reasons.to_numpy().ravel())
    assert (made.cells("tlm").iloc[:, :-1] == ARTEFACT).all(axis=None)
    assert (made.cells("tlm").iloc[:, -1] == UNPROVEN).all()
    pd.testing.assert_frame_equal(made.cells(), made.cells("dm", "word"))


def test_no_verdict_depends_on_other_cells():
    made = comparison(5, 4, same_network=False, detectors=("maha",))
    sources, targets = made.sources[1:3], made.targets[2:]
    few = made.table[made.table["source"].isin(sources) & made.table["target"].isin(targets)]
    ood = {**made.meta["ood"], "quality": {"maha": made.meta["ood"]["quality"]["maha"][2:]}}
    cut = dataclasses.replace(made, sources=sources, targets=targets, table=few,
                              meta={**made.meta, "ood": ood})
    for method in ("dm", "tlm"):
        for what in ("word", "reason"):
            pd.testing.assert_frame_equal(cut.cells(method, what),
                                          made.cells(method, what).loc[list(sources), list(targets)])


@pytest.mark.parametrize("method", ["dm", "tlm"])
def test_counts_of_verdicts_are_one_sentence(method):
    made = comparison(detectors=("maha",))
    words = list(made.cells(method).to_numpy().ravel())
    counts = judge_cells(made, method).counts
    for word in VERDICTS:
        assert f"{words.count(word)} {word}, " in counts
    assert "of 16 cells (detector maha)" in counts
    empty = dataclasses.replace(made, sources=(), targets=(), table=made.table[:0])
    assert judge_methods(empty) == {}


def test_cells_go_by_the_thresholds_of_the_comparison():
    made = comparison(detectors=("maha",))
    ood = {**made.meta["ood"], "thresholds": {"works": 0.8, "out": 1.0, "quality": 0.8}}
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
    ((), ("dm",), r"detectors=\(\"mahalanobis\",\)"),
    (("maha",), ("dn",), "unknown method 'dn'; nearest: dm"),
    (("maha",), ("dm", "words"), "unknown column 'words'; nearest: word")])
def test_cells_that_are_not_there(detectors, args, match):
    with pytest.raises(SutureError, match=match):
        comparison(detectors=detectors).cells(*args)


def test_a_method_without_scores_is_named():
    made = comparison(detectors=("maha",))
    less = dataclasses.replace(made, table=made.table[made.table["measure"] != "tlm.ood_maha"])
    assert (less.cells("dm") != "").all(axis=None)
    with pytest.raises(SutureError, match=r"'tlm\.ood_maha' is not in"):
        less.cells("tlm")


def test_quality_that_is_not_there():
    given = comparison(detectors=("maha",))
    ood = given.meta["ood"]
    nothing = [{"auxiliary": None, "auxiliary_one_sided": None, "unseen": None, "unseen_one_sided": None}] * 4
    bare = dataclasses.replace(given, meta=given.meta | {"ood": {
        "verdict": "maha", "thresholds": ood["thresholds"], "quality": {"maha": nothing}}})
    assert [text for _, cells in page.tabulate_quality(bare)[0]["rows"] for text, _ in cells] == ["–"] * 16
    assert "no auxiliary data test the detector maha at this site" in page.render_page([bare])
    assert page.tabulate_quality(comparison()) == []


def test_findings_tell_what_is_wrong_from_what_is_not():
    given = comparison()
    found, words = summarise_findings(given), given.verdict().words
    assert sorted((*found.shown, *found.passed)) == sorted(words)
    assert found.passed
    assert found.summary == (f"{len(found.passed)} of {len(words)} measures: every layer is most similar to "
                             "itself.")
    assert all(sentence.startswith(("TLM", "OPD")) for sentence in found.shown)
    assert found.cells == ()
    strangers = summarise_findings(comparison(same_network=False, same_architecture=False))
    assert (len(strangers.shown), strangers.passed, strangers.summary) == (1, (), "")
    one = dataclasses.replace(given, table=given.table[given.table["measure"] == "dm.residual"])
    assert summarise_findings(one).summary == "1 of 1 measures: every layer is most similar to itself."
    twins = comparison(same_network=False)
    assert summarise_findings(twins).summary.endswith("measures: every corresponding layer is the "
                                                      "most similar one.")
