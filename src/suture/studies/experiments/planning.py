"""What a run of experiments would do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from suture._base import checked
from suture.studies.experiments.call import RECORDS, AskedFile, ReproduceOptions
from suture.studies.experiments.record import read_parts
from suture.studies.experiments.registry import EXPERIMENTS
from suture.studies.population.sources import TrainedNetwork
from suture.studies.spec.commands import plan_file


@dataclass(frozen=True)
class PlannedPart:
    """What is left to do of one file of an experiment.

    Attributes:
        experiment, path: its name, and the file.
        recorded: True if its record is written.
        lacks: names of data whose paths are missing; then nothing else is known.
        untrained: number of networks to train first.
        done, to_do: numbers of pairs; None if it compares none, but passes over the networks itself.
        seconds: estimated time of the pairs to do, without trainings; None if unknown.
    """

    experiment: str
    path: Path
    recorded: bool
    lacks: tuple[str, ...] = ()
    untrained: int | None = None
    done: int | None = None
    to_do: int | None = None
    seconds: float | None = None


@checked
def plan_reproduction(given: ReproduceOptions) -> list[PlannedPart]:
    """Say what a run would do; nothing is run or trained but a few examples of one pair of each file."""
    return [_plan_part(given, asked) for asked in given.choose_files()]


def _plan_part(given: ReproduceOptions, asked: AskedFile) -> PlannedPart:
    name, path = asked.file.experiment, asked.file.path
    recorded = asked.file.part in read_parts(given.place / RECORDS / name)
    if asked.lacks:
        return PlannedPart(name, path, recorded, asked.lacks)
    spec = given.read_part(asked).spec
    if not EXPERIMENTS[name].compares(asked.file.part):
        untrained = sum(isinstance(source, TrainedNetwork) and not source.path.exists()
                        for source in spec.open().networks.values())
        return PlannedPart(name, path, recorded, (), untrained)
    planned = plan_file(spec)
    to_do = len(planned.to_do)
    return PlannedPart(name, path, recorded, (), len(planned.untrained), len(planned.states) - to_do, to_do,
                       planned.seconds)
