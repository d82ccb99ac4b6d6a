"""The public call `reproduce`: run experiments of the paper, and write the page of their claims."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import SkipValidation
from typing_extensions import Doc

from suture._base import (
    FilePath,
    Progress,
    ProgressOption,
    SutureError,
    TellsProgress,
    checked,
    listen_to_signals,
    options,
    takes,
)
from suture.studies.experiments.claims import Outcome, list_headlines
from suture.studies.experiments.experiment import Experiment, Part
from suture.studies.experiments.page import PAGE, write_page
from suture.studies.experiments.record import Record, join_tables
from suture.studies.experiments.registry import EXPERIMENTS
from suture.studies.experiments.scale_files import choose_experiments, find_scale, list_parts
from suture.studies.spec.commands import plan_file
from suture.studies.spec.study_file import StudyFile

RECORDS = "records"


@options
class ReproduceOptions(TellsProgress):
    """Arguments of `suture.reproduce`."""

    experiments: Annotated[Any, SkipValidation, Doc(
        "Experiments, such as E1 or [E1, E3], or all.")] = "all"
    scale: Annotated[str, Doc(
        "Scale: tiny (scikit-learn's digits, minutes), small (CIFAR-10 with ResNet-20, hours on two cores) "
        "or paper (the paper's networks and recipes, days on a GPU).")] = "tiny"
    folder: Annotated[FilePath, Doc(
        "Folder of networks, comparisons, records and the page; each scale has a folder in it. The same call "
        "goes on from there.")] = "reproduction"
    data: Annotated[Mapping[str, str] | None, SkipValidation, Doc(
        "Paths of the data by name, such as {'cifar10': 'data/cifar10'}, that a scale needs.")] = None
    engine: Annotated[str | None, Doc(
        "Engine that runs the pairs, as for `suture.study`. None: that of the spec files.")] = None
    device: Annotated[str | None, Doc("Device. None: that of the spec files.")] = None
    progress: ProgressOption = None

    def read_part(self, name: str, path: Path) -> Part:
        """Read a spec file for this run."""
        spec = StudyFile.read(path, self.data or {})
        study = {**spec.study, "folder": str(self.place)}
        study |= {} if self.engine is None else {"engine": self.engine}
        settings = spec.settings if self.device is None else replace(spec.settings, device=self.device)
        return Part(name, replace(spec, study=study, settings=settings)).keep_detectors()

    def read_parts(self) -> dict[str, dict[str, Part]]:
        """Read the spec files of the experiments that are asked for, by experiment and part.

        Raises:
            SutureError: an unknown experiment or scale, a bad file, or data without a path.
        """
        folder = find_scale(self.scale)
        return {name: {part: self.read_part(part, path) for part, path in list_parts(folder, name).items()}
                for name in choose_experiments(self.experiments, folder)}

    @property
    def place(self) -> Path:
        """The folder of the scale."""
        return Path(self.folder) / self.scale


@dataclass(frozen=True, eq=False)
class Reproduction:
    """What the experiments of one scale have found.

    Attributes:
        scale, page: the scale, and the Markdown page of all its records.
        records: by experiment.
        outcomes: what the records say of each claim, by experiment.
    """

    scale: str
    page: Path
    records: Mapping[str, Record]
    outcomes: Mapping[str, Sequence[Outcome]]

    def __repr__(self) -> str:
        return f"Reproduction({self.scale}: {', '.join(self.records)}; {self.page})"

    @property
    def headlines(self) -> tuple[str, ...]:
        """A sentence for each of the paper's headline claims of which something is known."""
        return tuple(f"{h.claim}: {h.word}. ({h.numbers})" for h in list_headlines(self.outcomes))

    @property
    def findings(self) -> tuple[str, ...]:
        """A sentence for each claim, the headline claims first."""
        every = [(name, o) for name, of in self.outcomes.items() for o in of]
        every.sort(key=lambda each: (each[1].headline == 0, each[1].headline))
        return tuple(f"{name}, {o.word}: {o.claim} Here: {o.measured}."
                     + (f" ({o.why})" if o.why else "") for name, o in every)


@takes(ReproduceOptions)
def reproduce(given: ReproduceOptions) -> Reproduction:
    """Run experiments of Balogh and Jelasity (AAAI 2025), and write a page that judges each of their claims.

    >>> suture.reproduce("E1", scale="tiny").findings

    Each experiment is a spec file of a study in ``experiments/``, and goes on where it was stopped. The page
    is made from records, tables on the disk that are written when an experiment is done.

    Args:
        {options}

    Returns:
        The records, the outcome of each claim, and the page.

    Raises:
        SutureError: an unknown experiment or scale, data whose path is missing, or a study that fails.
    """
    with listen_to_signals():
        return run_reproduction(given, given.tell_progress)


def run_reproduction(given: ReproduceOptions, progress: Progress | None = None, on_result: Any = None
                     ) -> Reproduction:
    """Run the experiments; arguments as for `reproduce` and `suture.study`."""
    for name, parts in given.read_parts().items():
        run_experiment(EXPERIMENTS[name], {part: replace(of, progress=progress, on_result=on_result)
                                           for part, of in parts.items()}, given)
    return read_reproduction(given.place, given.scale)


def run_experiment(experiment: Experiment, parts: Mapping[str, Part], given: ReproduceOptions) -> Record:
    """Run the parts of an experiment, and write its record."""
    found = {name: experiment.run(part) for name, part in parts.items()}
    about = {"parts": {name: dict(of.about) for name, of in found.items()},
             "machine": f"{platform.machine()}, {os.cpu_count()} cores"}
    return Record(experiment.name, given.scale, join_tables({n: of.tables for n, of in found.items()}),
                  about).save(given.place / RECORDS / experiment.name)


def read_reproduction(place: Path, scale: str) -> Reproduction:
    """Read all records of a scale, judge them, and write the page.

    Raises:
        SutureError: there is no record.
    """
    records = read_records(place)
    if not records:
        raise SutureError(f"expected records of experiments in {str(place / RECORDS)!r}, found none; run one")
    outcomes = {name: tuple(EXPERIMENTS[name].judge_claims(record)) for name, record in records.items()}
    return Reproduction(scale, write_page(place / PAGE, scale, records, outcomes), records, outcomes)


def read_records(place: Path) -> dict[str, Record]:
    """Read the records of a scale, in the order of the experiments."""
    return {name: Record.load(place / RECORDS / name) for name in EXPERIMENTS
            if Record.exists(place / RECORDS / name)}


@dataclass(frozen=True)
class PlannedPart:
    """What is left to do of one file of an experiment.

    Attributes:
        experiment, path: its name, and the file.
        untrained: number of networks to train first.
        done, to_do: numbers of pairs.
        seconds: estimated time of the pairs to do, without trainings; None if unknown.
    """

    experiment: str
    path: Path
    untrained: int
    done: int
    to_do: int
    seconds: float | None


@checked
def plan_reproduction(given: ReproduceOptions) -> list[PlannedPart]:
    """Say what a run would do; nothing is run or trained but a few examples of one pair of each file."""
    found = []
    for name, parts in given.read_parts().items():
        for part in parts.values():
            planned = plan_file(part.spec)
            to_do = len(planned.to_do)
            found.append(PlannedPart(name, part.spec.file.path, len(planned.untrained),
                                     len(planned.states) - to_do, to_do, planned.seconds))
    return found
