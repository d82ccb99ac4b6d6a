"""Energy detectors on maps and texts: channels where they are, positions that do not count."""

from __future__ import annotations

import torch

from suture import EnergyRecipe
from suture.ood import SiteFeatures
from suture.ood.energy_classifier import EnergyClassifier
from suture.representations import Kind, Shape


def test_energy_detectors_take_the_channels_where_they_are() -> None:
    shapes = Shape(Kind.MAP, 6, (4, 4)), Shape(Kind.MAP, 6, (4, 4), last=True)
    one, other = (EnergyClassifier(s, 3, EnergyRecipe(), (8, 8), "site") for s in shapes)
    x = torch.randn(5, 6, 4, 4)
    for d in (one, other):
        d.mean.copy_(torch.arange(6.0))
    torch.testing.assert_close(one.score(SiteFeatures(x, shapes[0])),
                               other.score(SiteFeatures(x.permute(0, 2, 3, 1).contiguous(), shapes[1])))


def test_energy_detectors_of_texts_know_no_positions() -> None:
    shape = Shape(Kind.TOKENS, 6, (8,), varies=True)
    detector = EnergyClassifier(shape, 3, EnergyRecipe(), None, "site")
    x = torch.randn(5, 12, 6)
    mask = torch.arange(12) < torch.tensor([1, 3, 5, 2, 4])[:, None]
    score = detector.score(SiteFeatures(x, shape, mask))
    torch.testing.assert_close(score, detector.score(SiteFeatures(x[:, :5], shape, mask[:, :5])))
    order = torch.tensor([4, 2, 0, 1, 3])
    torch.testing.assert_close(score[2:3], detector.score(SiteFeatures(x[2:3, order], shape)))
