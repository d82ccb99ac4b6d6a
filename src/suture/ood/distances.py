"""Detectors by distance: Mahalanobis distances to class means, and the distance to near neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from suture._base import exact_products, expect
from suture.numbers import SAMPLE_ROWS, Reservoir, ShiftedSums, eigh
from suture.ood.detector import Detector, NativeSite
from suture.ood.features import SiteFeatures, limit_spread

LEAST_FEATURE_STD = 1e-3
"""Smallest standard deviation of a feature, relative to the root mean square of all. With it, a channel that
is constant on native data reveals stitched representations that vary there, but not rounding."""
ROUNDING = 1e-6
"""Variance of a constant in float32 products, relative to the variance of all data."""


class Gaussians(NamedTuple):
    """Normal distributions with a shared covariance, in coordinates where it is the identity.

    `origin` (F,) is subtracted from features (N, F), which are then multiplied by `whiten` (F, F). `centres`
    (K, F) are the means in these coordinates.
    """

    origin: Tensor
    whiten: Tensor
    centres: Tensor

    @exact_products()
    def square_distances(self, features: Tensor) -> Tensor:
        """Return the squared Mahalanobis distances (N, K) of features (N, F) to each centre."""
        # The rows are centred and white, so the matrix product loses no significant digits.
        found: Tensor = torch.cdist((features - self.origin) @ self.whiten, self.centres,
                                    compute_mode="use_mm_for_euclid_dist").square()
        return found


def fit_gaussians(means: Tensor, covariance: Tensor, n: int,
                  total: Tensor | None = None) -> tuple[Gaussians, float]:
    """Return the Gaussians of means (K, F) and a covariance (F, F), and the shrinkage of its correlations.

    Correlations are shrunk towards the identity by the oracle approximating formula (Chen et al. 2010,
    equation 23; `sklearn.covariance.oas`), so there may be fewer examples (`n`) than features. Variances
    below `ROUNDING` of those of all data, `total` (F,), are raised to it.
    """
    least = torch.zeros_like(covariance.diagonal()) if total is None else ROUNDING * total.clamp(min=0)
    variance = covariance.diagonal().maximum(least)
    covariance = covariance + (variance - covariance.diagonal()).diag()
    spread = limit_spread(variance.sqrt(), LEAST_FEATURE_STD)
    correlation = covariance / torch.outer(spread, spread)
    rho = compute_shrinkage(correlation, n)
    level = float(torch.trace(correlation)) / len(spread)
    identity = torch.eye(len(spread), dtype=correlation.dtype)
    values, vectors = eigh((1 - rho) * correlation + rho * (level or 1.0) * identity)
    values = values.clamp(min=LEAST_FEATURE_STD**2 * max(float(values[-1]), 1e-300))
    whiten = (vectors / values.sqrt()) / spread[:, None]
    origin = means.mean(0)
    return Gaussians(origin.float(), whiten.float(), ((means - origin) @ whiten).float()), rho


def compute_shrinkage(covariance: Tensor, n: int) -> float:
    """Return the share of the identity in the shrinkage of a covariance (p, p) of `n` examples.

    The identity is scaled to the mean variance.
    """
    p = len(covariance)
    alpha, level = float(covariance.square().mean()), float(torch.trace(covariance)) / p
    bottom = (n + 1) * (alpha - level**2 / p)
    return 1.0 if bottom <= 0 else min(1.0, (alpha + level**2) / bottom)


class Mahalanobis(Detector):
    """Minus the smallest squared Mahalanobis distance to a class mean, with one covariance for all classes.

    All data are one class if they have no classes, or if no class has a spread (`classless`, for example with
    one example of each). `shrinkage` is the share of the identity in the correlations.
    """

    about = ("Minus the squared Mahalanobis distance to the nearest class mean (Lee et al. 2018) of mean and "
             "standard deviation over positions.")
    origin: Tensor
    whiten: Tensor
    centres: Tensor
    shrinkage: float
    counts: list[int]
    classless: bool

    @staticmethod
    def make_statistics(seed: int) -> ShiftedSums:
        return ShiftedSums()

    def fit(self, native: NativeSite) -> Self:
        sums: ShiftedSums = native.statistics
        expect(sums.n >= 2, "at least two examples to fit a Mahalanobis detector", str(sums.n),
               "give more data")
        return self._fit_sums(sums, *sums.compute_overall())

    def _fit_sums(self, sums: ShiftedSums, mean: Tensor, overall: Tensor) -> Self:
        """Fit to the sums by class, with the mean (1, F) and covariance (F, F) of all data."""
        (means, within), total = sums.compute_within(), overall.diagonal()
        classless = float(torch.trace(within)) <= ROUNDING * float(total.sum())
        found, shrinkage = (fit_gaussians(mean, overall, sums.n - 1, total) if classless else
                            fit_gaussians(means, within, max(1, sums.n - len(means)), total))
        return self.copy_with(**found._asdict(), shrinkage=shrinkage, classless=classless,
                              counts=sums.counts.int().tolist())

    def score(self, seen: SiteFeatures) -> Tensor:
        classes = Gaussians(self.origin, self.whiten, self.centres)
        return -classes.square_distances(seen.spread).amin(1)

    def describe_fit(self, fitted: Sequence[Self]) -> list[str]:
        counts, most = fitted[0].counts, max(d.shrinkage for d in fitted)
        few = sum(c < 2 for c in counts)
        if len(counts) > 1 and any(d.classless for d in fitted):
            return ["the data do not show how a class spreads (one example of each, or all alike): "
                    f"Mahalanobis detectors take all {sum(counts)} examples for one class, with correlations "
                    f"shrunk by up to {most:.0%}"]
        if few and len(counts) > 1:
            return [f"{few} of {len(counts)} classes have fewer than two examples in the data: Mahalanobis "
                    "detectors share one covariance, shrunk towards uncorrelated features by up to "
                    f"{most:.0%}"]
        return [] if most < 0.5 else ["few examples for the number of features: correlations in Mahalanobis "
                                      f"detectors are shrunk by up to {most:.0%}"]


class Relative(Mahalanobis):
    """The score of `Mahalanobis` plus the squared distance to the Gaussian of all data.

    That Gaussian has its own covariance.
    """

    about = ("Minus the squared Mahalanobis distance to the nearest class mean, plus the distance under the "
             "Gaussian of all data (Ren et al. 2021), of mean and standard deviation over positions.")
    needs_labels = True
    background_origin: Tensor
    background_whiten: Tensor
    background_centres: Tensor

    def _fit_sums(self, sums: ShiftedSums, mean: Tensor, overall: Tensor) -> Self:
        expect(len(sums.counts) != 1, "at least two classes for relative Mahalanobis distances", "one",
               "use the detector mahalanobis")
        made = super()._fit_sums(sums, mean, overall)
        found, _ = fit_gaussians(mean, overall, sums.n - 1, overall.diagonal())
        return made.copy_with(**{f"background_{name}": t for name, t in found._asdict().items()})

    def score(self, seen: SiteFeatures) -> Tensor:
        every = Gaussians(self.background_origin, self.background_whiten, self.background_centres)
        return every.square_distances(seen.spread)[:, 0] + super().score(seen)


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

    @staticmethod
    def make_statistics(seed: int) -> FeatureSample:
        return FeatureSample(seed)

    def fit(self, native: NativeSite) -> Self:
        rows: Tensor = native.statistics.rows
        expect(len(rows) > self.k, f"more than {self.k} native examples for nearest neighbours",
               str(len(rows)), "give more data")
        origin, scale = rows.mean(0), limit_spread(rows.std(0, correction=0), LEAST_FEATURE_STD)
        return self.copy_with(sample=(rows - origin) / scale, origin=origin, scale=scale)

    @exact_products()
    def score(self, seen: SiteFeatures) -> Tensor:
        z = (seen.spread - self.origin) / self.scale
        return -torch.cdist(z, self.sample).kthvalue(self.k, dim=1).values
