"""Experiments: records, claims, pages, and the spec files of each scale."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import suture
from suture import SutureError, zoo
from suture.studies import EXPERIMENTS, StudyFile
from suture.studies.experiments.call import read_records
from suture.studies.experiments.claims import (
    WORDS,
    NetworkMean,
    Outcome,
    decide_for_each,
    list_headlines,
)
from suture.studies.experiments.grids.between_seeds import correlate, judge_correspondence
from suture.studies.experiments.grids.detection import judge_detected, judge_range
from suture.studies.experiments.grids.self_stitching import judge_violations
from suture.studies.experiments.grids.view import Grids
from suture.studies.experiments.page import render_page
from suture.studies.experiments.record import Record, join_tables
from suture.studies.experiments.scale_files import SCALES, find_scale, list_files
from suture.studies.measure_tests.network_statistics import bound

SITES = ("a", "b", "c")
PLACES = {name: "." for path in find_scale("tiny").parent.glob("*/*.toml")
          for name in re.findall(r"\{(\w+)\}", path.read_text())}
Pairs = list[tuple[str, str]]
OWN: Pairs = [(f"n{k}", f"n{k}") for k in range(3)]
RING: Pairs = [(f"n{k}", f"n{(k + 1) % 3}") for k in range(3)]


def make_record(values: Mapping[str, np.ndarray], pairs: Pairs = OWN, marked: Mapping[str, Any] | None = None,
                p: Callable[[int], float] = lambda k: np.nan) -> Record:
    """Make a record from values (pairs, sites, sites) by measure; p(k) is the p-value of pair k."""
    cells, contests = list[dict[str, Any]](), list[dict[str, Any]]()
    for measure, of in values.items():
        marks = np.broadcast_to((marked or {}).get(measure, False), of.shape)
        for k, i, j in np.ndindex(of.shape):
            cells.append({"part": "", "source_network": pairs[k][0], "target_network": pairs[k][1],
                          "source": SITES[i], "target": SITES[j], "measure": measure, "value": of[k, i, j],
                          "mark": "still improving" if marks[k, i, j] else np.nan})
        for k, (a, b) in enumerate(pairs):
            for j, site in enumerate(SITES):
                others = np.delete(of[k, :, j], j)
                lost = others.max() > of[k, j, j]
                contests.append({"part": "", "source_network": a, "target_network": b, "measure": measure,
                                 "target": site, "lost": lost, "marked": marks[k, :, j].any(),
                                 "p": p(k) if lost else np.nan})
    return Record("E1", "tiny", {"cells": pd.DataFrame(cells), "contests": pd.DataFrame(contests)})


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    table = pd.DataFrame({"x": [1 / 3, np.nan], "word": ["nan", ""]})
    written = Record("E1", "tiny", {"t": table}, {"seconds": 2.5}).save(tmp_path / "E1")
    again = Record.load(tmp_path / "E1")
    pd.testing.assert_frame_equal(written.read("t"), again.read("t"))
    assert again.read("t")["x"].tolist()[0] == 0.333333
    assert again.read("t")["word"].tolist()[0] == "nan"  # a text, as a site may be named
    assert again.about == {"seconds": 2.5}
    assert again.read("missing").empty


@pytest.mark.parametrize("damage", [lambda f: f.unlink(), lambda f: f.write_text("{")])
def test_a_damaged_record_is_one_line(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    Record("E1", "tiny", {}).save(tmp_path)
    damage(tmp_path / "about.json")
    with pytest.raises(SutureError, match=tmp_path.name):
        Record.load(tmp_path)


def test_parts_are_joined_with_their_names() -> None:
    found = join_tables({"": {"t": pd.DataFrame({"x": [1]})}, "back": {"t": pd.DataFrame({"x": [2]})}})
    assert found["t"].to_dict("list") == {"part": ["", "back"], "x": [1, 2]}


def test_means_over_networks_are_students() -> None:
    from scipy import stats

    values = [0.2, 0.5, 0.6, np.nan]
    found = NetworkMean.of(values, 3)
    expected = stats.t.interval(0.95, 2, np.mean(values[:3]), stats.sem(values[:3]))
    np.testing.assert_allclose(found.interval, expected)
    assert NetworkMean.of([0.1, 0.2]).is_above(0.0) is None  # two networks have no interval
    assert NetworkMean.of(values, 2).is_above(-9) is None  # four pairs of two networks neither


@pytest.mark.parametrize(("found", "wanted"), [
    ([True] * 3, True), ([False] * 3, False), ([True, False, True], None), ([True] * 2, None),
    ([True, None, True, True], None)])
def test_networks_must_agree(found: list[bool | None], wanted: bool | None) -> None:
    assert decide_for_each(found) is wanted


def test_grids_are_means_over_pairs() -> None:
    draw = np.random.default_rng(0)
    values = draw.random((3, 3, 3))
    values[0, 0, 1] = np.nan
    grids = Grids(make_record({"dm.relative_accuracy": values}))
    np.testing.assert_allclose(grids.matrix("dm.relative_accuracy"), np.nanmean(values, 0))
    off = [np.nanmean([v[i, j] for i in range(3) for j in range(3) if i != j]) for v in values]
    np.testing.assert_allclose(grids.average("dm.relative_accuracy", grids.off_diagonal).each, off)
    late = grids.average("dm.relative_accuracy", grids.late_into_early)
    np.testing.assert_allclose(late.each, values[:, 2, 0])
    nearest = [np.mean([all(v[j, j] > v[i, j] for i in range(3) if i != j and not np.isnan(v[i, j]))
                        for j in range(3)]) for v in values]
    np.testing.assert_allclose(grids.list_nearest("dm.relative_accuracy").each, nearest)


def test_the_unit_of_a_share_is_the_network() -> None:
    """Six pairs of three networks have the interval of three networks, and both directions are one pair."""
    values = np.random.default_rng(0).random((6, 3, 3))
    grids = Grids(make_record({"cka": values}, OWN + RING))
    shares = [0.0, 1.0, 1.0, 0.5, 1.0, 0.0]
    without = [np.mean([v for v, pair in zip(shares, OWN + RING, strict=True) if f"n{k}" not in pair])
               for k in range(3)]
    found = grids.summarise_shares(shares, 4)
    assert found.left_out == tuple(without)
    assert found.interval == bound(float(np.mean(shares)), np.array(without), 4)[:2]
    both = [(a, b) for k in range(3) for a, b in ((f"a{k}", f"b{k}"), (f"b{k}", f"a{k}"))]
    assert Grids(make_record({"cka": values}, both)).networks == 3


def test_a_tie_is_not_the_nearest() -> None:
    assert Grids(make_record({"cka": np.ones((3, 3, 3))})).list_nearest("cka").mean == 0


@pytest.mark.parametrize(("method", "rival", "p", "marked", "wanted"), [
    ("tlm", 1.1, 1e-4, False, True), ("tlm", 1.1, 0.5, False, False), ("tlm", 0.5, np.nan, False, False),
    ("tlm", 1.1, np.nan, True, None), ("dm", 0.5, np.nan, False, True), ("dm", 1.1, 1e-4, False, False),
    ("dm", 1.1, 0.5, False, True)])
def test_a_violation_is_beyond_noise_and_converged(method: str, rival: float, p: float, marked: bool,
                                                   wanted: bool | None) -> None:
    values = np.full((3, 3, 3), rival)
    values[:, range(3), range(3)] = 1
    name = f"{method}.relative_accuracy"
    found = judge_violations(Grids(make_record({name: values}, marked={name: marked}, p=lambda k: p)), method)
    assert found.holds is wanted


def test_violations_are_adjusted_over_the_layers_of_a_network() -> None:
    values = np.full((3, 3, 3), 1.1)
    values[:, range(3), range(3)] = 1
    found = Grids(make_record({"tlm.relative_accuracy": values}, p=lambda k: 0.02)).judge_contests(
        "tlm.relative_accuracy")
    assert [c.beyond for c in found] == [0, 0, 0]  # 3 x 0.02 is more than 0.05


def test_what_has_not_converged_decides_nothing() -> None:
    tlm, dm = np.full((3, 3, 3), 0.5), np.full((3, 3, 3), 0.1)
    dm[:, range(3), range(3)] = 1
    names = ("tlm.relative_accuracy", "dm.relative_accuracy")
    for marked, wanted in ((False, True), (True, None)):
        record = make_record(dict(zip(names, (tlm, dm), strict=True)), RING, {names[0]: marked})
        assert judge_correspondence(Grids(record, None, False)).holds is wanted


@pytest.mark.parametrize(("value", "tlm", "dm"), [(0.95, True, False), (0.55, False, True)])
def test_a_detector_tells_apart_from_three_quarters_on(value: float, tlm: bool, dm: bool) -> None:
    drawn = value + np.random.default_rng(0).random((3, 3, 3)) / 50
    works = np.ones((3, 3, 3))
    record = make_record({f"{m}.{q}": v for m in ("tlm", "dm") for q, v in
                          (("auroc_energy", drawn), ("relative_accuracy", works))})
    for unseen, wanted in ((0.95, (tlm, dm)), (0.7, (True, False) if tlm else (None, None))):
        tables = {**record.tables, "detectors": pd.DataFrame({"unseen": [unseen]})}
        grids = Grids(replace(record, tables=tables))
        # A weak detector does not say "native".
        assert (judge_detected(grids, "tlm").holds, judge_detected(grids, "dm").holds) == wanted


def test_the_natural_range_is_asked_of_working_cells_but_own_layers() -> None:
    works, far = np.zeros((3, 3, 3)), np.full((3, 3, 3), 9.0)
    works[:, 0, 1] = works[:, 1, 2] = works[:, 2, 2] = 1
    far[:, 0, 1] = far[:, 1, 2] = far[:, 2, 2] = 0.5
    grids = Grids(make_record({"dm.relative_accuracy": works, "dm.natural_distance": far}))
    found = judge_range(grids, "dm")
    assert found.holds is True
    assert "of 6 working cells" in found.measured
    # Between seeds a corresponding layer is no layer's own.
    between = Grids(make_record({"dm.relative_accuracy": works, "dm.natural_distance": far}, RING))
    assert "of 9 working cells" in judge_range(between, "dm").measured


def outcome(holds: bool | None, headline: int = 1) -> Outcome:
    return Outcome("a claim", "a number", holds, headline=headline, brief=f"{holds}")


@pytest.mark.parametrize(("held", "word"), [
    ((True, True), "holds"), ((False,), "does not hold"), ((None, None), WORDS[None]),
    ((True, False, True), "holds in 2 of 3 parts, does not hold in 1 of 3 parts")])
def test_a_headline_is_the_sum_of_its_parts(held: tuple[bool | None, ...], word: str) -> None:
    found = list_headlines({"E1": [outcome(h) for h in held], "E2": [outcome(False, headline=0)]})
    assert [h.word for h in found] == [word]
    assert found[0].numbers == "; ".join(f"E1 {h} ({'open' if h is None else WORDS[h]})" for h in held)


def test_what_does_not_hold_has_a_reason_or_says_that_it_is_unknown() -> None:
    assert [outcome(holds).reason for holds in (True, False, None)] == ["", "the reason is unknown", ""]
    assert replace(outcome(False), why="a reason").reason == "a reason"
    low = np.full((3, 3, 3), 0.1) + np.eye(3) / 2
    found = judge_detected(Grids(make_record({"dm.auroc_energy": np.full((3, 3, 3), 0.9) + low / 100,
                                              "dm.relative_accuracy": low})), "dm")
    assert found.holds is False
    assert "likely because" in found.reason


def test_intervals_keep_to_what_a_measure_can_be() -> None:
    """The interval of an average precision goes below 1/2, and that of an accuracy not above 1."""
    low = np.full((3, 3, 3), 0.3) + np.arange(3).reshape(3, 1, 1) / 10
    grids = Grids(make_record({"tlm.ap_energy": low, "tlm.accuracy": low + 0.5, "tlm.residual": low + 0.5}))
    every = np.ones((3, 3), bool)
    for measure, wanted in (("tlm.ap_energy", (0.152, 0.648)), ("tlm.accuracy", (0.652, 1.0)),
                            ("tlm.residual", (0.652, 1.148))):
        np.testing.assert_allclose(grids.average(measure, every).interval, wanted, atol=1e-3)



def test_correlations_are_larger_for_more_similar() -> None:
    one = np.random.default_rng(0).random((3, 3, 3))
    grids = Grids(make_record({"dm.relative_accuracy": one, "dm.residual": -one}))
    assert correlate(grids, "dm.relative_accuracy", "dm.residual").each == (1.0,) * 3


@pytest.mark.parametrize("name", [*EXPERIMENTS])
def test_an_experiment_without_tables_has_a_page(name: str) -> None:
    """What an experiment lacks, such as pairs that failed, is said to have no value."""
    record = Record(name, "tiny", {}, {"parts": {"": {"networks": [], "pairs": 0,
                                                      "failures": {"a into b": "<broken>"}}}})
    outcomes = {name: tuple(EXPERIMENTS[name].judge_claims(record))}
    assert all(o.holds is None for o in outcomes[name])
    page = render_page("tiny", {name: record}, outcomes, {})
    assert EXPERIMENTS[name].question in page
    assert "Failed: a into b: &lt;broken&gt;" in page


SPECS = [(scale, file.path) for scale in SCALES for file in list_files(find_scale(scale))]


@pytest.mark.parametrize(("scale", "path"), SPECS, ids=lambda of: of if isinstance(of, str) else of.stem)
def test_every_spec_file_is_read(scale: str, path: Path) -> None:
    assert StudyFile.read(path, PLACES).list_pairs()


@pytest.mark.parametrize("scale", SCALES)
def test_nothing_is_computed_twice(scale: str) -> None:
    """E3, E6, E8 and E10 read the comparisons of E1 and E2: same settings, same pairs."""
    read = {name: StudyFile.read(find_scale(scale) / f"{name}.toml", PLACES)
            for name in ("E1", "E2", "E3", "E6", "E8", "E10")}
    assert len({str(spec.settings.as_key()) for spec in read.values()}) == 1
    both = {*read["E1"].list_pairs(), *read["E2"].list_pairs()}
    assert all({*read[name].list_pairs()} == both for name in ("E3", "E6", "E8", "E10"))


DOCS = Path(__file__).parents[2] / "docs" / "paper"


@pytest.mark.parametrize("place", [path.parent for path in sorted(DOCS.glob("*/page.md"))],
                         ids=lambda place: place.name)
def test_a_page_of_docs_is_made_from_its_records(place: Path) -> None:
    records = read_records(place)
    outcomes = {name: tuple(EXPERIMENTS[name].judge_claims(record)) for name, record in records.items()}
    figures = {name: list(EXPERIMENTS[name].draw(record)) for name, record in records.items()}
    assert render_page(place.name, records, outcomes, figures) == (place / "page.md").read_text()
    missing = [name for name, of in figures.items() for figure in of
               if not (place / "figures" / f"{name}-{figure}.png").exists()]
    assert not missing


def test_an_experiment_of_the_tiny_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """E9 as its file says, but for networks that are trained for one epoch."""
    monkeypatch.setattr(zoo, "DIGITS_RECIPE", replace(zoo.DIGITS_RECIPE, epochs=1))
    made = suture.reproduce("E9", scale="tiny", folder=tmp_path, progress=False)
    assert set(made.records["E9"].read("probes")["network"]) == {f"resnet-seed{k}" for k in range(3)}
    page = made.page.read_text()
    assert all(outcome.claim in page for outcome in made.outcomes["E9"])
    networks = sorted((tmp_path / "tiny" / "networks").glob("*.safetensors"))
    before = {path: path.stat().st_mtime_ns for path in networks}
    again = suture.reproduce("e9", folder=tmp_path, progress=False)
    assert again.page.read_text() == page
    assert {path: path.stat().st_mtime_ns for path in networks} == before
