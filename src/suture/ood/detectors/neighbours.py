"""A detector by the distance to the nearest native representations."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from suture._base import expect
from suture.numbers import SAMPLE_ROWS, Reservoir
from suture.ood.detector import Detector, NativeSite
from suture.ood.detectors.mahalanobis import LEAST_FEATURE_STD
from suture.ood.features import SiteFeatures, limit_spread


class FeatureSample:
    """A uniform sample without replacement of at most `size` rows of a stream (`suture.numbers.Reservoir`).

    The cut of the stream into batches does not change it. `rows` are (M, F).
    """

    def __init__(self, seed: int = 0, size: int = SAMPLE_ROWS) -> None:
        self._reservoir = Reservoir(size, seed)
        self.rows = torch.zeros(0, 0)

    @torch.no_grad()
    def update(self, features: Tensor, labels: Tensor | None = None) -> None:
        """Add features (N, F)."""
        kept, slots = (torch.from_numpy(found) for found in self._reservoir.offer(len(features)))
        rows = features.float().cpu()
        empty = rows.new_zeros(len(self._reservoir.numbers) - len(self.rows), rows.shape[1])
        self.rows = torch.cat([self.rows, empty]) if len(self.rows) else empty
        self.rows[slots] = rows[kept]


class Neighbours(Detector):
    """Minus the distance to the `k`-th nearest of a sample (M, F) of native features (Sun et al. 2022).

    Features are scaled to unit variance by `origin` and `scale` (F,). The paper scales each example to unit
    length, which would hide a shrunken representation.
    """

    about = ("Minus the distance to the 10th nearest of 2,000 native examples, mean and standard deviation "
             "over positions at unit variance (after Sun et al. 2022).")
    sample: Tensor
    origin: Tensor
    scale: Tensor

    def __init__(self, k: int = 10) -> None:
        self.k = k

    def make_statistics(self, seed: int) -> FeatureSample:
        return FeatureSample(seed)

    def fit(self, native: NativeSite) -> Self:
        rows: Tensor = native.statistics.rows
        expect(len(rows) > self.k, f"more than {self.k} native examples for nearest neighbours",
               str(len(rows)), "give more data")
        origin, scale = rows.mean(0), limit_spread(rows.std(0, correction=0), LEAST_FEATURE_STD)
        return self.copy_with(sample=(rows - origin) / scale, origin=origin, scale=scale)

    def score(self, seen: SiteFeatures) -> Tensor:
        z = (seen.spread - self.origin) / self.scale
        return -torch.cdist(z, self.sample).kthvalue(self.k, dim=1).values
