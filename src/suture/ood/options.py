"""The settings of out-of-distribution scores."""

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
    """Settings of out-of-distribution scores: the detectors, and the data that measure their quality.

    >>> suture.compare(network, data=train, test=test, ood=suture.OOD(detectors=("mahalanobis", "energy")))

    Attributes:
        detectors: names of `suture.ood.detectors.registry.DETECTORS`. Default: "mahalanobis". The first one
            gives the verdict of a cell. Without any, there are only Fréchet distances.
        own: your own detectors by name. Each is a function from a batch of representations to (N,) scores,
            larger = more in-distribution, or a mapping from target sites to such functions.
        auxiliary: out-of-distribution inputs for the target network: data in any form of `suture.compare`
            (labels are ignored), or inputs of the network. Default: made from the data
            (`suture.data.auxiliary`), if these are images or token ids.
        unseen: the same, of another kind that no detector is trained on. Default: made from the data by other
            makers if `auxiliary` is made too, else none.
        most: largest number of auxiliary examples to read or make. Default 10,000.
        energy: recipe of the detector "energy". Default: `EnergyRecipe()`.
        store: folder that keeps trained detectors. They are found again by what they were trained on.
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
        """Names of all detectors, suture's first."""
        return (*self.detectors, *self.own)

    def settings(self) -> dict[str, Any]:
        """Return the settings that decide the numbers, for the record."""
        recipe = asdict(self.energy or EnergyRecipe()) if "energy" in self.names else None
        return {"detectors": list(self.names), "energy": recipe, "thresholds": asdict(self.thresholds),
                "auxiliary": "made" if self.auxiliary is None else "given",
                "unseen": "made" if self.unseen is None else "given", "most": self.most}


_EXPECTED = {"own": "a mapping from names to functions", "thresholds": "suture.Thresholds(...)",
             "energy": "suture.EnergyRecipe(...)", "most": "a whole number"}
DEFAULT_OOD = OOD()
