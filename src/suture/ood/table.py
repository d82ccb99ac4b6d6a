"""The detectors by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from suture._base import expect, make_unknown_error
from suture.ood.detector import Detector
from suture.ood.detectors.energy import Energy
from suture.ood.detectors.mahalanobis import Mahalanobis, Relative
from suture.ood.detectors.neighbours import Neighbours
from suture.ood.detectors.tail_energy import TailEnergy
from suture.ood.detectors.two_sample import TwoSample

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


def choose_detectors(names: Iterable[str] | str) -> tuple[str, ...]:
    """Return the names, each once; a name that is not in `DETECTORS` raises a `SutureError`."""
    expect(isinstance(names, Iterable), "names of detectors", names, "write detectors=() for none")
    given = tuple(dict.fromkeys([names] if isinstance(names, str) else names))
    for name in given:
        if name not in DETECTORS:
            raise make_unknown_error("detector", str(name), DETECTORS,
                                     "or pass your own: ood=suture.OOD(own={name: function})")
    return given
