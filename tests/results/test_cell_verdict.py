"""Verdicts of cells: planted cases, an independent version that asks one cell at a time, laws of the
rules."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from suture._base.errors import SutureError
from suture.ood import Thresholds
from suture.results import cell_verdict as cells
from suture.results.cell_verdict import (
    ARTEFACT,
    DISSIMILAR,
    SIMILAR,
    UNPROVEN,
    VERDICTS,
    CellValues,
    decide_verdicts,
    describe_verdicts,
    format_near,
)
from tests.support.synthetic import comparison

NAN = float("nan")
SEEN = {"auxiliary": 0.99, "unseen": 0.95}


def grid(value, low=NAN, high=NAN, reason=""):
    return CellValues(*(np.array([[x]], dtype=float) for x in (value, low, high)),
                      np.array([[reason]], dtype=object))


def alone(relative, outlying, quality=SEEN, mark="", thresholds=None):
    words, reasons = decide_verdicts(grid(*relative), grid(*outlying), [quality],
                                     np.array([[mark]], dtype=object), "maha", thresholds or Thresholds())
    assert words.shape == reasons.shape == (1, 1)
    return words[0, 0], reasons[0, 0]


@pytest.mark.parametrize(("relative", "outlying", "rest", "word", "reason"), [
    ((0.95,), (0.55,), {}, SIMILAR,
     "works (relative accuracy 0.95) and looks like native representations (two-sided AUROC of maha 0.55)"),
    ((0.95,), (0.91,), {}, ARTEFACT,
     "works (relative accuracy 0.95), but is out of distribution: two-sided AUROC of maha "
     "0.91 is at least 0.8"),
    ((0.95,), (0.05,), {}, ARTEFACT, "works (relative accuracy 0.95), but is out of distribution: two-sided "
                                     "AUROC of maha 0.05 is at most 0.2, more typical than native ones"),
    ((0.31,), (0.55,), {}, DISSIMILAR, "relative accuracy 0.31 is below 0.8"),
    ((0.31,), (NAN, NAN, NAN, "none"), {"quality": {}}, DISSIMILAR, "relative accuracy 0.31 is below 0.8"),
    ((0.31,), (0.55,), {"mark": "one epoch: no"}, UNPROVEN,
     "relative accuracy 0.31 is below 0.8, but the layer has not converged (one epoch: no)"),
    ((0.95,), (0.91,), {"mark": "one epoch: no"}, ARTEFACT,
     "works (relative accuracy 0.95), but is out of distribution: two-sided AUROC of maha "
     "0.91 is at least 0.8"),
    ((0.80, 0.76, 0.84), (0.55,), {}, UNPROVEN,
     "relative accuracy 0.80: its interval 0.76 to 0.84 holds the threshold 0.8"),
    ((0.79, 0.76, 0.84), (0.55,), {}, UNPROVEN,
     "relative accuracy 0.79: its interval 0.76 to 0.84 holds the threshold 0.8"),
    ((0.95,), (0.81, 0.78, 0.84), {}, UNPROVEN,
     "two-sided AUROC of maha 0.81: its interval 0.78 to 0.84 holds the threshold 0.8"),
    ((0.95,), (0.25, 0.15, 0.55), {}, UNPROVEN,
     "two-sided AUROC of maha 0.25: its interval 0.15 to 0.55 holds the threshold 0.2"),
    ((0.95,), (0.55,), {"quality": {"auxiliary": 0.62, "unseen": 0.97}}, UNPROVEN,
     "the detector maha reaches only 0.62 on auxiliary data at this site"),
    ((0.95,), (0.95,), {"quality": {"auxiliary": 0.97, "unseen": 0.7996}}, UNPROVEN,
     "the detector maha reaches only 0.7996 on unseen data at this site"),
    ((0.95,), (0.55,), {"quality": {"auxiliary": None, "unseen": NAN}}, UNPROVEN,
     "no auxiliary data show what the detector maha sees at this site"),
    ((0.95,), (0.55,), {"quality": {"auxiliary": None, "unseen": 0.9}}, SIMILAR,
     "works (relative accuracy 0.95) and looks like native representations (two-sided AUROC of maha 0.55)"),
    ((0.95,), (NAN, NAN, NAN, "the layer failed"), {}, UNPROVEN,
     "no out-of-distribution score of maha: the layer failed"),
    ((NAN, NAN, NAN, "no labels"), (0.55,), {}, UNPROVEN, "no relative accuracy: no labels"),
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


def random_grids(seed, shape=(9, 7)):
    """Values, intervals around most of them, gaps, marks and qualities."""
    rng = np.random.default_rng(seed)

    def one():
        value = np.round(rng.random(shape), 2)
        low, high = value - 0.1 * rng.random(shape), value + 0.1 * rng.random(shape)
        bare = rng.random(shape) < 0.3
        low[bare] = high[bare] = NAN
        gone = rng.random(shape) < 0.1
        for a in (value, low, high):
            a[gone] = NAN
        return CellValues(value, low, high, np.where(gone, "why", "").astype(object))

    choices = [{}, {"auxiliary": 0.9, "unseen": 0.7}, {"auxiliary": None, "unseen": 0.85}, SEEN]
    quality = [choices[k] for k in rng.integers(len(choices), size=shape[1])]
    marks = np.where(rng.random(shape) < 0.3, "one epoch: no", "").astype(object)
    return one(), one(), quality, marks, Thresholds(works=0.3, out=0.7, quality=0.8)


@pytest.mark.parametrize("seed", range(20))
def test_every_cell_equals_the_independent_version(seed):
    relative, outlying, quality, marks, t = random_grids(seed)
    words, reasons = decide_verdicts(relative, outlying, quality, marks, "maha", t)
    for i, j in np.ndindex(words.shape):
        of = [float(a[i, j]) for a in (relative.value, relative.low, relative.high)]
        off = [float(a[i, j]) for a in (outlying.value, outlying.low, outlying.high)]
        assert words[i, j] == judged_alone(*of, relative.reason[i, j] != "", *off, quality[j], marks[i, j], t)
        assert reasons[i, j]
        assert "nan" not in reasons[i, j]


def cut(g, rows, columns):
    return CellValues(*(getattr(g, f.name)[rows, columns] for f in dataclasses.fields(g)))


@pytest.mark.parametrize("seed", range(3))
def test_no_verdict_depends_on_other_cells(seed):
    relative, outlying, quality, marks, t = random_grids(seed)
    words, reasons = decide_verdicts(relative, outlying, quality, marks, "maha", t)
    for i, j in np.ndindex(words.shape):
        r, c = slice(i, i + 1), slice(j, j + 1)
        word, reason = decide_verdicts(cut(relative, r, c), cut(outlying, r, c), quality[c],
                                       marks[r, c], "maha", t)
        assert (word[0, 0], reason[0, 0]) == (words[i, j], reasons[i, j])


@pytest.mark.parametrize("seed", range(5))
def test_less_certainty_never_proves_more(seed):
    relative, outlying, quality, marks, t = random_grids(seed)
    words, _ = decide_verdicts(relative, outlying, quality, marks, "maha", t)
    wide = [CellValues(g.value, np.fmin(g.low, g.value) - 0.2, np.fmax(g.high, g.value) + 0.2, g.reason)
            for g in (relative, outlying)]
    after, _ = decide_verdicts(*wide, quality, marks, "maha", t)
    assert ((after == words) | (after == UNPROVEN)).all()
    assert (after != words).any()


def test_an_interval_that_misses_its_value_holds_it_all_the_same():
    assert alone((0.79, 0.81, 0.85), (0.5,))[0] == UNPROVEN


def test_grids_of_different_shapes_are_refused():
    relative, outlying, quality, marks, t = random_grids(0)
    for wrong in ((relative, outlying, quality[1:], marks), (relative, outlying, quality, marks[1:]),
                  (relative, cut(outlying, slice(3), slice(None)), quality, marks)):
        with pytest.raises(SutureError, match="of one shape"):
            decide_verdicts(*wrong, "maha", t)


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


@pytest.mark.parametrize(("words", "expected"), [
    ([ARTEFACT] * 20 + [SIMILAR] * 6 + [DISSIMILAR] * 8 + [UNPROVEN] * 2,
     "Task loss matching: 20 of 36 cells work but are out of distribution (artefact), 6 similar, 8 "
     "dissimilar, 2 unproven (detector maha)."),
    ([ARTEFACT, SIMILAR], "Task loss matching: 1 of 2 cells works but is out of distribution (artefact), 1 "
                          "similar, none dissimilar, none unproven (detector maha)."),
    ([SIMILAR], "Task loss matching: none of 1 cell works but is out of distribution (artefact), 1 similar, "
                "none dissimilar, none unproven (detector maha)."),
    ([DISSIMILAR, UNPROVEN], "Task loss matching: none of 2 cells works but is out of distribution "
                             "(artefact), none similar, 1 dissimilar, 1 unproven (detector maha)."),
    ([], "")])
def test_sentences(words, expected):
    assert describe_verdicts("tlm", np.array(words, dtype=object), "maha") == expected


def test_counts_add_up():
    words = decide_verdicts(*random_grids(0)[:4], "maha", Thresholds())[0]
    found = cells.count_verdicts(words)
    assert tuple(found) == VERDICTS
    assert sum(found.values()) == words.size
    assert all(found[w] == int((words == w).sum()) for w in VERDICTS)


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
            assert words.iloc[i, j] == judged_alone(
                numbers[0],
                *(made.matrix(f"{method}.relative_accuracy", e).iloc[i, j] for e in ("low", "high")), False,
                numbers[1], *(made.matrix(f"{method}.ood_other", e).iloc[i, j] for e in ("low", "high")),
                {k: made.meta["ood"]["quality"]["other"][j][k] for k in ("auxiliary", "unseen")},
                "", Thresholds())
        assert "other" in " ".join(reasons.to_numpy().ravel())
        assert "maha" not in " ".join(reasons.to_numpy().ravel())
    assert (made.cells("tlm").iloc[:, :-1] == ARTEFACT).all(axis=None)
    assert (made.cells("tlm").iloc[:, -1] == UNPROVEN).all()
    pd.testing.assert_frame_equal(made.cells(), made.cells("dm", "word"))


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
    with pytest.raises(SutureError, match=r"'tlm\.ood_maha' is not there"):
        less.cells("tlm")
