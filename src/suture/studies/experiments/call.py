"""The public call `reproduce`: run experiments of the paper, and write the page of their claims."""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import SkipValidation
from typing_extensions import Doc

from suture._base import (
    Count,
    FilePath,
    Progress,
    ProgressOption,
    SutureError,
    SutureWarning,
    TellsProgress,
    describe_error,
    expect,
    listen_to_signals,
    options,
    show_value,
    takes,
)
from suture.studies.experiments.claims import Outcome, list_headlines, list_words
from suture.studies.experiments.data_paths import list_names, make_missing_error, read_paths
from suture.studies.experiments.experiment import Experiment, Part
from suture.studies.experiments.first_seeds import keep_seeds
from suture.studies.experiments.page import PAGE, write_page
from suture.studies.experiments.record import Record, join_parts, read_parts
from suture.studies.experiments.registry import EXPERIMENTS
from suture.studies.experiments.scale_files import SpecFile, choose_files, find_scale, list_files, list_parts
from suture.studies.spec.study_file import StudyFile
from suture.studies.spec.toml_file import TomlFile

RECORDS = "records"


@options
class ReproduceOptions(TellsProgress):
    """Arguments of `suture.reproduce`."""

    experiments: Annotated[Any, SkipValidation, Doc(
        "Experiments, such as E1 or [E1, E3], one file of them, such as E1.toml, or all.")] = "all"
    scale: Annotated[str, Doc(
        "Scale: tiny (scikit-learn's digits, minutes), small (CIFAR-10 with ResNet-20, hours on two cores) "
        "or paper (the paper's networks and recipes, days on a GPU).")] = "tiny"
    folder: Annotated[FilePath, Doc(
        "Folder of networks, comparisons, records and the page; each scale has a folder in it. The same call "
        "goes on from there.")] = "reproduction"
    data: Annotated[Mapping[str, FilePath] | None, SkipValidation, Doc(
        "Paths of the data by name, such as {'cifar10': 'data/cifar10'}, that a scale needs. A file whose "
        "data are missing is left out if another file of its experiment has them.")] = None
    seeds: Annotated[Count | None, Doc(
        "Number of seeds of each network, the first of those in the spec files. Default: all.")] = None
    engine: Annotated[str | None, Doc(
        "Engine that runs the pairs, as for `suture.study`. None: that of the spec files.")] = None
    device: Annotated[str | None, Doc("Device. None: that of the spec files.")] = None
    progress: ProgressOption = None

    @property
    def place(self) -> Path:
        """The folder of the scale."""
        return Path(self.folder) / self.scale

    def choose_files(self) -> list[AskedFile]:
        """Return the files that are asked for, with what each lacks.

        Raises:
            SutureError: an unknown experiment, scale or name of data, or nothing at a path.
        """
        folder = find_scale(self.scale)
        paths = read_paths(self.data, (file.path for file in list_files(folder)), self.scale)
        return [AskedFile(file, paths, tuple(name for name in list_names(file.path) if name not in paths))
                for file in choose_files(self.experiments, folder)]

    def read_part(self, asked: AskedFile) -> Part:
        """Read a spec file for this run."""
        spec = StudyFile.of(keep_seeds(TomlFile.read(asked.file.path).fill(asked.paths), self.seeds))
        study = {**spec.study, "folder": str(self.place)}
        study |= {} if self.engine is None else {"engine": self.engine}
        settings = spec.settings if self.device is None else replace(spec.settings, device=self.device)
        return Part(asked.file.part, replace(spec, study=study, settings=settings)).keep_detectors()


@dataclass(frozen=True)
class AskedFile:
    """A spec file that is asked for.

    Attributes:
        file: the file.
        paths: of data by name, all that are given.
        lacks: names of data that it needs and whose paths are missing.
    """

    file: SpecFile
    paths: Mapping[str, str]
    lacks: tuple[str, ...]


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
                     + (f" ({o.reason})" if o.reason else "") for name, o in every)


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
    asked = leave_out_lacking(given.choose_files(), given.scale)
    parts: dict[str, list[Part]] = {}
    for each in asked:
        parts.setdefault(each.file.experiment, []).append(
            replace(given.read_part(each), progress=progress, on_result=on_result))
    for name, of in parts.items():
        run_experiment(EXPERIMENTS[name], of, given)
    return read_reproduction(given.place, given.scale)


def leave_out_lacking(asked: Sequence[AskedFile], scale: str) -> list[AskedFile]:
    """Return the files whose data are there, with a warning for the others.

    Raises:
        SutureError: an experiment has no such file.
    """
    missing = dict[str, tuple[str, ...]]()
    for name in dict.fromkeys(each.file.experiment for each in asked):
        least = min((each.lacks for each in asked if each.file.experiment == name), key=len)
        missing |= {name: least} if least else {}
    if missing:
        raise make_missing_error(dict.fromkeys(name for lacks in missing.values() for name in lacks),
                                 f"scale {scale} for {list_words(list(missing))}")
    for each in asked:
        if each.lacks:
            warnings.warn(f"left out: {make_missing_error(each.lacks, each.file.path.name)}",
                          SutureWarning, stacklevel=4)
    return [each for each in asked if not each.lacks]


def run_experiment(experiment: Experiment, parts: Sequence[Part], given: ReproduceOptions) -> None:
    """Run parts of an experiment, and write its record after each; parts that are not run stay."""
    place = given.place / RECORDS / experiment.name
    running = {part.name for part in parts}
    names = list_parts(find_scale(given.scale), experiment.name)
    found = {name: of for name, of in read_parts(place).items() if name in names and name not in running}
    for part in parts:
        found[part.name] = experiment.run(part)
        join_parts(experiment.name, given.scale, {name: found[name] for name in names if name in found},
                   describe_machine(part.spec.settings.torch_device)).save(place)


def describe_machine(device: torch.device) -> str:
    """Return processor, number of cores and, if it is used, the GPU."""
    gpu = [torch.cuda.get_device_name(device)] if device.type == "cuda" else []
    return ", ".join([platform.machine(), f"{os.cpu_count()} cores", *gpu])


def read_reproduction(place: Path, scale: str) -> Reproduction:
    """Read all records of a scale, judge them, and write the page.

    Raises:
        SutureError: there is no record, or a damaged one.
    """
    records = read_records(place)
    if not records:
        raise SutureError(f"expected records of experiments in {str(place / RECORDS)!r}, found none; run one")
    outcomes = {name: _judge(record, place / RECORDS / name) for name, record in records.items()}
    return Reproduction(scale, write_page(place / PAGE, scale, records, outcomes), records, outcomes)


def _judge(record: Record, folder: Path) -> tuple[Outcome, ...]:
    try:
        experiment = EXPERIMENTS[record.experiment]
        experiment.tabulate(record)
        return tuple(experiment.judge_claims(record))
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise SutureError(f"the record in {str(folder)!r} is damaged, or of another version: "
                          f"{describe_error(error)}; run {folder.name} again") from error


def read_records(place: Path) -> dict[str, Record]:
    """Read the records of a scale, in the order of the experiments."""
    found = {name: Record.load(place / RECORDS / name) for name in EXPERIMENTS
             if Record.exists(place / RECORDS / name)}
    for name, record in found.items():
        expect(record.experiment == name, f"the record of {name} in {str(place / RECORDS / name)!r}",
               f"that of {show_value(record.experiment)}", f"run {name} again")
    return found
