"""The detectors by name, and users' functions as detectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from suture._base import (
    FOREIGN,
    SutureError,
    describe_value,
    expect,
    make_unknown_error,
    show_value,
    summarise_error,
)
from suture.networks import Site, freeze
from suture.ood.detector import Detector, NativeSite
from suture.ood.distances import Mahalanobis, Neighbours, Relative
from suture.ood.energy import Energy, TailEnergy
from suture.ood.features import SiteFeatures
from suture.ood.two_sample import TwoSample

DETECTORS: Mapping[str, Detector] = MappingProxyType({
    "mahalanobis": Mahalanobis(),
    "relative": Relative(),
    "neighbours": Neighbours(),
    "tail_energy": TailEnergy(),
    "two_sample": TwoSample(),
    "energy": Energy(),
})
"""Every detector by name. The first is the default."""
DEFAULT_DETECTORS = ("mahalanobis",)
ScoreFunction = Callable[[Tensor], Tensor]
"""A user's function from a batch of representations to scores (N,), larger = more in-distribution."""
OwnDetector = Detector | ScoreFunction | Mapping[str | Site, ScoreFunction]
"""A user's detector, a function for all sites, or a function for each target site."""
_DIVERGED = 1e15


def choose_detectors(names: Iterable[str] | str) -> tuple[str, ...]:
    """Return the names, each once; a name that is not in `DETECTORS` raises a `SutureError`."""
    expect(isinstance(names, Iterable), "names of detectors", names, "write detectors=() for none")
    listed = [names] if isinstance(names, str) else list(names)
    odd = next((name for name in listed if not isinstance(name, str)), None)
    expect(odd is None, "names of detectors", show_value(odd), "write detectors=() for none")
    given = tuple(dict.fromkeys(listed))
    for name in given:
        if name not in DETECTORS:
            raise make_unknown_error("detector", name, DETECTORS,
                                     "or pass your own: ood=suture.OOD(own={name: function})")
    return given


class FunctionDetector(Detector):
    """A user's function as a detector, with checks of its scores."""

    about = "A function of the user."

    def __init__(self, name: str, given: Any, site: str = "") -> None:
        self.name, self.given, self.site = name, given, site

    def fit(self, native: NativeSite) -> FunctionDetector:
        function = self.given
        if isinstance(function, Mapping | nn.ModuleDict):
            function = {str(site): f for site, f in function.items()}.get(native.name)
            expect(function is not None, f"the detector {self.name!r} for every target site",
                   f"none for {native.name!r}", "pass a function for each, or one function for all")
        return FunctionDetector(self.name, function, native.name)

    def score(self, seen: SiteFeatures) -> Tensor:
        """Return the scores (N,) float32; errors of the function become a `SutureError`."""
        found, where = self._call(seen.x), f"the detector {self.name!r} at site {self.site!r}"
        expect(isinstance(found, Tensor) and found.shape == (len(seen.x),),
               f"scores of shape ({len(seen.x)},) from {where}", describe_value(found),
               "return one number for each example")
        # NaN is allowed on the output of a layer that diverged: that cell has no value, and the others
        # continue.
        usual = seen.x.float().flatten(1).abs().amax(1) < _DIVERGED
        expect(not bool((found.isnan() & usual).any()), f"numbers from {where}",
               f"NaN for {int(found.isnan().sum())} of {len(found)} examples", "correct it, or leave it out")
        scores: Tensor = found.detach().float()
        return scores

    def _call(self, x: Tensor) -> Any:
        try:
            if not isinstance(self.given, nn.Module):
                return self.given(x)
            with freeze(self.given):
                return self.given(x)
        except SutureError:
            raise
        except FOREIGN as e:  # user code may raise anything
            raise SutureError(f"the detector {self.name!r} fails at site {self.site!r} on shape "
                              f"{tuple(x.shape)}: {type(e).__name__}: {summarise_error(e)}") from e
