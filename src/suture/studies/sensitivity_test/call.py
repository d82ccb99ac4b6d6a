"""The public call `sensitivity`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import InstanceOf, PlainValidator
from typing_extensions import Doc

from suture._base import (
    FOREIGN,
    Count,
    FilePath,
    SutureError,
    expect,
    keep_parts,
    listen_to_signals,
    options,
    takes,
)
from suture.compare import FitSettings, choose_methods
from suture.indices import Named
from suture.networks import SiteSpec
from suture.studies.network_study.call import run_study
from suture.studies.network_study.options import StudyOptions
from suture.studies.network_study.result import Study
from suture.studies.population.members import list_members
from suture.studies.probes.call import BASIS, BasisKind
from suture.studies.probes.principal_components import GRADED, read_ranks
from suture.studies.probes.recipe import ProbeRecipe
from suture.studies.probes.result import COLUMNS
from suture.studies.running.engines import explain_failure
from suture.studies.running.keys import list_tasks
from suture.studies.running.tasks import PairTask, Work, prefix_progress
from suture.studies.sensitivity_test.curve_store import STUDY, CurveStore
from suture.studies.sensitivity_test.network_curves import (
    CURVE_COLUMNS,
    Deletion,
    NetworkCurves,
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
    ranks: Annotated[Any, PlainValidator(read_ranks), Doc(
        'Ranks that representations are cut to: numbers, or "graded" up to the width of each site: its '
        "eighths, then halves down to 1, as in Balogh and Jelasity (2025).")] = GRADED
    sites: Annotated[SiteSpec, Doc("Sites of all networks. None: the repeated blocks.")] = None
    indices: Annotated[Iterable[Named] | Named, PlainValidator(keep_parts), Doc(
        "Structural indices as for `suture.compare`. Those of stitched positions from second moments, and "
        "all ``@pool`` and ``@within``, need no further pass; all others need one.")] = DEFAULT_INDICES
    methods: Annotated[Sequence[str], PlainValidator(choose_methods), Doc(
        'Ways of stitching the cut representation into the network itself: "dm" and, slow, "tlm". ``()``: '
        "none.")] = ("dm",)
    basis: Annotated[BasisKind, BASIS] = "data"
    probe: Annotated[InstanceOf[ProbeRecipe], Doc("Recipe of the probes.")] = ProbeRecipe()
    sample: Annotated[Count, Doc("Examples kept for the indices of rows.")] = 2000
    study: Annotated[InstanceOf[Study] | None, Doc(
        "A study of these networks with these measures, for the distances between seeds. None: one of all "
        "pairs is run.")] = None
    folder: Annotated[FilePath | None, Doc(
        "Folder that keeps the curves of each network and the comparisons of all pairs as they come: the "
        "same call goes on from there.")] = None

    def __post_init__(self) -> None:
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
    with listen_to_signals():
        return _Call(given).run()


class _Call:
    """What one call has at hand."""

    def __init__(self, given: SensitivityOptions) -> None:
        self.given = given
        self.deletion = Deletion(given.ranks or GRADED, given.basis == "batch", given.probe)
        self.members = list_members(given.networks, {})
        self.work = Work(self.members, given.data, given.test, given.settings)
        self.store = None if given.folder is None else CurveStore.open(given.folder)

    def run(self) -> Sensitivity:
        """Measure each network, and compare them."""
        made, failures = dict[str, NetworkCurves](), dict[str, str]()
        places = {} if self.store is None else self._find_places(self.store)
        for k, name in enumerate(self.members, 1):
            try:
                made[name] = self._measure(name, places.get(name))
            except FOREIGN as error:
                if len(self.members) == 1:
                    raise
                failures[name] = explain_failure(error)
            if self.given.tell_progress:
                self.given.tell_progress("networks", k, len(self.members))
        if not made:
            name, reason = next(iter(failures.items()))
            raise SutureError(f"no network has curves; {name}: {reason}")
        return _join(made, self.given.study or self._compare_seeds(list(made)), failures)

    def _find_places(self, store: CurveStore) -> dict[str, Path]:
        """Return the files of the curves of networks that can be built; the data are read once for it."""
        options = self._list_options([(name, name) for name in self.members])
        tasks = list_tasks(self.work, [(name, name) for name in self.members], options).tasks
        return {t.pair[0]: store.find_place(t.key, self.deletion) for t in tasks}

    def _measure(self, name: str, place: Path | None) -> NetworkCurves:
        known = None if place is None else CurveStore.read(place)
        if known is not None:
            return known
        pair = (name, name)
        reported = prefix_progress(self.given.tell_progress, pair)
        work = self.work.replace(settings={**self.work.settings, "progress": reported})
        made = measure_network(name, work.set_up(PairTask(pair, "")), self.deletion)
        if place is not None:
            CurveStore.write(place, made)
        return made

    def _compare_seeds(self, names: Sequence[str]) -> Study | None:
        """Compare all pairs of different networks; return None if there are none."""
        if len(names) < 2:
            return None
        return run_study(self._list_options([(a, b) for k, a in enumerate(names) for b in names[k + 1:]]))

    def _list_options(self, pairs: Sequence[tuple[str, str]]) -> StudyOptions:
        given, folder = self.given, None if self.store is None else self.store.folder / STUDY
        return StudyOptions(given.networks, given.data, given.test, pairs, folder=folder, **given.settings)


def _join(made: Mapping[str, NetworkCurves], study: Study | None, failures: Mapping[str, str]) -> Sensitivity:
    import pandas as pd

    curves = pd.DataFrame([row for of in made.values() for row in of.rows], columns=list(CURVE_COLUMNS))
    probes = pd.DataFrame([row for of in made.values() for row in of.probes], columns=["network", *COLUMNS])
    notes = dict.fromkeys(note for of in made.values() for note in of.notes)
    return Sensitivity(curves, probes, study, dict(failures), tuple(notes))
