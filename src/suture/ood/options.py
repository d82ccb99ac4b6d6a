"""The settings of natural ranges and OOD scores, and the threshold of a cell's verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, field, replace
from typing import Annotated, Any

from pydantic import Field, PlainValidator
from typing_extensions import Doc

from suture import zoo
from suture._base import Count, FilePath, Real, expect, hash_object, options
from suture.data import Examples, Prepared
from suture.numbers import DETECTOR_NAME
from suture.ood.detector import Detector
from suture.ood.energy_classifier import EnergyRecipe
from suture.ood.natural_range.shifts import Shift, check_shifts
from suture.ood.table import (
    DEFAULT_DETECTORS,
    DETECTORS,
    FunctionDetector,
    OwnDetector,
    choose_detectors,
)


@options
class Thresholds:
    """From where on a stitched network works. A value outside its range raises a `SutureError`.

    Attributes:
        {options}
    """

    works: Annotated[Real, Field(gt=0, le=1), Doc(
        "Smallest relative accuracy of a stitched network that works, in (0, 1]. Without labels it is the "
        "smallest agreement; without predictions, 1 - `works` is the largest relative error of the output.",
        )] = 0.8


def _check_own(own: Any) -> Mapping[str, OwnDetector]:
    expect(isinstance(own, Mapping), "own as a mapping from names to detectors or functions", own)
    for name in own:
        expect(name not in DETECTORS and DETECTOR_NAME.fullmatch(str(name)) is not None,
               "a name of its own for your detector, of ASCII letters, digits and _, a letter first",
               repr(name))
    return own  # type: ignore[no-any-return]


@options
class OOD:
    """Settings of what verdicts of cells rest on (natural range, threshold), and of detectors beside it.

    An unknown detector, or an own one with the name of one of suture's, raises a `SutureError`.

    >>> suture.compare(network, data=train, test=test, ood=suture.OOD(detectors=("mahalanobis", "energy")))

    Attributes:
        {options}
    """

    detectors: Annotated[Iterable[str] | str, PlainValidator(choose_detectors), Doc(
        "Names of detectors (`suture.ood.DETECTORS`), whose scores stand beside the natural distance. `()`: "
        "none.")] = DEFAULT_DETECTORS
    own: Annotated[Mapping[str, OwnDetector], PlainValidator(_check_own), Doc(
        "Your own detectors by name. Each is a `suture.ood.Detector`, a function from a batch of "
        "representations to (N,) scores, larger = more in-distribution, or a mapping from target sites to "
        "such functions.")] = field(default_factory=dict)
    auxiliary: Annotated[Any, Doc(
        "Auxiliary inputs that are out of distribution for the target network: data in any form of "
        "`suture.compare` (labels are ignored), or inputs of the network. Default: made from the data, if "
        "these are images or token ids. Raw examples (`suture.sources.open_auxiliary`) are prepared like the "
        "data, where these are `Prepared`.")] = None
    unseen: Annotated[Any, Doc(
        "Auxiliary inputs of another kind, on which no detector is trained. Default: made from the data by "
        "other makers if `auxiliary` is made too, else none.")] = None
    most: Annotated[Count, Doc(
        "Largest number of auxiliary examples to read or make.")] = 10_000
    energy: Annotated[EnergyRecipe | None, Doc(
        'Recipe of the detector "energy". Default: `EnergyRecipe()`.')] = None
    store: Annotated[FilePath | None, Doc(
        "Folder that keeps trained detectors. They are found again by what they were trained on.")] = None
    shifts: Annotated[Mapping[str, Shift], PlainValidator(check_shifts), Doc(
        "Your own label-preserving shifts by name: functions (inputs, severity, generator) that return "
        "shifted inputs, for severities in (0, 1]. They make a natural range of their own, beside the one "
        "of the built-in shifts.")] = field(default_factory=dict)
    range_examples: Annotated[Count, Doc(
        "Test examples, evenly spread, on which natural ranges and natural distances are measured.")] = 200
    thresholds: Annotated[Thresholds, Doc("From where on a cell works (`suture.Thresholds`).")] = field(
        default_factory=Thresholds)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all detectors, suture's first."""
        return (*self.detectors, *self.own)

    def list_detectors(self) -> dict[str, Detector]:
        """Return all detectors by name, suture's first."""
        return {name: DETECTORS[name] for name in self.detectors} | {
            name: given if isinstance(given, Detector) else FunctionDetector(name, given)
            for name, given in self.own.items()}

    def choose_recipe(self, seed: int) -> EnergyRecipe:
        """Return the recipe of trained detectors, in a comparison with this seed."""
        return self.energy or EnergyRecipe(seed=seed)

    def prepare_like(self, data: Any) -> OOD:
        """Return the settings with raw auxiliary examples prepared for both networks, as the data are."""
        if not isinstance(data, Prepared):
            return self

        def prepare(given: Any) -> Any:
            raw = isinstance(given, Examples | zoo.ImageSet)
            return Prepared(given, data.source, data.target) if raw else given

        return replace(self, auxiliary=prepare(self.auxiliary), unseen=prepare(self.unseen))

    def settings(self, seed: int = 0) -> dict[str, Any]:
        """Return the settings that decide the numbers in a comparison with this seed, for the record."""
        trained = any(d.needs_auxiliary for d in self.list_detectors().values())
        return {"detectors": list(self.names),
                "energy": asdict(self.choose_recipe(seed)) if trained else None,
                "thresholds": asdict(self.thresholds), "range_examples": self.range_examples,
                "shifts": {name: hash_object(shift).short for name, shift in self.shifts.items()},
                "auxiliary": "made" if self.auxiliary is None else "given",
                "unseen": "made" if self.unseen is None else "given", "most": self.most}


DEFAULT_OOD = OOD()
