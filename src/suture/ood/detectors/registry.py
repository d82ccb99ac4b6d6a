"""The detectors by name, with their definitions and features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from suture._base import SutureError, make_unknown_error, summarise_error
from suture.networks import Site, freeze
from suture.ood.detectors.mahalanobis import FeatureKind
from suture.ood.detectors.site_features import SiteFeatures


@dataclass(frozen=True)
class DetectorEntry:
    """A detector by name.

    Attributes:
        name: as in ``detectors=("mahalanobis",)``.
        about: one sentence: definition and source.
        features: of a Mahalanobis detector: its features; None for the others.
        relative: subtract the distance under the Gaussian of all data.
    """

    name: str
    about: str
    features: FeatureKind | None = None
    relative: bool = False


_CLASS_DISTANCE = "Minus the squared Mahalanobis distance to the nearest class mean (Lee et al. 2018) of "
_RELATIVE_DISTANCE = ("The same minus the distance under the Gaussian of all data (relative Mahalanobis, Ren "
                      "et al. 2021), of ")
_FEATURE_WORDS: Mapping[FeatureKind, str] = {"mean": "the mean over positions",
                                             "position": "every position, averaged",
                                             "spread": "mean and standard deviation over positions"}
DETECTORS: Mapping[str, DetectorEntry] = {e.name: e for e in (
    DetectorEntry("mahalanobis", _CLASS_DISTANCE + _FEATURE_WORDS["spread"] + ".", "spread"),
    DetectorEntry("mahalanobis_mean", _CLASS_DISTANCE + _FEATURE_WORDS["mean"] + ".", "mean"),
    DetectorEntry("mahalanobis_position", _CLASS_DISTANCE + _FEATURE_WORDS["position"] + ".", "position"),
    DetectorEntry("relative", _RELATIVE_DISTANCE + _FEATURE_WORDS["spread"] + ".", "spread", relative=True),
    DetectorEntry("relative_mean", _RELATIVE_DISTANCE + _FEATURE_WORDS["mean"] + ".", "mean", relative=True),
    DetectorEntry("relative_position", _RELATIVE_DISTANCE + _FEATURE_WORDS["position"] + ".", "position",
                  relative=True),
    DetectorEntry("neighbours", "Minus the distance to the 10th nearest of 2,000 native examples, mean and "
                                "standard deviation over positions at unit variance (after "
                                "Sun et al. 2022)."),
    DetectorEntry("tail_energy", "Minus the energy of the target network's own logits, log sum exp, behind "
                                 "the site (Liu et al. 2020)."),
    DetectorEntry("two_sample", "Out-of-fold scores of a logistic regression between native and stitched "
                                "mean and standard deviation over positions, trained for each cell on the "
                                "test data themselves (Lopez-Paz and Oquab 2017)."),
    DetectorEntry("energy", "Minus the energy of a classifier that is trained on the representations of the "
                            "site, with an energy margin between native and auxiliary ones (Liu et al. 2020; "
                            "Balogh and Jelasity 2025)."),
)}
"""Every detector by name. The first is the default."""
DEFAULT_DETECTORS = ("mahalanobis",)
_DIVERGED = 1e15

ScoreFunction = Callable[[Tensor], Tensor]
"""A user's own detector: a batch of representations in, (N,) scores out, larger = more in-distribution."""
UserDetectors = Mapping[str, ScoreFunction | Mapping[str | Site, ScoreFunction]]
"""By name: one function for every site, or one for each target site."""


def choose_detectors(names: Iterable[str] | str) -> tuple[str, ...]:
    """Return the names, each once.

    Raises:
        SutureError: a name that is not in `DETECTORS`.
    """
    if not isinstance(names, Iterable):
        raise SutureError(f"expected names of detectors, got {names!r}; write detectors=() for none")
    given = tuple(dict.fromkeys([names] if isinstance(names, str) else names))
    for name in given:
        if name not in DETECTORS:
            raise make_unknown_error("detector", str(name), DETECTORS,
                                     "or pass your own: ood=suture.OOD(own={name: function})")
    return given


@dataclass(frozen=True)
class UserDetector:
    """A user's function as a detector.

    Attributes:
        name, site: for error messages.
        function: gets the representations as the site outputs them.
    """

    name: str
    site: str
    function: ScoreFunction

    def score(self, site_features: SiteFeatures) -> Tensor:
        """Return the scores (N,) float32.

        Raises:
            SutureError: a result that is not (N,) numbers, or NaN.
        """
        found = self._call_function(site_features.x)
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        if not isinstance(found, Tensor) or found.shape != (len(site_features.x),):
            raise SutureError(f"expected scores of shape ({len(site_features.x)},) from the detector "
                              f"{self.name!r} at site {self.site!r}, got {got}; return one number for each "
                              "example, larger = more in-distribution")
        # NaN is allowed on the output of a layer that diverged: that cell has no value, and the others
        # continue.
        usual = site_features.x.float().flatten(1).abs().amax(1) < _DIVERGED
        if (found.isnan() & usual).any():
            raise SutureError(f"expected numbers from the detector {self.name!r} at site {self.site!r}, got "
                              f"NaN for {int(found.isnan().sum())} of {len(found)} examples; mend it, or "
                              "leave it out")
        return found.detach().float()

    def _call_function(self, x: Tensor) -> Any:
        try:
            if not isinstance(self.function, nn.Module):
                return self.function(x)
            with freeze(self.function):
                return self.function(x)
        except SutureError:
            raise
        except Exception as e:  # user code may raise anything
            raise SutureError(f"the detector {self.name!r} fails at site {self.site!r} on representations of "
                              f"shape {tuple(x.shape)}: {type(e).__name__}: {summarise_error(e)}; mend it, "
                              "or leave it out") from e
