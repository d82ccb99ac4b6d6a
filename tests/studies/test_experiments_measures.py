"""E7, E8, E9, E11 and D: verdicts on records made by hand, tables and figures, spec files of every scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from suture.data import Batch
from suture.networks import capture, run_tail
from suture.studies import StudyFile
from suture.studies.experiments.measures import deviation_study, published_code
from suture.studies.experiments.measures.deviation_study import DeviationOptions, describe_change
from suture.studies.experiments.measures.deviations import DEVIATIONS
from suture.studies.experiments.measures.open_questions import make_control
from suture.studies.experiments.measures.rank_sensitivity import collect_noticed
from suture.studies.experiments.measures.trained_part import RankOptions
from suture.studies.experiments.record import Record
from suture.studies.experiments.registry import EXPERIMENTS
from suture.studies.network_study.call import run_study
from suture.studies.network_study.options import StudyOptions
from suture.studies.spec.option_tables import read_options
from tests.support import tiny

SCALES = Path(__file__).parents[2] / "experiments"
NETWORKS = ("a", "b", "c")
CUTS = (4, 2)


def make_record(name: str, tables: dict[str, Any], folder: Path) -> Record:
    """Return a record as it is read back from its files."""
    frames = {k: pd.DataFrame(v) for k, v in tables.items()}
    return Record(name, "tiny", frames, {"parts": {"": {}}}).save(folder)


def make_probes(change: Sequence[float] = (0.0, -0.3, -0.5), sites: Sequence[str] = ("early", "late"),
                p: Sequence[float] = (math.nan, 0.01, 0.001)) -> list[dict[str, Any]]:
    """Return probes of width 8 at ranks 8, 4 and 2."""
    return [{"part": "", "network": network, "site": site, "rank": rank, "width": 8, "n": 100,
             "accuracy": 0.9 + lost + 0.01 * k, "train_accuracy": 1.0, "change": lost, "p_holm": q}
            for k, network in enumerate(NETWORKS) for site in sites
            for rank, lost, q in zip((8, *CUTS), change, p, strict=True)]


def make_sensitivity(folder: Path, noticed: dict[str, Sequence[float]], tlm: Sequence[float] = ()) -> Record:
    """Return a record of E7 in which measures notice deletions up to a rank; nan: none, None: unknown."""
    detection = [{"part": "", "network": network, "site": "late", "measure": measure, "threshold": "median",
                  "rank": rank, "probe_rank": 4, "noticed": None if rank is None else not rank < 4}
                 for measure, ranks in noticed.items() for network, rank in zip(NETWORKS, ranks, strict=True)]
    values: dict[str, Sequence[float]] = dict.fromkeys(noticed, (1.0, 0.6, 0.4))
    values |= {"tlm.relative_accuracy": tlm} if tlm else {}
    curves = [{"part": "", "network": network, "site": "late", "rank": rank, "width": 8, "measure": measure,
               "value": value + 0.01 * k, "mark": ""} for measure, of in values.items()
              for k, network in enumerate(NETWORKS) for rank, value in zip((8, *CUTS), of, strict=True)]
    correlations = [{"part": "", "network": network, "site": "late", "measure": measure, "spearman": 0.9}
                    for measure in values for network in NETWORKS]
    return make_record("E7", {"detection": detection, "curves": curves, "correlations": correlations,
                              "probes": make_probes(sites=("late",))}, folder)


@pytest.mark.parametrize(("dm", "cka", "holds"), [
    ((4, 4, 4), (0, 0, 0), True), ((2, 2, 2), (4, 4, 4), False), ((4, 4, 4), (4, 4, 4), None),
    ((4, 4, 0), (0, 0, 0), None), ((None, None, None), (4, 4, 4), None)])
def test_noticing(dm: Sequence[Any], cka: Sequence[Any], holds: bool | None, tmp_path: Path) -> None:
    record = make_sensitivity(tmp_path, {"dm.relative_accuracy": dm, "cka@flatten": cka})
    outcome = EXPERIMENTS["E7"].judge_claims(record)[0]
    assert outcome.holds is holds
    assert bool(outcome.why) == (holds is None)


def test_the_share_of_noticed_deletions_is_that_of_the_ranks_that_change_the_probe(tmp_path: Path) -> None:
    record = make_sensitivity(tmp_path, {"dm.relative_accuracy": (4, 2, math.nan)})
    assert list(collect_noticed(record, "dm.relative_accuracy").values()) == [1.0, 0.5, 0.0]


@pytest.mark.parametrize(("tlm", "holds"), [((1.0, 1.0, 0.99), True), ((1.0, 0.3, 0.1), False)])
def test_kept_accuracy(tlm: Sequence[float], holds: bool, tmp_path: Path) -> None:
    record = make_sensitivity(tmp_path, {"dm.relative_accuracy": (4, 4, 4), "cka@flatten": (4, 4, 4)}, tlm)
    assert EXPERIMENTS["E7"].judge_claims(record)[-1].holds is holds


def make_unequal_probes(early: float, late: float, changed: Sequence[str]) -> list[dict[str, Any]]:
    """Return probes of two sites; at some, a cut to rank 4 changes the probe."""
    rows = make_probes()
    for row in rows:
        row["accuracy"] += early if row["site"] == "early" else late
        row["p_holm"] = 0.01 if row["rank"] == 4 and row["site"] in changed else 1.0
    return rows


@pytest.mark.parametrize(("early", "late", "changed", "holds"), [
    (-0.5, 0.0, ("early",), (True, True)), (0.0, -0.5, ("late",), (False, False)),
    (0.0, 0.0, ("early", "late"), (None, None))])
def test_probes(early: float, late: float, changed: Sequence[str], holds: tuple[bool | None, bool | None],
                tmp_path: Path) -> None:
    depth, components = EXPERIMENTS["E9"].judge_claims(
        make_record("E9", {"probes": make_unequal_probes(early, late, changed)}, tmp_path))
    assert (depth.holds, components.holds) == holds


def make_cells(measures: dict[str, np.ndarray], part: str = "", own: bool = False, mark: str = "",
               sources: Sequence[str] = ("early", "late")) -> list[dict[str, Any]]:
    pairs = [(n, n) for n in NETWORKS] if own else [("a", "b"), ("b", "c"), ("c", "a")]
    return [{"part": part, "source_network": a, "target_network": b, "source": s, "target": t,
             "measure": measure, "value": float(values[i, j]) + 0.001 * k, "mark": mark}
            for k, (a, b) in enumerate(pairs) for measure, values in measures.items()
            for i, s in enumerate(sources) for j, t in enumerate(("early", "late"))]


APART, ALIKE = np.array([[1.0, 0.2], [0.2, 1.0]]), np.array([[0.2, 1.0], [1.0, 0.2]])


@pytest.mark.parametrize(("cka", "tlm", "mark", "holds"), [
    (APART, ALIKE, "", (True, True)), (ALIKE, APART, "", (False, False)),
    (APART, ALIKE, "not converged", (True, None))])
def test_specificity(cka: np.ndarray, tlm: np.ndarray, mark: str, holds: tuple[bool | None, bool | None],
                     tmp_path: Path) -> None:
    dm = APART if cka is APART else ALIKE
    cells = (make_cells({"cka@paper": cka, "dm.relative_accuracy": dm})
             + make_cells({"tlm.relative_accuracy": tlm}, mark=mark))
    outcomes = [{"part": "", "measure": "cka@paper", "test": "specificity", "effect": 0.9, "low": math.nan,
                 "high": math.nan, "p": 0.01, "passed": True}]
    record = make_record("E8", {"cells": cells, "outcomes": outcomes}, tmp_path)
    found = EXPERIMENTS["E8"].judge_claims(record)
    assert (found[0].holds, found[-1].holds) == holds


def make_contests(part: str, lost: Sequence[bool], marked: bool = False) -> list[dict[str, Any]]:
    return [{"part": part, "source_network": n, "target_network": n, "measure": "tlm.relative_accuracy",
             "target": site, "lost": wins, "p": 0.001 if wins else 1.0, "marked": marked}
            for n, wins in zip(NETWORKS, lost, strict=True) for site in ("early", "late")]


def make_open_record(folder: Path, short: Sequence[bool], tlm: float = 0.95, dm: float = 0.5,
                     word: str = "dissimilar") -> Record:
    grids = [c for part in ("", "short", "dm") for c in make_cells(
        {"tlm.relative_accuracy": APART}, part, own=True)]
    control = make_cells({"tlm.relative_accuracy": np.full((2, 2), tlm), "tlm.natural_distance": APART,
                          "dm.relative_accuracy": np.full((2, 2), dm)}, "control",
                         sources=("noise.0", "noise.1"))
    contests = (make_contests("", (False,) * 3) + make_contests("short", short, marked=True)
                + make_contests("dm", (False,) * 3))
    verdicts = [{"part": "control", "source_network": "x", "target_network": n, "word": word, "method": "tlm"}
                for n in NETWORKS]
    return make_record("E11", {"cells": grids + control, "contests": contests, "verdicts": verdicts}, folder)


@pytest.mark.parametrize(("short", "holds"), [((True,) * 3, True), ((False,) * 3, None),
                                              ((True, False, False), None)])
def test_short_training(short: Sequence[bool], holds: bool | None, tmp_path: Path) -> None:
    assert EXPERIMENTS["E11"].judge_claims(make_open_record(tmp_path, short))[0].holds is holds


@pytest.mark.parametrize(("tlm", "dm", "word", "holds"), [
    (0.95, 0.5, "shares the labels only", [True, True, True]), (0.5, 0.95, "similar", [False, False, False])])
def test_class_noise(tlm: float, dm: float, word: str, holds: list[bool], tmp_path: Path) -> None:
    record = make_open_record(tmp_path, (True,) * 3, tlm, dm, word)
    assert [outcome.holds for outcome in EXPERIMENTS["E11"].judge_claims(record)[-3:]] == holds


def make_deviation_record(folder: Path) -> Record:
    rows = [{"part": "", "key": key, "network": n, "site": "late", "quantity": quantity, "published": 0.25,
             "ours": 0.5} for n in NETWORKS for key, quantity in (
        ("cut", "4"), ("pinv", "dropped, 100"), ("pinv", "accuracy, 100"), ("residual", "100"),
        ("residual", "100, ours"), ("order", "share"), ("positive", "2"))]
    return make_record("D", {"deviations": rows}, folder)


def scale_bytes(raw: Any) -> torch.Tensor:
    return torch.as_tensor(raw).float() / 255


def test_class_noise_is_made_from_bytes_as_the_network_gets_them(tmp_path: Path) -> None:
    images = (255 * tiny.images()).to(torch.uint8)
    given = StudyOptions(networks={"a": lambda: (tiny.network(), scale_bytes)}, data=(images, tiny.labels()),
                         methods=("dm",), ood=None, progress=False)
    made = run_study(make_control(given, ["block1", "block2"], str(tmp_path)))
    assert not made.failures
    found = made.comparison("class noise a", "a").matrix("dm.relative_accuracy").to_numpy()
    assert found.shape == (2, 2)
    assert (np.diagonal(found) > 0.9).all()  # without a spread of its own the class is all there is


def test_accuracies_are_those_of_one_pass_in_many_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pass of all test images at ResNet-18's size would not fit the memory of a machine."""
    source, target = tiny.network().eval(), tiny.other().eval()
    (images, labels), site = tiny.data()[0], "block1"
    width = capture(target, images[:1], [site])[site].shape[1]
    draw = torch.Generator().manual_seed(0)
    maps = [(torch.randn(width, width, generator=draw), torch.randn(width, generator=draw)) for _ in range(2)]
    x = capture(source, images, [site])[site]
    with torch.no_grad():
        logits = [target(images), *(run_tail(target, images, site, torch.einsum("oc,nchw->nohw", w, x)
                                             + b[:, None, None]) for w, b in maps)]
    monkeypatch.setattr(deviation_study, "_AT_ONCE", 7)
    sizes, real = [], target.forward
    monkeypatch.setattr(target, "forward", lambda of: (sizes.append((len(of), torch.is_grad_enabled())),
                                                       real(of))[1])
    found = deviation_study.find_accuracies(source, target, Batch(images, images, labels), site, maps)
    assert found == [float((each.argmax(1) == labels).double().mean()) for each in logits]
    assert max(sizes) == (7, False)


def test_every_deviation_tells_its_number_or_that_there_is_none(tmp_path: Path) -> None:
    record = make_deviation_record(tmp_path)
    for deviation in DEVIATIONS:
        heard = describe_change(record, deviation.key)
        assert bool(heard) != bool(deviation.change)
        assert not deviation.key or "0.25" in heard
    assert len(EXPERIMENTS["D"].tabulate(record)["Deviations"]) == len(DEVIATIONS)


@pytest.mark.parametrize("name", ["E7", "E8", "E9", "E11"])
def test_tables_and_figures_show_what_there_is(name: str, tmp_path: Path) -> None:
    record = {
        "E7": lambda: make_sensitivity(tmp_path, {"dm.relative_accuracy": (4, 4, 4),
                                                  "cka@flatten": (4, 0, 4)}),
        "E8": lambda: make_record("E8", {"cells": make_cells({"cka@paper": APART}), "outcomes": [
            {"part": "", "measure": "cka@paper", "test": "specificity", "effect": 0.9, "low": 0.8,
             "high": 1.0, "p": 0.01, "passed": True}]}, tmp_path),
        "E9": lambda: make_record("E9", {"probes": make_probes()}, tmp_path),
        "E11": lambda: make_open_record(tmp_path, (True,) * 3)}[name]()
    tables = EXPERIMENTS[name].tabulate(record)
    assert tables
    assert all(len(table) for table in tables.values())
    for draw in EXPERIMENTS[name].draw(record).values():
        assert draw().axes


def test_the_published_pseudo_inverse_is_pytorchs() -> None:
    """Its own numbers: the weight of torch.linalg.pinv, and the directions that its default cut drops."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(50, 3, generator=generator), torch.randn(50, 2, generator=generator)
    x = torch.cat([x, x[:, :1] + 1e-7 * x[:, 1:2]], 1)
    found = published_code.fit_published(x, y)
    inverse = torch.linalg.pinv(torch.cat([x, torch.ones(50, 1)], 1)) @ y
    assert torch.allclose(found.weight, inverse[:-1].T, atol=1e-4)
    assert (found.dropped, found.directions) == (1, 5)
    weight, bias, dropped, residual = published_code.fit_ours(x[:, :3], y)
    wanted = torch.linalg.lstsq(torch.cat([x[:, :3], torch.ones(50, 1)], 1).double(), y.double()).solution
    assert torch.allclose(torch.cat([weight.T, bias[None]]), wanted, atol=1e-6)
    assert dropped == 0
    assert residual == pytest.approx(found.residual, rel=1e-3)


def test_the_published_pwcca_is_that_of_full_rank_and_not_that_of_a_cut() -> None:
    from suture.indices import of_matrices

    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(200, 6, generator=generator), torch.randn(200, 6, generator=generator)
    y = x + 0.5 * y
    ours = float(of_matrices(x.double(), y.double(), ["pwcca"])["pwcca"].value)
    assert published_code.compute_pwcca(x, y) == pytest.approx(ours, abs=1e-3)
    cut = published_code.cut_rows(x, 2)
    assert torch.linalg.matrix_rank((cut - cut.mean(0)).double(), rtol=1e-4) == 2


@pytest.mark.parametrize("scale", ["tiny", "small", "paper"])
def test_spec_files_can_be_read(scale: str, tmp_path: Path) -> None:
    """Paths of auxiliary images are opened when a file is read, all others later."""
    images = tmp_path / "images.npy"
    np.save(images, np.zeros((4, 32, 32, 3), np.uint8))
    places = dict.fromkeys(("cifar10", "svhn", "imagenet", "random_images", "resnet18_weights",
                            "vit_weights"), str(images))
    files = [path for path in sorted((SCALES / scale).glob("*.toml"))
             if path.stem.partition("-")[0] in EXPERIMENTS]
    assert {path.stem for path in files} >= {"E1", "E2", "E3", "E6", "E7", "E8", "E9", "E10", "E11", "D"}
    for path in files:
        spec = StudyFile.read(path, places)
        assert spec.list_pairs()
        if spec.experiment:
            kind = DeviationOptions if path.stem == "D" else RankOptions
            assert read_options(spec.file, ("experiment",), kind, kind).ranks
