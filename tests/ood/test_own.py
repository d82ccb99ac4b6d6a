"""A user's own detectors in a comparison, and trained detectors in a store."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PosixPath
from typing import Any, Self

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import suture
from suture import OOD, EnergyRecipe, SutureError
from suture.data import Batches
from suture.networks import SitedNetwork, disable_gradients
from suture.numbers import ShiftedSums
from suture.ood import (
    DETECTORS,
    Detection,
    Detector,
    DetectorFitter,
    FeatureSample,
    NativeData,
    NativeSite,
    SiteFeatures,
    detector_store,
)
from suture.ood.detector_store import _load_state, fit_with_store
from suture.representations import Kind, Shape
from suture.stitching import extract_logits
from tests.support import tiny

RECIPE = EnergyRecipe(epochs=3, tune_epochs=2, batch_size=16, lr=3e-3, tune_lr=3e-3)
CPU = torch.device("cpu")


class Norm(Detector):
    """Minus the distance of the features' norm to that of the native ones, as a user may write it."""

    typical: Tensor

    def make_statistics(self, seed: int) -> FeatureSample:
        return FeatureSample(seed)

    def fit(self, native: NativeSite) -> Self:
        self.typical = native.statistics.rows.norm(dim=1).mean()  # in place: each site has its own copy
        return self

    def score(self, seen: SiteFeatures) -> Tensor:
        return -(seen.spread.norm(dim=1) - self.typical).abs()


@pytest.fixture(params=[*DETECTORS, "own"])
def detector(request: Any) -> Detector:
    return Norm() if request.param == "own" else DETECTORS[request.param]


def fit(detector: Detector, *, size: int = 16, seed: int = 0, labelled: bool = True,
        auxiliary: bool = True, store: Any = None) -> tuple[Detector, NativeSite]:
    """Fit a detector to the first site of a small network."""
    inputs, labels = tiny.images(48), tiny.labels(48)
    batches = Batches([(inputs[k:k + size], labels[k:k + size]) if labelled else inputs[k:k + size]
                       for k in range(0, 48, size)])
    target = SitedNetwork(tiny.network(), inputs[:4], ["block1"])
    given = tiny.images(30, seed=9) * 3 - 1 if auxiliary else None
    data = NativeData(target, (inputs, labels) if labelled else batches, batches, RECIPE, CPU, 64, "net",
                      given)
    statistics = detector.make_statistics(seed)
    with disable_gradients():
        for batch in batches:
            if statistics is not None:
                seen = SiteFeatures(target.front(batch.target)[0], target.shapes[0])
                statistics.update(seen.spread, batch.labels)
    site = NativeSite("block1", target.shapes[0], seed, statistics, data)
    return fit_with_store(detector, [site], data, store)[0], site


def look(shift: float = 0.0) -> SiteFeatures:
    """Native representations of other inputs, with logits after them."""
    inputs = tiny.images(40, seed=3)
    target = SitedNetwork(tiny.network(), inputs[:4], ["block1"])
    with disable_gradients():
        done = target.run_full(inputs)
        x = target.pick_representations(done)[0] + shift
        return SiteFeatures(x, target.shapes[0], logits=extract_logits(target.tail(0, x, done)))


def score(detector: Detector, shift: float = 0.0) -> tuple[Tensor, Tensor]:
    return detector.score_pair(look(), look(shift))


def test_a_trained_detector_is_stored_and_others_are_not(detector: Detector, tmp_path: Any,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    made = fit(detector, store=tmp_path)[0]
    assert bool(list(tmp_path.iterdir())) == detector.needs_auxiliary
    if detector.needs_auxiliary:
        monkeypatch.setattr(type(detector), "fit_sites", lambda *_: pytest.fail("trained again"))
        for a, b in zip(score(made, 1.0), score(fit(detector, store=tmp_path)[0], 1.0), strict=True):
            assert torch.equal(a, b)


class Kept(Norm):
    """A detector that is kept, with a description that has a name of the store's own."""

    words: Mapping[str, Any] = {"width": 3}

    def describe_training(self, native: NativeSite) -> Mapping[str, Any]:
        return self.words


class KeptToo(Kept):
    """Another detector with the same description."""


def test_two_detectors_of_a_user_have_files_of_their_own(tmp_path: Any) -> None:
    for n, made in enumerate((Kept(), KeptToo())):
        fit(made, store=tmp_path)
        assert len(list(tmp_path.iterdir())) == n + 1
    for words in ({"site": "a"}, {"site": "b"}, {"network": "a"}):
        fit(Kept().copy_with(words=words), store=tmp_path)
    assert len(list(tmp_path.iterdir())) == 5


def test_detectors_per_cell_stay_where_their_features_are() -> None:
    kept = Norm().copy_with(typical=torch.zeros(()))
    kept.fit_sites = lambda natives: [kept for _ in natives]  # type: ignore[method-assign]
    data = fit(Norm())[1].data
    assert data is not None
    data.device = torch.device("meta")
    site = NativeSite("block1", Shape(Kind.VECTOR, 3))
    assert fit_with_store(kept, [site], data, None)[0].typical.device == data.device  # type: ignore[attr-defined]
    kept.per_cell = True  # type: ignore[misc]
    assert fit_with_store(kept, [site], data, None)[0].typical.device == CPU  # type: ignore[attr-defined]


def test_detectors_with_the_same_statistics_share_them(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = {name: DETECTORS[name] for name in ("mahalanobis", "relative", "neighbours", "tail_energy")}
    fitter = DetectorFitter(chosen | {"one": Norm(), "two": Norm()}, [Shape(Kind.VECTOR, 3)])
    update, calls = ShiftedSums.update, list[int]()
    monkeypatch.setattr(ShiftedSums, "update", lambda self, *a: (calls.append(1), update(self, *a))[1])
    fitter.update([torch.randn(8, 3)], torch.arange(8) % 2)
    assert len(calls) == 1
    found = fitter.statistics
    assert found["mahalanobis"][0] is found["relative"][0]
    assert found["one"][0] is not found["two"][0]


def test_a_users_detector_is_fitted_to_each_site() -> None:
    network, inputs = tiny.network(), tiny.images(48)
    found = suture.compare(network, None, (inputs, tiny.labels(48)), sites=["block1", "block2"],
                           methods=["dm"], indices=(), ood=OOD(("mahalanobis",), own={"norm": Norm()}))
    for j, site in enumerate(("block1", "block2")):
        target = SitedNetwork(network, inputs[:4], [site])
        with disable_gradients():
            norms = SiteFeatures(target.front(inputs)[0], target.shapes[0]).spread.norm(dim=1)
        np.testing.assert_allclose(found.arrays["native.norm"][j], -(norms - norms.mean()).abs(),
                                   rtol=1e-3, atol=1e-3)
        assert found.matrix("dm.ood_norm").iloc[j, j] == pytest.approx(0.5, abs=0.01)
    assert len(found.meta["ood"]["quality"]["norm"]) == 2


class Wide(Norm):
    """A detector that returns a score for each channel, which is wrong."""

    def score(self, seen: SiteFeatures) -> Tensor:
        return seen.spread


def test_wrong_scores_of_a_users_detector_are_named() -> None:
    with pytest.raises(SutureError, match="one score for each example from the detector 'wide'"):
        suture.compare(tiny.network(), None, (tiny.images(48), tiny.labels(48)), sites=["block1"],
                       methods=["dm"], indices=(), ood=OOD((), own={"wide": Wide()}))


class Trained(Detector):
    """A user's linear classifier between native and auxiliary features."""

    needs_auxiliary = True
    weight: Tensor

    def fit(self, native: NativeSite) -> Self:
        data = native.data
        assert data is not None

        def features(inputs: Iterator[Any]) -> Tensor:
            with disable_gradients():
                return torch.cat([SiteFeatures(data.target.front(x)[native.index], native.shape).spread
                                  for x in inputs])

        both = features(b.target for b in data.batches), features(iter([data.auxiliary]))
        return self.copy_with(weight=both[0].mean(0) - both[1].mean(0))

    def score(self, seen: SiteFeatures) -> Tensor:
        return seen.spread @ self.weight


def test_a_users_detector_can_train_on_auxiliary_data() -> None:
    network: nn.Module = tiny.network()
    outside = tiny.images(60, seed=9) * 3 - 1
    found = suture.compare(network, None, (tiny.images(48), tiny.labels(48)), sites=["block1", "block2"],
                           methods=["dm"], indices=(),
                           ood=OOD((), own={"mine": Trained()}, auxiliary=outside))
    assert all(q["auxiliary_one_sided"] > 0.9 for q in found.meta["ood"]["quality"]["mine"])


def test_a_detection_lists_suture_s_detectors_first() -> None:
    ood = OOD(("relative", "mahalanobis"), own={"norm": Norm()})
    detection = Detection(ood, SitedNetwork(tiny.network(), tiny.images(4), ["block1"]), CPU, 8, 0, "", None)
    assert list(detection.make_fitter().statistics) == ["relative", "mahalanobis", "norm"]


def test_two_commands_that_write_one_store_leave_whole_detectors(tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    made = fit(Kept(), store=tmp_path)[0]
    path, = tmp_path.iterdir()

    class Absent(PosixPath):
        """A file that each command finds missing, and therefore writes."""

        def exists(self, **_: Any) -> bool:
            return False

    monkeypatch.setattr(detector_store, "Path", Absent)
    children = []
    for _ in range(2):
        children.append(os.fork())
        if not children[-1]:
            code = 1
            try:
                for _ in range(10):
                    fit(Kept(), store=tmp_path)
                code = 0
            finally:
                os._exit(code)
    while children:
        assert torch.equal(_load_state(path).tensors["typical"], made.typical)  # type: ignore[attr-defined]
        done, status = os.waitpid(-1, os.WNOHANG)
        if done:
            assert status == 0
            children.remove(done)
    assert [*tmp_path.iterdir()] == [path]
