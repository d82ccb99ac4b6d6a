"""A detector by the distance to the nearest native representations, from a sample of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from suture._base import SutureError
from suture.ood.detectors.mahalanobis import LEAST_FEATURE_STD
from suture.ood.detectors.site_features import SiteFeatures

SAMPLE_SIZE = 2000
"""Native examples whose features are kept."""
NEIGHBOUR = 10
"""Rank of the neighbour whose distance is used."""


class FeatureSample:
    """A uniform sample without replacement of the rows of a stream.

    The same stream and seed give the same sample.

    Args:
        size: most rows kept.
        seed: of the draw, which does not depend on the cut into batches.
    """

    def __init__(self, size: int = SAMPLE_SIZE, seed: int = 0) -> None:
        self._size, self._generator = size, torch.Generator().manual_seed(seed)
        self._keys, self.rows = torch.zeros(0), torch.zeros(0)

    @torch.no_grad()
    def update(self, rows: Tensor) -> None:
        """Add rows (N, F)."""
        # Each row gets a random key, and the rows with the largest keys stay.
        keys = torch.rand(len(rows), generator=self._generator, dtype=torch.float64)
        rows = rows.float().cpu()
        self._keys = torch.cat([self._keys.double(), keys])
        self.rows = torch.cat([self.rows, rows]) if len(self.rows) else rows
        if len(self._keys) > self._size:
            best = self._keys.topk(self._size).indices
            self._keys, self.rows = self._keys[best], self.rows[best]


@dataclass(frozen=True)
class Neighbours:
    """Minus the distance to the `k`-th nearest of a sample of native features (Sun et al. 2022).

    Features are mean and standard deviation over positions, scaled to unit variance. The paper scales them to
    unit length instead, which would hide a shrunken representation.

    Attributes:
        sample: (M, F) native features at unit variance.
        origin, scale: (F,) of the features before this scaling.
        k: rank of the neighbour.
    """

    sample: Tensor
    origin: Tensor
    scale: Tensor
    k: int = NEIGHBOUR

    @classmethod
    def fit(cls, rows: Tensor, k: int = NEIGHBOUR) -> Neighbours:
        """Return the detector of native features (M, F).

        Raises:
            SutureError: not more examples than `k`.
        """
        if len(rows) <= k:
            raise SutureError(f"expected more than {k} native examples for nearest neighbours, got "
                              f"{len(rows)}; give more data")
        spread = rows.std(0, correction=0)
        level = float(spread.square().mean().sqrt())
        scale = spread.clamp(min=LEAST_FEATURE_STD * level) if level > 0 else torch.ones_like(spread)
        origin = rows.mean(0)
        return cls((rows - origin) / scale, origin, scale, k)

    def to(self, device: torch.device) -> Neighbours:
        """Return this detector on a device."""
        return replace(self, sample=self.sample.to(device), origin=self.origin.to(device),
                       scale=self.scale.to(device))

    def score(self, site_features: SiteFeatures) -> Tensor:
        """Return minus the distance (N,), larger = more in-distribution."""
        x = site_features.spread
        z = (x - self.origin) / self.scale
        return -torch.cdist(z, self.sample).kthvalue(self.k, dim=1).values
