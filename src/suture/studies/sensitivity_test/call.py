"""The public call `sensitivity`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import InstanceOf, PlainValidator, SkipValidation
from typing_extensions import Doc

from suture._base import (
    FOREIGN,
    Count,
    FilePath,
    Progress,
    SutureError,
    expect,
    keep_parts,
    options,
    takes,
)
from suture.compare import FitSettings
from suture.indices import Named
from suture.networks import SiteSpec
from suture.numbers import METHOD_NAMES
from suture.studies.network_study.call import run_study
from suture.studies.network_study.options import StudyOptions
from suture.studies.network_study.result import Study
from suture.studies.population.members import list_members
from suture.studies.probes.call import BASIS, BasisKind
from suture.studies.probes.principal_components import GRADED
from suture.studies.probes.recipe import ProbeRecipe
from suture.studies.running.engines import explain_failure
from suture.studies.running.tasks import PairTask, Work, prefix_progress
from suture.studies.sensitivity_test.network_curves import (
    CURVE_COLUMNS,
    NetworkCurves,
    Deletion,
    measure_network,
)
from suture.studies.sensitivity_test.result import Sensitivity

DEFAULT_INDICES = ("cka", "cka@pool", "cka_debiased@pool", "pwcca", "pwcca_target", "opd", "opd@pool", "r2")
"""Indices whose curves need no further pass, in the alignments that they are used in."""


@options
class SensitivityOptions(FitSettings):
    """Arguments of `suture.sensitivity`."""

    networks: Annotated[Any, Doc(
        "Networks by name, or a list, as for `suture.study`: independently trained ones of one design. With "
        "one network there are curves, but no distances between seeds.")]
    data: Annotated[Any, Doc("Labelled examples for components, indices, stitching layers and probes.")]
    test: Annotated[Any, Doc(
        "Labelled examples for probes and stitched networks. None: `data` again.")] = None
    ranks: Annotated[Any, SkipValidation, Doc(
        'Ranks that representations are cut to: numbers, or "graded" up to the width of each site: its '
        "eighths, then halves down to 1, as in Balogh and Jelasity (2025).")] = GRADED
    sites: Annotated[SiteSpec, Doc("Sites of all networks. None: the repeated blocks.")] = None
    indices: Annotated[Iterable[Named] | Named, PlainValidator(keep_parts), Doc(
        "Structural indices as for `suture.compare`. Those of stitched positions from second moments, and "
        "all ``@pool`` and ``@within``, need no further pass; all others need one.")] = DEFAULT_INDICES
    methods: Annotated[Sequence[str], PlainValidator(keep_parts), Doc(
        'Ways of stitching the cut representation into the network itself: "dm" and, slow, "tlm". ``()``: '
        "none.")] = ("dm",)
    basis: Annotated[BasisKind, BASIS] = "data"
    probe: Annotated[InstanceOf[ProbeRecipe], Doc("Recipe of the probes.")] = ProbeRecipe()
    sample: Annotated[Count, Doc("Examples kept for the indices of rows.")] = 2000
    study: Annotated[InstanceOf[Study] | None, Doc(
        "A study of these networks with these measures, for the distances between seeds. None: one of all "
        "pairs is run.")] = None
    folder: Annotated[FilePath | None, Doc(
        "Folder of that study, which keeps its comparisons: the same call goes on from there.")] = None

    def __post_init__(self) -> None:
        odd = next((m for m in self.methods if m not in METHOD_NAMES), None)
        expect(odd is None, "dm and tlm as methods", repr(odd), "write methods=('dm',)")
        expect(self.study is None or self.folder is None, "a study or the folder of one", "both",
               "leave out folder=")

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments of the comparisons."""
        shared: Mapping[str, Any] = {name: getattr(self, name) for name in FitSettings.__annotations__}
        return {**shared, "sites": self.sites, "indices": self.indices, "methods": list(self.methods),
                "sample": self.sample, "ood": None}


@takes(SensitivityOptions)
def sensitivity(given: SensitivityOptions) -> Sensitivity:
    """Measure what indices and stitching say when a representation loses its last principal components.

    Every position of a representation is cut to its first r principal components. At each rank there is the
    accuracy of a linear probe, each index between the cut and the whole representation, and stitching layers
    from the cut representation into the network itself (Ding, Denain and Steinhardt 2021; Balogh and Jelasity
    2025). A measure is sensitive if it exceeds the distances between independently trained networks no later
    than the probe changes.

    >>> found = suture.sensitivity({"seed 0": a, "seed 1": b, "seed 2": c}, train, test)
    >>> found.table; found.plot().savefig("curves.png")

    Args:
        {options}

    Raises:
        SutureError: bad input, data without labels (N,), a rank above all widths, no network with curves.
    """
    members = list_members(given.networks, {})
    work = Work(members, given.data, given.test, given.settings)
    deletion = Deletion(given.ranks, given.basis == "batch", given.probe)
    made, failures = dict[str, NetworkCurves](), dict[str, str]()
    for name in members:
        try:
            made[name] = _measure(name, work, deletion, given.progress)
        except FOREIGN as error:
            if len(members) == 1:
                raise
            failures[name] = explain_failure(error)
    if not made:
        name, reason = next(iter(failures.items()))
        raise SutureError(f"no network has curves; {name}: {reason}")
    study = given.study or _compare_seeds(given, list(made))
    return _join(made, study, failures)


def _measure(name: str, work: Work, deletion: Deletion, progress: Progress | None) -> NetworkCurves:
    pair = (name, name)
    mine = work.replace(settings={**work.settings, "progress": prefix_progress(progress, pair)})
    return measure_network(name, mine.set_up(PairTask(pair, "")), deletion)


def _compare_seeds(given: SensitivityOptions, names: Sequence[str]) -> Study | None:
    """Compare all pairs of different networks; return None if there are none."""
    if len(names) < 2:
        return None
    pairs = [(a, b) for k, a in enumerate(names) for b in names[k + 1:]]
    return run_study(StudyOptions(given.networks, given.data, given.test, pairs, folder=given.folder,
                                  **given.settings))


def _join(made: Mapping[str, NetworkCurves], study: Study | None, failures: Mapping[str, str]) -> Sensitivity:
    import pandas as pd

    curves = pd.DataFrame([row for of in made.values() for row in of.rows], columns=list(CURVE_COLUMNS))
    probes = pd.concat([of.probes.table.assign(network=name) for name, of in made.items()], ignore_index=True)
    probes.insert(0, "network", probes.pop("network"))
    notes = dict.fromkeys(note for of in made.values() for note in of.probes.notes)
    return Sensitivity(curves, probes, study, dict(failures), tuple(notes))
