"""What a site is like: its spectrum and its channels."""

from __future__ import annotations

import torch

from suture.indices import SiteStatistics
from suture.numbers import Moments


def test_a_constant_site_has_no_spectrum() -> None:
    side = Moments.of(torch.full((9, 3), 7.0), torch.ones(9, 2)).x
    found = SiteStatistics.of(side)
    assert (found.n, found.width, found.dead, found.rank) == (9, 3, 3, 0)
    assert (found.effective_rank, found.participation_ratio) == (0, 0)
