"""The networks that a study trains before its pairs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from suture import zoo
from suture._base import Progress, log_event
from suture.studies.following.event_log import log_training
from suture.studies.network_study.options import StudyOptions
from suture.studies.population.sources import FailedNetwork, TrainedNetwork
from suture.studies.running.engine_choice import find_engine
from suture.studies.running.engines import Engine, run_all
from suture.studies.running.tasks import Work
from suture.studies.running.training_tasks import TrainingStore, TrainTask
from suture.studies.spec.study_file import StudyFile


def train_networks(networks: Mapping[str, Any], images: tuple[zoo.ImageSet, zoo.ImageSet],
                   device: torch.device, engine: Engine, folder: Path,
                   progress: Progress | None = None) -> dict[str, Any]:
    """Train networks whose weights are missing or damaged, on the engine of the study.

    Those of one training that fails say why when they are built. A training goes on where it was stopped. One
    that another process works on is waited for.
    """
    tasks = list_trainings(networks)
    work, store = Work({}, *images, {"device": device}), TrainingStore(folder)
    failed, done = dict[str, str](), 0
    try:
        with closing(run_all(engine, work, store, tasks, progress)) as outcomes:
            for done, outcome in enumerate(outcomes, 1):
                assert outcome.record is not None  # run_all waits for those of other processes
                log_training(outcome, len(tasks) - done, len(tasks))
                if outcome.record.reason:
                    failed[outcome.record.key] = outcome.record.reason
                if progress is not None:
                    progress("trainings", done, len(tasks))
    except KeyboardInterrupt as error:
        error.args = (f"interrupted after {done} of {len(tasks)} trainings, which are kept in "
                      f"{str(folder)!r}; the same call goes on from there",)
        log_event(error.args[0])
        raise
    return {name: FailedNetwork(f"its training failed: {failed[given.training.stem]}")
            if isinstance(given, TrainedNetwork) and given.training.stem in failed else given
            for name, given in networks.items()}


def train_missing(spec: StudyFile, given: StudyOptions, progress: Progress | None = None) -> dict[str, Any]:
    """Train what a file of a study asks for, and return its networks."""
    networks, engine = dict(given.networks), find_engine(given.engine)
    for data in dict.fromkeys(entry.training_data for entry in spec.networks.values() if not entry.is_given):
        names = [name for name, entry in spec.networks.items()
                 if not entry.is_given and entry.training_data == data]
        networks |= train_networks({name: networks[name] for name in names}, spec.load_images(data),
                                   given.torch_device, engine, spec.folder, progress)
    return networks


def list_trainings(networks: Mapping[str, Any]) -> list[TrainTask]:
    """Return the trainings of networks, one for all that are epochs of the same."""
    found: dict[str, TrainTask] = {}
    for name, given in networks.items():
        if isinstance(given, TrainedNetwork):
            key = str(given.training)
            before = found[key].keep if key in found else ()
            keep = before if given.epoch is None else (*before, given.epoch)
            label = name if given.epoch is None else name.removesuffix(f"-epoch{given.epoch}")
            # Workers may have another working directory.
            found[key] = TrainTask((label, label), given.training.stem, name=given.name, recipe=given.recipe,
                                   path=given.training.absolute(), keep=keep)
    return list(found.values())
