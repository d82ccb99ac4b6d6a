"""How out-of-distribution scores are made: what to detect with, and what on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from suture._base import SutureError
from suture.numbers import DETECTOR_NAME
from suture.ood.detectors import registry as table
from suture.ood.detectors.energy_detector import EnergyRecipe
from suture.ood.thresholds import Thresholds


@dataclass(frozen=True)
class OOD:
    """How out-of-distribution scores are made: which detectors, and what tells whether they see anything.

    >>> suture.compare(network, data=train, test=test, ood=suture.OOD(detectors=("mahalanobis", "energy")))

    Attributes:
        detectors: names of `suture.ood.detectors.registry.DETECTORS`. Default: "mahalanobis". The first one
            gives the verdict of a cell. Without any, Fréchet distances alone are there.
        own: detectors of yours by name: a function of a batch of representations that returns (N,) scores,
            larger = more in-distribution, or such functions by target site.
        auxiliary: out-of-distribution inputs for the target network: data as `suture.compare` takes them
            (labels are passed over), or inputs as the network takes them. Default: made from the data
            (`suture.data.auxiliary`), where these are images or token ids.
        unseen: likewise, of another kind, that no detector is trained on. Default: made from the data by
            other makers where `auxiliary` is made too, else none.
        most: read, or make, at most so many auxiliary examples. Default 10,000.
        energy: recipe of the detector "energy". Default: `EnergyRecipe()`.
        store: folder in which trained detectors are kept and found again by what they were trained on.
            Default: none.
        thresholds: of the verdict (`suture.ood.Thresholds`).

    Raises:
        SutureError: an unknown detector, or one of your own with the name of suture's.
    """

    detectors: Iterable[str] | str = table.DEFAULT_DETECTORS
    own: table.UserDetectors = field(default_factory=dict)
    auxiliary: Any = None
    unseen: Any = None
    most: int = 10_000
    energy: EnergyRecipe | None = None
    store: Any = None
    thresholds: Thresholds = field(default_factory=Thresholds)

    def __post_init__(self) -> None:
        object.__setattr__(self, "detectors", table.choose_detectors(self.detectors))
        for name, kind in (("own", Mapping), ("thresholds", Thresholds), ("energy", EnergyRecipe | None),
                           ("most", int)):
            given = getattr(self, name)
            if not isinstance(given, kind) or isinstance(given, bool):
                raise SutureError(f"expected {name} as {_EXPECTED[name]}, got {given!r}; leave it "
                                  "out for the default")
        for name in self.own:
            if name in table.DETECTORS or not DETECTOR_NAME.fullmatch(str(name)):
                raise SutureError("expected a name of its own for your detector, of ASCII letters, digits "
                                  f"and _, a letter first, got {name!r}")
        if self.most < 1:
            raise SutureError(f"expected most of at least 1, got {self.most}; leave it out for 10,000")

    @property
    def names(self) -> tuple[str, ...]:
        """Of all detectors, suture's first."""
        return (*self.detectors, *self.own)

    def settings(self) -> dict[str, Any]:
        """What decides the numbers, for the record."""
        recipe = asdict(self.energy or EnergyRecipe()) if "energy" in self.names else None
        return {"detectors": list(self.names), "energy": recipe, "thresholds": asdict(self.thresholds),
                "auxiliary": "made" if self.auxiliary is None else "given",
                "unseen": "made" if self.unseen is None else "given", "most": self.most}


_EXPECTED = {"own": "a mapping from names to functions", "thresholds": "suture.Thresholds(...)",
             "energy": "suture.EnergyRecipe(...)", "most": "a whole number"}
DEFAULT_OOD = OOD()
