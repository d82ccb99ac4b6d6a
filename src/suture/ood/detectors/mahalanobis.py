"""Mahalanobis detectors of a site, from class-wise moments of its features in one streaming pass."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from suture._base import SutureError
from suture.ood.detectors.site_features import SiteFeatures

FeatureKind = Literal["mean", "spread", "position"]
"""Features of a detector: the mean over positions, mean and standard deviation over positions, or every
position."""
LEAST_FEATURE_STD = 1e-3
"""Smallest standard deviation of a feature, relative to the root mean square of all. A channel that is
constant on native data then still reveals stitched representations that vary there, but rounding does not."""
ROUNDING = 1e-6
"""Variance, relative to that of all data, that float32 products show for a constant."""


def select_features(site_features: SiteFeatures, features: FeatureKind) -> tuple[Tensor, Tensor | None]:
    """Return the rows (N, P, F) of the features, and a mask (N, P) of unpadded rows (None: all).

    P is 1 unless the features are those of every position.
    """
    if features == "position":
        return site_features.rows, site_features.counted
    return (site_features.mean if features == "mean" else site_features.spread)[:, None], None


class ClassMoments:
    """Sums of rows by class, updated batch by batch.

    The float64 sums of float32 products are about the mean of the first batch.

    Attributes:
        examples: number of examples so far.
    """

    def __init__(self) -> None:
        self.examples = 0
        self._shift = self._gram = torch.zeros(0)
        self._totals = self._rows = self._counts = torch.zeros(0)
        self._classes: dict[int, int] = {}

    @torch.no_grad()
    def update(self, rows: Tensor, labels: Tensor | None, counted: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            rows: (N, P, F).
            labels: (N,) class numbers, any integers; None: one class for all.
            counted: (N, P) True for rows that are not padding; None: all.
        """
        n, p, width = rows.shape
        classes = torch.zeros(n, dtype=torch.int64) if labels is None else self._number_classes(labels)
        if not self.examples:
            mean = rows.mean((0, 1)) if counted is None else rows[counted].mean(0)
            self._shift = mean.nan_to_num()
            self._gram = torch.zeros(width, width, dtype=torch.float64)
            self._totals = torch.zeros(0, width, dtype=torch.float64)
            self._rows = self._counts = torch.zeros(0, dtype=torch.float64)
        centred = rows - self._shift
        if counted is not None:
            centred = centred * counted[..., None]
        flat = centred.flatten(0, 1)
        self._gram += (flat.T @ flat).cpu().double()
        self._add_classes(int(classes.max()) + 1)
        self._totals.index_add_(0, classes, centred.sum(1).cpu().double())
        each = torch.full((n,), float(p)) if counted is None else counted.sum(1).cpu()
        self._rows.index_add_(0, classes, each.double())
        self._counts.index_add_(0, classes, torch.ones(n, dtype=torch.float64))
        self.examples += n

    def _number_classes(self, labels: Tensor) -> Tensor:
        """Return the classes (N,), numbered by first appearance."""
        return torch.tensor([self._classes.setdefault(label, len(self._classes))
                             for label in labels.tolist()])

    def _add_classes(self, classes: int) -> None:
        more = classes - len(self._totals)
        if more > 0:
            self._totals = torch.cat([self._totals, self._totals.new_zeros(more, self._totals.shape[1])])
            self._rows = torch.cat([self._rows, self._rows.new_zeros(more)])
            self._counts = torch.cat([self._counts, self._counts.new_zeros(more)])

    @property
    def counts(self) -> list[int]:
        """Number of examples of each class that has any."""
        return [int(c) for c in self._counts if c > 0]

    def compute_within(self) -> tuple[Tensor, Tensor]:
        """Return the means (K, F) of the classes with examples, and the mean scatter (F, F) about them."""
        there = self._rows > 0
        totals, rows = self._totals[there], self._rows[there][:, None]
        means = totals / rows
        return means + self._shift.cpu().double(), (self._gram - totals.T @ means) / float(rows.sum())

    def compute_overall(self) -> tuple[Tensor, Tensor]:
        """Return the mean (1, F) of all rows, and the mean scatter (F, F) about it."""
        total, rows = self._totals.sum(0, keepdim=True), float(self._rows.sum())
        mean = total / rows
        return mean + self._shift.cpu().double(), (self._gram - total.T @ mean) / rows


@dataclass(frozen=True)
class Gaussians:
    """Normal distributions with a shared covariance, in coordinates where it is the identity.

    Attributes:
        origin: (F,) is subtracted first.
        whiten: (F, F) matrix; centred features times it are white.
        centres: (K, F) means in these coordinates.
        shrinkage: share of the identity in the correlations, between 0 and 1.
    """

    origin: Tensor
    whiten: Tensor
    centres: Tensor
    shrinkage: float

    @classmethod
    def of(cls, means: Tensor, covariance: Tensor, n: int, total: Tensor | None = None) -> Gaussians:
        """Return the Gaussians of means (K, F) and a covariance (F, F), both float64, of `n` examples.

        The examples are independent. Features are scaled to unit variance. Their correlations are shrunk
        towards the identity by the oracle approximating formula (Chen et al. 2010, equation 23; as
        `sklearn.covariance.oas`). Fewer examples than features are therefore no problem.

        `total` (F,) are variances of all data. A variance below `ROUNDING` of them is rounding, and is raised
        to it.
        """
        least = torch.zeros_like(covariance.diagonal()) if total is None else ROUNDING * total.clamp(min=0)
        variance = covariance.diagonal().maximum(least)
        covariance = covariance + (variance - covariance.diagonal()).diag()
        spread = variance.sqrt()
        scale = float(spread.square().mean().sqrt())
        spread = spread.clamp(min=LEAST_FEATURE_STD * scale) if scale > 0 else torch.ones_like(spread)
        correlation = covariance / torch.outer(spread, spread)
        rho = oas(correlation, n)
        p = len(spread)
        level = float(torch.trace(correlation)) / p
        shrunk = (1 - rho) * correlation + rho * (level or 1.0) * torch.eye(p, dtype=correlation.dtype)
        values, vectors = torch.linalg.eigh(shrunk)
        values = values.clamp(min=LEAST_FEATURE_STD**2 * max(float(values[-1]), 1e-300))
        whiten = (vectors / values.sqrt()) / spread[:, None]
        origin = means.mean(0)
        return cls(origin.float(), whiten.float(), ((means - origin) @ whiten).float(), rho)

    def to(self, device: torch.device) -> Gaussians:
        """Return these Gaussians on a device."""
        return replace(self, origin=self.origin.to(device), whiten=self.whiten.to(device),
                       centres=self.centres.to(device))

    def square_distances(self, rows: Tensor, counted: Tensor | None) -> Tensor:
        """Return the squared Mahalanobis distances (N, K) to each centre.

        They are averaged over the rows (N, P, F) that are not padding.
        """
        z, centres = (rows - self.origin) @ self.whiten, self.centres
        if z.shape[1] == 1:
            return _square_distances(z[:, 0], centres)
        weight = z.new_full(z.shape[:2], 1 / z.shape[1])
        if counted is not None:
            weight = counted.to(z.dtype) / counted.sum(1, keepdim=True).clamp(min=1)
        mean = (z * weight[..., None]).sum(1)
        about = ((z - mean[:, None]).square().sum(2) * weight).sum(1, keepdim=True)
        return about + _square_distances(mean, centres)


def _square_distances(z: Tensor, centres: Tensor) -> Tensor:
    # The rows are centred and white, so the matrix product loses no significant digits.
    found: Tensor = torch.cdist(z, centres, compute_mode="use_mm_for_euclid_dist").square()
    return found


def oas(covariance: Tensor, n: int) -> float:
    """Return the share of the identity in the oracle approximating shrinkage of a covariance.

    `covariance` is (p, p), of `n` examples. The identity is scaled to its mean variance.
    """
    p = len(covariance)
    alpha, level = float(covariance.square().mean()), float(torch.trace(covariance)) / p
    bottom = (n + 1) * (alpha - level**2 / p)
    return 1.0 if bottom <= 0 else min(1.0, (alpha + level**2) / bottom)


@dataclass(frozen=True)
class Mahalanobis:
    """Minus the smallest squared Mahalanobis distance to a class mean (Lee et al. 2018), covariance shared.

    With `background`, the distance to the mean of all data, under their own covariance, is subtracted first.
    This is the relative Mahalanobis distance (Ren et al. 2021).

    Attributes:
        features: the features of a representation.
        classes: the Gaussians of the classes.
        background: the Gaussian of all data, or None.
        classless: True if the classes have no spread of their own, so that all data form one class.
    """

    features: FeatureKind
    classes: Gaussians
    background: Gaussians | None = None
    classless: bool = False

    @classmethod
    def fit(cls, moments: ClassMoments, features: FeatureKind, *, relative: bool = False) -> Mahalanobis:
        """Return the detector of a site from the moments of its features on native data.

        Raises:
            SutureError: fewer than two examples; a relative distance with one class, which would be zero
                everywhere.
        """
        if moments.examples < 2:
            raise SutureError("expected at least two examples to fit a Mahalanobis detector, got "
                              f"{moments.examples}; give more data")
        k = len(moments.counts)
        if relative and k < 2:
            raise SutureError("expected data of at least two classes for relative Mahalanobis distances, got "
                              "one; use the detector mahalanobis")
        (means, within), (mean, overall) = moments.compute_within(), moments.compute_overall()
        total = overall.diagonal()
        every = Gaussians.of(mean, overall, moments.examples - 1, total)
        if float(torch.trace(within)) <= ROUNDING * float(total.sum()):
            # The spread of a class is unknown, for example with one example of each class.
            return cls(features, every, every if relative else None, classless=True)
        own = Gaussians.of(means, within, max(1, moments.examples - k), total)
        return cls(features, own, every if relative else None)

    def to(self, device: torch.device) -> Mahalanobis:
        """Return this detector on a device."""
        background = None if self.background is None else self.background.to(device)
        return replace(self, classes=self.classes.to(device), background=background)

    def score(self, site_features: SiteFeatures) -> Tensor:
        """Return minus the (relative) squared distance (N,), larger = more in-distribution."""
        rows, counted = select_features(site_features, self.features)
        nearest = self.classes.square_distances(rows, counted).amin(1)
        return (-nearest if self.background is None
                else self.background.square_distances(rows, counted)[:, 0] - nearest)
