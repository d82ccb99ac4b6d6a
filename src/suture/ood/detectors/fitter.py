"""The fit of all detectors that need no training, in one pass over native representations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from suture.ood.detectors.mahalanobis import ClassMoments, FeatureKind, Mahalanobis, select_features
from suture.ood.detectors.nearest_neighbours import FeatureSample, Neighbours
from suture.ood.detectors.registry import DETECTORS
from suture.ood.detectors.site_features import Detector, SiteFeatures
from suture.representations import Shape

CPU = torch.device("cpu")


@dataclass
class _SiteFit:
    shape: Shape
    moments: dict[FeatureKind, ClassMoments]
    sample: FeatureSample | None


@dataclass
class DetectorFitter:
    """A fitter that gets native representations batch by batch and makes the detectors of each site.

    Args:
        names: of detectors. Those that need training are skipped.
        shapes: of the sites.
        seed: of the sample for nearest neighbours.

    Attributes:
        notes: sentences for the reader of the scores.
    """

    names: Sequence[str]
    shapes: Sequence[Shape]
    seed: int = 0
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        wanted = {f for n in self.names if (f := DETECTORS[n].features) is not None}
        self._sites = [_SiteFit(shape, {f: ClassMoments() for f in sorted(wanted)},
                                FeatureSample(seed=self.seed) if "neighbours" in self.names else None)
                       for shape in self.shapes]

    @property
    def needed(self) -> bool:
        """True if any detector needs the representations."""
        return any(s.moments or s.sample for s in self._sites)

    @torch.no_grad()
    def update(self, xs: Sequence[Tensor], labels: Tensor | None, mask: Tensor | None = None) -> None:
        """Add the representations of a batch, one tensor for each site."""
        if not self.needed:
            return
        classes = (labels if labels is not None and not labels.is_floating_point()
                   and labels.ndim == 1 else None)
        for x, site in zip(xs, self._sites, strict=True):
            seen = SiteFeatures(x, site.shape, mask)
            for features, moments in site.moments.items():
                rows, counted = select_features(seen, features)
                moments.update(rows, classes, counted)
            if site.sample is not None:
                site.sample.update(seen.spread)

    def make_detectors(self, device: torch.device = CPU) -> dict[str, list[Detector]]:
        """Return the detectors by name, one for each site, on a device.

        Raises:
            SutureError: too few examples or classes for one of them.
        """
        found: dict[str, list[Detector]] = {}
        for name in self.names:
            entry = DETECTORS[name]
            if entry.features is not None:
                found[name] = [Mahalanobis.fit(s.moments[entry.features], entry.features,
                                               relative=entry.relative).to(device) for s in self._sites]
            elif name == "neighbours":
                found[name] = [Neighbours.fit(s.sample.rows).to(device) for s in self._sites
                               if s.sample is not None]
        self.notes = self._describe_fit(found)
        return found

    def _describe_fit(self, found: dict[str, list[Detector]]) -> list[str]:
        fitted = [d.classes.shrinkage for ds in found.values() for d in ds if isinstance(d, Mahalanobis)]
        if not fitted:
            return []
        counts = next(iter(self._sites[0].moments.values())).counts
        few = sum(c < 2 for c in counts)
        notes = []
        if (len(counts) > 1
            and any(d.classless for ds in found.values() for d in ds if isinstance(d, Mahalanobis))):
            notes.append("the data do not show how a class spreads (one example of each, or all alike): "
                         f"Mahalanobis detectors take all {sum(counts)} examples for one class, with "
                         f"correlations shrunk by up to {max(fitted):.0%}")
        elif few and len(counts) > 1:
            notes.append(f"{few} of {len(counts)} classes have fewer than two examples in the data: "
                         "Mahalanobis detectors share one covariance, shrunk towards uncorrelated features "
                         f"by up to {max(fitted):.0%}")
        elif max(fitted) >= 0.5:
            notes.append("few examples for the number of features: correlations in Mahalanobis detectors are "
                         f"shrunk by up to {max(fitted):.0%}")
        return notes
