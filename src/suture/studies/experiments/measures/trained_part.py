"""The networks of a part, trained, and what its file says to the experiment."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, TypeVar

from pydantic import InstanceOf, PlainValidator
from typing_extensions import Doc

from suture._base import options
from suture.studies.experiments.experiment import Part
from suture.studies.network_study.call import explain_interruption
from suture.studies.network_study.options import StudyOptions
from suture.studies.probes import ProbeRecipe
from suture.studies.probes.principal_components import GRADED, read_ranks
from suture.studies.running.store import StudyStore
from suture.studies.spec.option_tables import read_options
from suture.studies.spec.training import train_missing

R = TypeVar("R")


@options
class RankOptions:
    """What the table [experiment] of a file says about representations that are cut to principal components.

    Attributes:
        {options}
    """

    ranks: Annotated[Any, PlainValidator(read_ranks), Doc(
        'Ranks, or "graded": eighths of a site\'s width, then halves.')] = GRADED
    probe: Annotated[InstanceOf[ProbeRecipe], Doc("Recipe of the linear probes.")] = ProbeRecipe()


def train_part(part: Part) -> StudyOptions:
    """Train the networks of a part that are not trained yet, and return the arguments of its study."""
    with explain_interruption(part.spec.folder):
        given = part.spec.open()
        StudyStore.open(part.spec.folder)
        networks = train_missing(part.spec, given, part.progress)
    return replace(given, networks=networks, progress=part.progress)


def read_experiment(part: Part, record: type[R]) -> R:
    """Read the table [experiment] of a part's file as a record of options."""
    return read_options(part.spec.file, ("experiment",), record, record)
