"""The laws of detectors hold for suture's own and find wrong ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from suture import testing
from suture.ood import DETECTORS, Detector, FeatureSample, SiteFeatures


@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_keeps_its_laws(name: str) -> None:
    testing.verify(testing.detector_laws(DETECTORS[name]))


class Near(Detector):
    """Minus the distance from the mean; the base of the wrong ones."""

    def make_statistics(self, seed: int) -> FeatureSample:
        return FeatureSample(seed=seed)

    def fit(self, native: Any) -> Any:
        return self.copy_with(centre=native.statistics.rows.mean(0))

    def score(self, seen: SiteFeatures) -> Tensor:
        distance: Tensor = -torch.linalg.vector_norm(seen.spread - vars(self)["centre"], dim=1)
        return distance


class Turned(Near):
    def score(self, seen: SiteFeatures) -> Tensor:
        return -super().score(seen)


class Summed(Near):
    def score(self, seen: SiteFeatures) -> Tensor:
        return super().score(seen).sum()[None]


class Batched(Near):
    def score(self, seen: SiteFeatures) -> Tensor:
        return super().score(seen) - seen.spread.mean()


class Noisy(Near):
    def score(self, seen: SiteFeatures) -> Tensor:
        return super().score(seen) + torch.randn(len(seen.x))


class Stateful(Near):
    def fit_sites(self, natives: Any) -> Any:
        vars(self)["centre"] = natives[0].statistics.rows.mean(0)
        return [self for _ in natives]


class Forgetful(Near):
    def get_state(self) -> dict[str, Tensor]:
        return {"centre": torch.zeros_like(vars(self)["centre"])}


class Demanding(Near):
    needs_labels = True


def test_the_base_of_the_wrong_ones_is_right() -> None:
    testing.verify(testing.detector_laws(Near()))


@pytest.mark.parametrize(("detector", "law"), [
    (Turned(), "direction"), (Summed(), "scores"), (Batched(), "batches"), (Noisy(), "same seed"),
    (Stateful(), "own state"), (Forgetful(), "saving"), (Demanding(), "needs labels"),
])
def test_a_wrong_detector_is_found(detector: Detector, law: str) -> None:
    with pytest.raises(AssertionError) as found:
        testing.verify(testing.detector_laws(detector))
    assert any(line.startswith(f"{law}: ") for line in str(found.value).splitlines())
