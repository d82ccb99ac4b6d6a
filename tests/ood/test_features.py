"""What detectors see of a site."""

from __future__ import annotations

import pytest
import torch

from suture.ood import SiteFeatures
from suture.representations import Kind, Shape


@pytest.mark.parametrize("features", ["mean", "spread"])
def test_what_detectors_see_of_a_text_does_not_depend_on_its_padding(features: str) -> None:
    x = torch.randn(5, 8, 6)
    mask = torch.arange(8) < torch.tensor([1, 3, 5, 2, 4])[:, None]
    shape = Shape(Kind.TOKENS, 6, (8,), varies=True)
    full, cut = SiteFeatures(x, shape, mask), SiteFeatures(x[:, :5], shape, mask[:, :5])
    torch.testing.assert_close(getattr(full, features), getattr(cut, features))
    one = SiteFeatures(x[:1, :1], shape, mask[:1, :1])
    torch.testing.assert_close(getattr(one, features), getattr(full, features)[:1])
