"""Out-of-distribution scores of a comparison: against slow loops, laws, users' detectors and data, bad
input."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

import suture
from suture import OOD, EnergyRecipe, SutureError, TaskRecipe, zoo
from suture.compare.settings import Settings
from suture.ood import DETECTORS, NativeSite, ScoreCollector, SiteFeatures, auxiliary
from suture.representations.shapes import Kind, Shape
from suture.stitching.layer import StitchingLayer
from tests.support import tiny
from tests.support.moments import first_shape
from tests.support.plain_hooks import capture, run_tail

SITES = ["layer1.0", "layer2.1"]
FREE = tuple(n for n in DETECTORS if n != "energy")
RECIPE = TaskRecipe(epochs=1, batch_size=50, lr=1e-2)


class Small(nn.Module):
    """(N, 1, 8, 8) -> three blocks, two of which have the names of `SITES` -> logits (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(tiny.Block(1, 4))
        self.layer2 = nn.Sequential(tiny.Block(4, 5, 2), tiny.Block(5, 5))
        self.head = nn.Linear(5, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.layer2(self.layer1(x)).mean((2, 3)))
        return logits


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, zoo.ImageSet, zoo.ImageSet]:
    train, test = zoo.digits("train").subset(120), zoo.digits("test").subset(60)
    network = tiny.seeded(Small)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(train.inputs), train.labels).backward()
        optimizer.step()
    return network, train, test


def few(digits: Any) -> tuple[nn.Module, zoo.ImageSet, zoo.ImageSet]:
    """The network, with few examples where these are enough."""
    network, train, test = digits
    return network, train.subset(60), test.subset(40)


SMALL = OOD(FREE, auxiliary=tiny.images(60, 1, seed=8), unseen=tiny.images(30, 1, seed=9), range_examples=10)
"""All detectors without a training, with little auxiliary data."""


@pytest.fixture(scope="module")
def result(digits: Any) -> suture.Comparison:
    network, train, test = digits
    return suture.compare(network, None, train, test, sites=SITES, tlm=RECIPE, indices=(),
                          ood=OOD(FREE, range_examples=20))


def stitched(digits: Any, result: suture.Comparison, method: str, i: int, j: int, inputs: Tensor) -> Tensor:
    """Representations of one cell, made apart from the code that evaluates."""
    source, target = (capture(digits[0], inputs, [SITES[k]])[SITES[k]] for k in (i, j))
    alignment = suture.representations.alignment  # type: ignore[attr-defined]
    layer = StitchingLayer(alignment.Alignment(first_shape(source), first_shape(target)))
    layer.set(*(torch.as_tensor(result.arrays[f"{method}.{k}/{i}/{j}"]) for k in ("weight", "bias")))
    with torch.no_grad():
        return layer(source)


@pytest.mark.parametrize("method", ["dm", "tlm"])
def test_scores_of_every_cell_are_those_of_a_slow_loop(digits: Any, result: suture.Comparison,
                                                       method: str) -> None:
    network, train, test = digits
    for j, site in enumerate(SITES):
        fit, native = (capture(network, d.inputs, [site])[site] for d in (train, test))
        shape, statistics = first_shape(native), DETECTORS["mahalanobis"].make_statistics(0)
        assert statistics is not None
        statistics.update(SiteFeatures(fit, shape).spread, train.labels)
        detector = DETECTORS["mahalanobis"].fit(NativeSite(site, shape, statistics=statistics))
        own = detector.score(SiteFeatures(native, shape)).numpy()
        np.testing.assert_allclose(result.arrays["native.mahalanobis"][j], own, rtol=1e-2)
        for i, source in enumerate(SITES):
            x = stitched(digits, result, method, i, j, test.inputs)
            other = detector.score(SiteFeatures(x, shape)).numpy()
            np.testing.assert_allclose(result.arrays[f"{method}.score_mahalanobis"][i, j], other, rtol=1e-2)
            wanted = roc_auc_score(np.repeat([1, 0], len(own)), np.r_[own, other])
            got = result.matrix(f"{method}.auroc_mahalanobis").loc[source, site]
            assert got == pytest.approx(wanted, abs=5e-3)
            energy = torch.logsumexp(run_tail(network, test.inputs, site, x), 1)
            np.testing.assert_allclose(result.arrays[f"{method}.score_tail_energy"][i, j], energy,
                                       rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", FREE)
def test_a_layer_stitched_to_itself_by_direct_matching_scores_a_half(result: suture.Comparison,
                                                                     name: str) -> None:
    for what in ("ood", "auroc"):
        for site in SITES:
            value, low, high = (result.matrix(f"dm.{what}_{name}", w).loc[site, site]
                                for w in ("value", "low", "high"))
            assert value == pytest.approx(0.5, abs=5e-3)
            assert low - 1e-9 <= 0.5 <= high + 1e-9


@pytest.mark.parametrize("name", FREE)
def test_all_four_measures_are_there_with_intervals(result: suture.Comparison, name: str) -> None:
    for method in ("dm", "tlm"):
        for what in ("ood", "auroc", "ap", "fpr95"):
            measure = f"{method}.{what}_{name}"
            value, low, high = (result.matrix(measure, w).to_numpy() for w in ("value", "low", "high"))
            assert ((low <= value + 1e-9) & (value <= high + 1e-9) & (low >= 0) & (high <= 1)).all()


@pytest.mark.parametrize("method", ["dm", "tlm"])
def test_frechet_distances_are_those_of_all_rows(digits: Any, result: suture.Comparison, method: str) -> None:
    network, train, _ = digits

    def moments(x: Tensor) -> tuple[np.ndarray, np.ndarray]:
        rows = x.permute(0, 2, 3, 1).flatten(0, 2).double().numpy()
        return rows.mean(0), np.cov(rows.T, bias=True)

    for j, site in enumerate(SITES):
        mean, covariance = moments(capture(network, train.inputs, [site])[site])
        for i, source in enumerate(SITES):
            m, c = moments(stitched(digits, result, method, i, j, train.inputs))
            root = sqrtm(covariance)
            bures = np.trace(c) + np.trace(covariance) - 2 * np.trace(sqrtm(root @ c @ root)).real
            wanted = (np.square(m - mean).sum() + bures) / np.trace(covariance)
            got = [result.matrix(f"{method}.frechet{part}").loc[source, site]
                   for part in ("", "_shift", "_shrinkage", "_rotation")]
            assert got[0] == pytest.approx(wanted, rel=2e-3, abs=2e-4)
            assert sum(got[1:]) == pytest.approx(got[0])


def test_stitched_representations_are_made_once(digits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    network, train, test = few(digits)
    calls: list[int] = []
    forward = StitchingLayer.forward
    monkeypatch.setattr(StitchingLayer, "forward", lambda self, *a: (calls.append(1), forward(self, *a))[1])
    counts = []
    for ood in (None, SMALL):
        calls.clear()
        suture.compare(network, None, train, test, sites=SITES, methods=["dm"], indices=(), ood=ood)
        counts.append(len(calls))
    assert counts[0] == counts[1] > 0


def test_nothing_else_changes_with_the_detectors(digits: Any, result: suture.Comparison) -> None:
    network, train, test = digits
    bare = suture.compare(network, None, train, test, sites=SITES, tlm=RECIPE, indices=(), ood=None)
    alone = suture.compare(network, None, train, test, sites=SITES, tlm=RECIPE, indices=(),
                           ood=OOD("mahalanobis", range_examples=20))
    assert not any("mahalanobis" in m for m in bare.measures)
    assert "ood" not in bare.meta
    for name in bare.measures:
        np.testing.assert_array_equal(bare.matrix(name), result.matrix(name))
    for name in alone.measures:
        np.testing.assert_array_equal(alone.matrix(name), result.matrix(name))


def test_without_a_detector_there_are_distances_and_verdicts(digits: Any, result: suture.Comparison) -> None:
    network, train, test = digits
    found = suture.compare(network, None, train, test, sites=SITES, methods=["dm"], indices=(),
                           ood=OOD((), range_examples=20))
    np.testing.assert_array_equal(found.matrix("dm.frechet"), result.matrix("dm.frechet"))
    assert not any("_mahalanobis" in m for m in found.measures)
    assert not {"quality", "positive"} & set(found.meta["ood"])
    assert found.cells("dm").equals(result.cells("dm"))


def test_other_auxiliary_data_are_another_comparison(digits: Any) -> None:
    network, train, test = few(digits)
    one, other = (suture.compare(network, None, train, test, sites=SITES, methods=["dm"], indices=(),
                                 ood=OOD(auxiliary=torch.full((5, 1, 8, 8), v), range_examples=10))
                  for v in (0.2, 0.3))
    assert one.meta["key"] != other.meta["key"]


def test_quality_says_what_auxiliary_data_score(digits: Any, result: suture.Comparison) -> None:
    about = result.meta["ood"]
    assert "larger scores are more in-distribution" in about["positive"]
    assert f"made from the data: {auxiliary.HELD_OUT} examples of gaussian" in about["auxiliary"]
    for name in FREE:
        assert len(about["quality"][name]) == len(SITES)
        for j, q in enumerate(about["quality"][name]):
            assert all(0 <= q[k] <= 1
                       for k in ("auxiliary", "unseen", "auxiliary_one_sided", "unseen_one_sided"))
            if name != "two_sample":
                own, other = result.arrays[f"native.{name}"][j], result.arrays[f"auxiliary.{name}"][j]
                wanted = roc_auc_score(np.repeat([1, 0], [len(own), len(other)]), np.r_[own, other])
                assert q["auxiliary_one_sided"] == pytest.approx(wanted)


def test_a_result_that_is_taken_over_equals_one_in_one_go(digits: Any) -> None:
    network, train, test = few(digits)
    arguments: dict[str, Any] = {"sites": SITES, "tlm": RECIPE, "indices": (), "ood": SMALL}
    partial: list[suture.Comparison] = []
    whole = suture.compare(network, None, train, test, on_stage=partial.append, **arguments)
    for earlier in partial[:-1]:
        again = suture.compare(network, None, train, test, previous=earlier, **arguments)
        for name in whole.measures:
            np.testing.assert_array_equal(again.matrix(name), whole.matrix(name))
        assert again.meta["ood"] == whole.meta["ood"]
        assert again.meta["notes"][0].startswith("taken over: moments")
        assert again.meta["notes"][1:] == whole.meta["notes"]


def test_detectors_see_all_data_where_direct_matching_sees_few(digits: Any,
                                                               result: suture.Comparison) -> None:
    network, train, test = digits
    few = suture.compare(network, None, train, test, sites=SITES, methods=["dm"], indices=(), examples=40,
                         ood=OOD("mahalanobis", range_examples=10))
    np.testing.assert_allclose(few.arrays["native.mahalanobis"],
                               result.arrays["native.mahalanobis"], rtol=1e-3)


# -- what users bring ----------------------------------------------------------------------------------------

def test_a_function_of_a_user_is_a_detector(digits: Any) -> None:
    network, train, test = few(digits)

    def mine(x: Tensor) -> Tensor:
        return -x.flatten(1).norm(dim=1)

    found = suture.compare(network, None, train, test, sites=SITES, methods=["dm"], indices=(),
                           ood=OOD((), own={"norm": mine, "each": dict.fromkeys(SITES, mine)},
                                   range_examples=10))
    np.testing.assert_array_equal(found.matrix("dm.ood_norm"), found.matrix("dm.ood_each"))
    native = capture(network, test.inputs, [SITES[0]])[SITES[0]]
    np.testing.assert_allclose(found.arrays["native.norm"][0], mine(native), rtol=1e-3)
    assert list(found.meta["ood"]["quality"]) == ["norm", "each"]


def test_auxiliary_data_of_a_user_are_used_and_duplicates_counted(digits: Any) -> None:
    network, train, test = few(digits)
    mine = torch.cat([torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0)), train.inputs[:3]])
    found = suture.compare(network, None, train, test, sites=SITES, methods=["dm"], indices=(),
                           ood=OOD(auxiliary=mine, unseen=(mine[:7], torch.zeros(7, dtype=torch.int64)),
                                   range_examples=10))
    assert any("3 of 43 auxiliary examples are exact copies" in n for n in found.meta["notes"])
    assert found.arrays["auxiliary.mahalanobis"].shape == (2, 21)
    assert found.arrays["unseen.mahalanobis"].shape == (2, 7)
    assert found.meta["ood"]["auxiliary"] == "given: 43 examples, 21 of them held out"


def vectors() -> tuple[nn.Module, Any]:
    net = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    x = torch.randn(80, 5, generator=torch.Generator().manual_seed(0))
    return tiny.seeded(lambda: net), (x, torch.arange(80) % 3)


def test_results_of_a_detector_that_suture_no_longer_has_still_load(tmp_path: Any) -> None:
    net, data = vectors()
    suture.compare(net, None, data, sites=["1", "3"], methods=["dm"], indices=(),
                   ood=OOD((), own={"mahalanobis_mean": lambda x: -x.norm(dim=1)})).save(tmp_path / "r")
    found = suture.load(tmp_path / "r")
    assert found.matrix("dm.ood_mahalanobis_mean").notna().all(axis=None)
    assert set(found.cells("dm").to_numpy().ravel()) <= {"unproven", "dissimilar"}
    assert "mahalanobis_mean" not in DETECTORS


def test_inputs_that_no_maker_fits_leave_verdicts_unproven() -> None:
    net, data = vectors()
    found = suture.compare(net, None, data, sites=["1", "3"], methods=["dm"], indices=())
    assert any("no auxiliary data and no maker" in n for n in found.meta["notes"])
    assert set(found.cells("dm").to_numpy().ravel()) <= {"unproven", "dissimilar"}
    assert found.matrix("dm.ood_mahalanobis").notna().all(axis=None)


def test_one_class_and_no_labels_are_enough_for_the_default() -> None:
    net, (x, _) = vectors()
    for labels in (torch.zeros(80, dtype=torch.int64), None):
        data = [(x[:40], labels[:40]), (x[40:], labels[40:])] if labels is not None else [x[:40], x[40:]]
        found = suture.compare(net, None, data, sites=["1", "3"], methods=["dm"], indices=())
        assert found.matrix("dm.ood_mahalanobis").notna().all(axis=None)


class Reader(nn.Module):
    """Token ids with a mask -> logits."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(30, 8)
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(2))
        self.head = nn.Linear(8, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.embed(input_ids)
        for block in self.blocks:
            x = block(x, src_key_padding_mask=attention_mask == 0)
        kept = attention_mask[..., None].float()
        return self.head((x * kept).sum(1) / kept.sum(1))


def texts(length: int) -> list[dict[str, Tensor]]:
    g = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 30, (60, 9), generator=g)
    mask = (torch.arange(9)[None] < 4 + torch.arange(60)[:, None] % 6).long()
    pad = torch.zeros(60, length - 9, dtype=torch.int64)
    ids, mask = torch.cat([ids * mask, pad], 1), torch.cat([mask, pad], 1)
    return [{"input_ids": i, "attention_mask": m, "labels": t} for i, m, t in
            zip(ids.split(20), mask.split(20), (torch.arange(60) % 3).split(20), strict=True)]


def test_padding_changes_no_score() -> None:
    net = tiny.seeded(Reader)
    short, long = (suture.compare(net, None, texts(n), sites=["blocks.0", "blocks.1"], methods=["dm"],
                                  indices=(), ood=OOD(("mahalanobis", "neighbours")))
                   for n in (9, 14))
    for name in ("mahalanobis", "neighbours"):
        np.testing.assert_allclose(short.arrays[f"native.{name}"], long.arrays[f"native.{name}"],
                                   rtol=1e-2, atol=1e-2)
        np.testing.assert_allclose(short.matrix(f"dm.auroc_{name}"),
                                   long.matrix(f"dm.auroc_{name}"), atol=0.01)
    assert "random" in short.meta["ood"]["auxiliary"]
    assert "shuffled" in short.meta["ood"]["unseen"]


# -- a trained detector --------------------------------------------------------------------------------------

def test_a_trained_detector_is_kept_and_found_again(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from suture.ood import energy

    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6),
                             nn.Tanh(), nn.Linear(6, 3))

    network, (x, y) = tiny.seeded(make), vectors()[1]
    train, test = (x[:60], y[:60]), (x[60:], y[60:])
    outside = torch.rand(30, 5, generator=torch.Generator().manual_seed(0))
    ood = OOD(("energy",), energy=EnergyRecipe(epochs=1, tune_epochs=1, batch_size=60), store=tmp_path,
              auxiliary=outside, range_examples=10)
    sites = ["1", "3"]  # of one shape
    arguments: dict[str, Any] = {"sites": sites, "methods": ["dm"], "indices": (), "ood": ood}
    first = suture.compare(network, None, train, test, **arguments)
    assert len(list(tmp_path.iterdir())) == 2
    trained: list[Any] = []
    real = energy.train_classifiers
    monkeypatch.setattr(energy, "train_classifiers", lambda *a: (trained.append(a[-1]), real(*a))[1])
    again = suture.compare(network, None, train, test, **arguments)
    assert trained == []
    np.testing.assert_array_equal(first.matrix("dm.ood_energy"), again.matrix("dm.ood_energy"))
    more = suture.compare(network, None, train, test, **(arguments | {"sites": [*sites, "5"]}))
    assert trained == [[2]]
    np.testing.assert_array_equal(more.arrays["native.energy"][:2], first.arrays["native.energy"])
    # Other data, other labels, another network, other auxiliary data: none of them may find these detectors.
    suture.compare(network, None, (x[:40], y[:40]), test, **arguments)
    suture.compare(network, None, (train[0], train[1].flip(0)), test, **arguments)
    suture.compare(tiny.seeded(make, 5), None, train, test, **arguments)
    suture.compare(network, None, train, test,
                   **(arguments | {"ood": dataclasses.replace(ood, auxiliary=1 - outside)}))
    assert trained[1:] == [[0, 1]] * 4


def test_quality_is_measured_on_auxiliary_data_that_no_detector_was_trained_on(digits: Any) -> None:
    network, train, test = few(digits)
    outside = torch.rand(50, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def mine(x: Tensor) -> Tensor:
        return x.flatten(1).sum(1)

    ood = OOD(("energy",), own={"sum": mine}, energy=EnergyRecipe(epochs=1, tune_epochs=1), auxiliary=outside,
              range_examples=10)
    found = suture.compare(network, None, train, test, sites=SITES, methods=["dm"], indices=(), ood=ood)
    held_out = capture(network, outside[25:], [SITES[0]])[SITES[0]]
    np.testing.assert_allclose(found.arrays["auxiliary.sum"][0], mine(held_out), rtol=1e-3)


def test_features_are_kept_of_the_first_examples_only() -> None:
    scoring = ScoreCollector({"two_sample": [DETECTORS["two_sample"]]}, [Shape(Kind.VECTOR, 3)])
    x = torch.arange(3.0 * 1200).view(1200, 3)
    for part in x.split(350):
        scoring.add(0, part, None)
    np.testing.assert_array_equal(scoring.join_features(0), x[:500])


# -- a ReLU behind the layer ---------------------------------------------------------------------------------

def test_a_relu_ends_the_stitching_layer(digits: Any, tmp_path: Any) -> None:
    network, train, test = digits
    found = suture.compare(network, None, train, test, sites=SITES, tlm=RECIPE, indices=(), relu=True,
                           ood=OOD((), range_examples=10))
    x = stitched(digits, found, "dm", 0, 1, test.inputs).relu()
    native = capture(network, test.inputs, [SITES[1]])[SITES[1]]
    residual = float((x - native).square().sum() / native.square().sum())
    assert found.matrix("dm.residual").iloc[0, 1] == pytest.approx(residual, rel=1e-3)
    assert "ReLU" in found.matrix("tlm.frechet", "reason").iloc[0, 0]
    bare = suture.compare(network, None, train, test, sites=SITES, tlm=RECIPE, indices=(), ood=None)
    assert found.matrix("dm.residual").iloc[0, 1] < bare.matrix("dm.residual").iloc[0, 1]
    assert not np.array_equal(found.arrays["tlm.weight/0/1"], bare.arrays["tlm.weight/0/1"])
    one = suture.stitch(network, SITES[0], network, SITES[1], train, relu=True)
    one.save(tmp_path / "s.safetensors")
    loaded = suture.load_stitched(tmp_path / "s.safetensors", network, network)
    assert loaded.layer.relu
    wanted = run_tail(network, test.inputs, SITES[1], x)
    torch.testing.assert_close(loaded(test.inputs), wanted, rtol=1e-3, atol=1e-3)


# -- bad input -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("ood", "message"), [
    (lambda: OOD("mahalanobi"), "mahalanobis"),
    (lambda: OOD(own={"mahalanobis": lambda x: x}), "name of its own"),
    (lambda: OOD(own={"a b": lambda x: x}), "letters, digits"),
    (lambda: OOD(most=0), "most: expected at least 1"),
    (lambda: OOD(auxiliary=torch.rand(9, 1, 9, 9)), r"per example \(1, 8, 8\) float32, got \(1, 9, 9\)"),
    (lambda: OOD(auxiliary=torch.rand(9, 1, 8, 8).double()), "got .* float64"),
    (lambda: OOD(auxiliary=[torch.rand(9, 1, 8, 8), torch.rand(9, 1, 4, 4)]), r"got \(1, 4, 4\)"),
    (lambda: OOD(auxiliary=torch.full((9, 1, 8, 8), float("nan"))),
     "NaN or inf in the representation of auxiliary"),
    (lambda: OOD("energy", auxiliary=torch.rand(1, 1, 8, 8)), "given: 1 examples"),
    (lambda: OOD("energy", store="/proc/suture"), "cannot write .*/proc/suture"),
    (lambda: OOD(None), "names of detectors"),  # type: ignore[arg-type]
    (lambda: OOD(own=len), "own as a mapping"),  # type: ignore[arg-type]
    (lambda: OOD(most="5"), "most: expected a whole number"),  # type: ignore[arg-type]
    (lambda: OOD(thresholds={"out": 0.9}), "Thresholds"),  # type: ignore[arg-type]
    (lambda: OOD(energy=TaskRecipe()), "EnergyRecipe"),  # type: ignore[arg-type]
    (lambda: False, "OOD, names of detectors or None"),
    (lambda: OOD((), own={"mine": lambda x: x.nope()}), "AttributeError"),
    (lambda: OOD(unseen=torch.rand(9, 3, 8, 8)), "unseen data"),
    (lambda: OOD((), own={"mine": {"layer1.0": lambda x: x[:, 0, 0, 0]}}), "none for 'layer2.1'"),
    (lambda: OOD((), own={"mine": lambda x: x}), r"expected scores of shape \("),
    (lambda: OOD((), own={"mine": lambda x: x[:, 0, 0, 0] / 0 * 0}), "got NaN"),
])
def test_what_cannot_work_is_said(digits: Any, ood: Any, message: str) -> None:
    network, train, test = few(digits)
    with pytest.raises(SutureError, match=message):
        suture.compare(network, None, train, test, sites=SITES, methods=["dm"], indices=(), ood=ood())


def test_a_dry_run_leaves_nothing_where_detectors_would_be_kept(digits: Any, tmp_path: Path) -> None:
    network, train, test = few(digits)
    suture.dry_run(network, None, train, test, sites=SITES, methods=["dm"], indices=(),
                   ood=OOD("energy", store=tmp_path / "study" / "detectors"))
    assert not list(tmp_path.iterdir())


def test_a_trained_detector_without_auxiliary_data_is_refused() -> None:
    net, data = vectors()
    with pytest.raises(SutureError, match="auxiliary data to train the detector energy"):
        suture.compare(net, None, data, sites=["1", "3"], methods=["dm"], indices=(), ood="energy")


def test_cells_say_what_is_missing(digits: Any) -> None:
    network, train, test = few(digits)
    bare = suture.compare(network, None, train, test, sites=SITES, methods=["dm"], indices=(), ood=None)
    with pytest.raises(SutureError, match="ood="):
        bare.cells("dm")


def test_bad_input_of_later_stages_is_told_before_any_work(digits: Any) -> None:
    network, train, test = digits
    stages: list[str] = []
    arguments: dict[str, Any] = {"sites": SITES, "tlm": RECIPE, "indices": (),
                                 "progress": lambda stage, done, total: stages.append(stage)}
    net, (x, y) = vectors()
    for source, data, held_out, ood, message in (
        (network, train, (test.inputs, test.labels.float()), None, "class numbers, got float32"),
        (network, train, (test.inputs, test.labels - 1), None, "labels from 0 to 9, got -1"),
        (net, (x, y), (torch.rand(9, 6), torch.zeros(9, dtype=torch.int64)), None, "fails on the test data"),
        (net, (x, y), None, OOD((), own={"mine": lambda x: x}), "expected scores of shape"),
        (network, train, test, OOD(auxiliary=torch.rand(5, 3, 8, 8)), "auxiliary data like the data"),
    ):
        given = arguments | ({"sites": ["1", "3"]} if source is net else {})
        with pytest.raises(SutureError, match=message):
            suture.compare(source, None, data, held_out, ood=ood, **given)
    assert stages == []


# -- data and cells that are out of the ordinary -------------------------------------------------------------

@pytest.mark.parametrize(("n", "classes", "say"), [(40, 40, "one class"), (8, 8, "one class"),
                                                   (2, 2, "one class"), (40, 39, "fewer than two")])
def test_one_example_of_a_class_is_enough(n: int, classes: int, say: str) -> None:
    net = tiny.seeded(lambda: nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(),
                                            nn.Linear(6, 60)))
    x = torch.randn(n, 5, generator=torch.Generator().manual_seed(0))
    found = suture.compare(net, None, (x, torch.arange(n) % classes), sites=["1", "3"],
                           methods=["dm"], indices=())
    assert found.matrix("dm.ood_mahalanobis").notna().all(axis=None)
    assert np.isfinite(found.arrays["native.mahalanobis"]).all()
    assert any(say in note for note in found.meta["notes"])


def test_classes_without_spread_do_not_depend_on_the_batches() -> None:
    net = tiny.seeded(tiny.Tiny)
    x, y = tiny.images(3).repeat(20, 1, 1, 1), torch.arange(3).repeat(20)
    held_out = tiny.images(30, seed=1), tiny.labels(30)
    one, other = (suture.compare(net, None, (x, y), held_out, methods=["dm"], indices=(), batch_size=b,
                                 ood=OOD("mahalanobis", range_examples=10)).matrix("dm.ood_mahalanobis")
                  for b in (60, 7))
    np.testing.assert_allclose(one, other, atol=0.05)


class Adder(nn.Module):
    """Two token ids -> logits."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 8)
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
        self.head = nn.Linear(8, 7)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for block in self.blocks:
            x = torch.relu(block(x))
        return self.head(x.mean(1))


@pytest.mark.parametrize("inputs", [torch.cartesian_prod(torch.arange(7), torch.arange(7)),
                                    torch.full((40, 3), 2)])
def test_inputs_that_makers_cannot_change_leave_verdicts_unproven(inputs: Tensor) -> None:
    data = inputs, torch.arange(len(inputs)) % 7
    found = suture.compare(tiny.seeded(Adder), None, data, sites=["blocks.0", "blocks.1"],
                           methods=["dm"], indices=())
    assert set(found.cells("dm").to_numpy().ravel()) <= {"unproven", "dissimilar"}


@pytest.mark.parametrize("recipe", [TaskRecipe(epochs=4, batch_size=16, lr=1e30),
                                    TaskRecipe(epochs=1, batch_size=60, lr=1e30)])
def test_cells_that_diverge_are_missing_and_the_run_goes_on(recipe: TaskRecipe) -> None:
    net, data = vectors()
    found = suture.compare(net, None, data, sites=["1", "3"], tlm=recipe, indices=(),
                           ood=OOD(("mahalanobis", "two_sample"),
                                   own={"m": lambda x: -x.var(1) / (1 + x.norm(dim=1))}))
    for name in ("mahalanobis", "two_sample", "m"):
        values, reasons = (found.matrix(f"tlm.ood_{name}", what) for what in ("value", "reason"))
        assert ((reasons != "") == values.isna()).all(axis=None)
        assert found.matrix(f"dm.ood_{name}").notna().all(axis=None)


class Scaled(nn.Module):
    """Images beside a number and a tensor that all examples share."""

    def __init__(self) -> None:
        super().__init__()
        self.body = tiny.Tiny(1)

    def forward(self, x: Tensor, scale: Tensor, shared: Tensor) -> Any:
        return self.body(x * scale + shared)


def test_inputs_beside_what_all_examples_share_are_auxiliary_data_too(tmp_path: Any) -> None:
    shared = {"scale": torch.tensor(2.0), "shared": torch.full((1, 1, 8, 8), 0.1)}
    data = [{"x": x, **shared, "labels": y} for x, y in tiny.batches(tiny.images(24, 1), tiny.labels())]
    outside = {"x": tiny.images(20, 1, seed=3), **shared, "labels": tiny.labels(20)}
    ood = OOD(("mahalanobis", "energy"), auxiliary=outside, store=tmp_path,
              energy=EnergyRecipe(epochs=1, tune_epochs=1, batch_size=8))
    found = suture.compare(tiny.seeded(Scaled), None, data, sites=["body.block1", "body.block2"],
                           methods=["dm"], indices=(), ood=ood)
    assert found.arrays["auxiliary.energy"].shape == (2, 10)


def test_nan_behind_the_first_examples_is_named_where_these_make_the_moments() -> None:
    net, (x, y) = vectors()
    x = x.clone()
    x[50] = float("nan")
    with pytest.raises(SutureError, match=r"NaN or inf at source site '1' in batch"):
        suture.compare(net, None, (x, y), sites=["1", "3"], methods=["dm"], indices=(), examples=20)


def test_quality_of_a_detector_does_not_depend_on_a_trained_one_beside_it(digits: Any) -> None:
    network, train, test = few(digits)
    outside = torch.rand(90, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    recipe = EnergyRecipe(epochs=1, tune_epochs=1)
    one, other = (suture.compare(network, None, train, test, sites=SITES, methods=["dm"], indices=(),
                                 ood=OOD(names, auxiliary=outside, energy=recipe,
                                         range_examples=10)).meta["ood"]["quality"]["mahalanobis"]
                  for names in (("mahalanobis",), ("mahalanobis", "energy")))
    assert one == other


def test_a_loader_that_shuffles_finds_its_detectors_and_other_batches_do_not(digits: Any,
                                                                             tmp_path: Any) -> None:
    network, train, test = few(digits)
    ood = OOD("energy", energy=EnergyRecipe(epochs=1, tune_epochs=1, batch_size=50), store=tmp_path,
              auxiliary=torch.rand(40, 1, 8, 8), range_examples=10)
    arguments: dict[str, Any] = {"sites": SITES, "methods": ["dm"], "indices": (), "ood": ood}
    for _ in range(2):
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*train.tensors), 50, shuffle=True)
        suture.compare(network, None, loader, test, **arguments)
    assert len(list(tmp_path.iterdir())) == 2
    suture.compare(network, None, train, test, **arguments)
    assert len(list(tmp_path.iterdir())) == 4


def test_a_constant_target_has_no_score() -> None:
    net, data = vectors()
    with torch.no_grad():
        net[2].weight.zero_()
        net[2].bias.copy_(torch.tensor([1.1, 0.3, 3.7, 0.9, 0.2, 1.3]))
    found = suture.compare(net, None, data, sites=["1", "3"], methods=["dm"], indices=(),
                           ood=OOD(("mahalanobis", "neighbours", "two_sample")))
    for name in ("mahalanobis", "neighbours", "two_sample"):
        assert (found.matrix(f"dm.ood_{name}", "reason")["3"].str.contains("constant")).all()
        assert found.matrix(f"dm.ood_{name}")["1"].notna().all()


def test_a_single_test_example_has_no_score(digits: Any) -> None:
    network, train, test = few(digits)
    found = suture.compare(network, None, train, (test.inputs[:1], test.labels[:1]), sites=SITES,
                           methods=["dm"], indices=(), ood=OOD(("mahalanobis", "two_sample")))
    assert (found.matrix("dm.ood_two_sample", "reason") != "").all(axis=None)


def test_a_module_of_a_user_runs_in_eval_mode(digits: Any) -> None:
    network, train, test = few(digits)

    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.nn.functional.dropout(x.flatten(1), 0.5, self.training).sum(1)

    mine = Noisy().train()
    found = suture.compare(network, None, train, test, sites=SITES, methods=["dm"], indices=(),
                           ood=OOD((), own={"m": mine}, range_examples=10))
    assert found.matrix("dm.ood_m").iloc[0, 0] == pytest.approx(0.5, abs=5e-3)
    assert mine.training


def test_the_record_names_the_seed_of_the_trained_detector() -> None:
    ood = OOD("energy", auxiliary=torch.rand(40, 1, 8, 8))
    plan = Settings(methods=["dm"], indices=(), seed=3, ood=ood)
    assert plan.as_record(held_out=True)["ood"]["energy"]["seed"] == 3
    assert ood.settings(4)["energy"]["seed"] == ood.choose_recipe(4).seed == 4


def test_a_trained_detector_scores_without_the_tail_of_the_network() -> None:
    needs = {name: ScoreCollector({name: [d]}, [Shape(Kind.VECTOR, 3)]).needs_logits
             for name, d in DETECTORS.items()}
    assert [name for name, needed in needs.items() if needed] == ["tail_energy"]
