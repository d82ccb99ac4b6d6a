"""The options of `suture.validate`: those of a study, and the measures and tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, PlainValidator, SkipValidation
from typing_extensions import Doc

from suture._base import Count, expect, keep_parts, make_unknown_error, options
from suture.compare import Settings
from suture.ood import OOD
from suture.studies.measure_tests.battery.control_tests import CONTROLS
from suture.studies.network_study.options import StudyOptions

_BY_MEASURES = ("methods", "indices", "pairs")
"""Options of a study that the measures decide."""


def _read_names(given: Any) -> Any:
    """Return names as a tuple; a text holds several, separated by commas, or none."""
    if given is None:
        return None
    if isinstance(given, str):
        found = [name.strip() for name in given.split(",") if name.strip()]
        return () if found == ["none"] else tuple(found)
    return keep_parts(given)


@options
class ValidateOptions(StudyOptions):
    """Arguments of `suture.validate`: the population, the measures and the tests."""

    measures: Annotated[Any, PlainValidator(keep_parts), Doc(
        "Measures to test: names such as cka, pwcca@pool or dm.relative_accuracy, your functions of two "
        "matrices or of moments (`suture.indices.own`), or of a cell (`suture.studies.of_cell`). They decide "
        "methods, indices and pairs.")] = ("cka", "pwcca", "opd", "dm.relative_accuracy", "dm.residual")
    layers: Annotated[Any, SkipValidation, Doc(
        "Which layers correspond: {network: [sites]}, first with first, or transport:MEASURE to match them "
        "to those of the first network. None: those of the same name.")] = None
    function: Annotated[Mapping[str, Any] | None, SkipValidation, Doc(
        "What each network is able to do, by name: a number, or one for each layer, such as accuracies of "
        "probes. None: accuracies on the test data.")] = None
    by: Annotated[Sequence[str] | None, PlainValidator(_read_names), Doc(
        "Columns of `about` whose groups of networks should be nearer to each other, such as the share of "
        "random labels. None: none.")] = None
    controls: Annotated[Sequence[str], PlainValidator(_read_names), Doc(
        f"Negative controls: {', '.join(CONTROLS)}. ``()``: none.")] = tuple(CONTROLS)
    control_targets: Annotated[Count, Doc(
        "Number of networks that each control is compared with.")] = 2
    sensitivity: Annotated[bool, Doc(
        "Also cut representations to their first principal components (`suture.sensitivity`), which takes a "
        "pass with probes for each network.")] = False
    ood: Annotated[OOD | Iterable[str] | str | None, PlainValidator(keep_parts), Doc(
        "As in `suture.compare`, for marks that rest on natural ranges. None: none.")] = Field(
        default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in _BY_MEASURES:
            usual = (Settings if name != "pairs" else StudyOptions).__dataclass_fields__[name].default
            expect(getattr(self, name) == usual, "measures, which decide what is computed", f"{name}=",
                   "write measures=['cka', 'dm.relative_accuracy']")
        for name in self.controls:
            if not isinstance(name, str) or name not in CONTROLS:
                raise make_unknown_error("negative control", str(name), CONTROLS)
