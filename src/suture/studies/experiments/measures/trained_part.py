"""The networks of a part, trained, and what its file says to the experiment."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, TypeVar

from pydantic import InstanceOf, PlainValidator
from typing_extensions import Doc

from suture._base import expect, get_time, options
from suture.compare import collect_versions
from suture.studies.experiments.experiment import Part
from suture.studies.network_study.call import explain_interruption
from suture.studies.network_study.options import StudyOptions
from suture.studies.probes import ProbeRecipe
from suture.studies.probes.principal_components import GRADED, read_ranks
from suture.studies.running.store import MANIFEST, StudyStore
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
        store = StudyStore.open(part.spec.folder)
        networks = train_missing(part.spec, given, part.progress)
        if not (store.folder / MANIFEST).exists():
            # Records and the page will lie beside it: without a manifest the folder would be no study's.
            store.write_manifest({
                "networks": {name: dict(entry.about) for name, entry in part.spec.networks.items()},
                "pairs": [], "tasks": [], "failed": {}, "notes": [], "created": get_time(),
                "settings": given.as_key(), "versions": collect_versions(), "folder": str(store.folder)})
    return replace(given, networks=networks, progress=part.progress)


def list_sites(given: StudyOptions) -> list[str]:
    """Return the sites that a file names.

    Raises:
        SutureError: it names none, or a glob.
    """
    sites = given.sites
    expect(isinstance(sites, list | tuple), "a list of sites in [settings]", repr(sites))
    return [str(site) for site in sites]  # type: ignore[union-attr]


def read_experiment(part: Part, record: type[R]) -> R:
    """Read the table [experiment] of a part's file as a record of options."""
    return read_options(part.spec.file, ("experiment",), record, record)
