"""A training as a task of an engine: which files it writes, and how it goes on."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from suture import zoo
from suture._base import Progress, SutureError, hold_lock, is_held
from suture.networks import Recipe
from suture.studies.running.store import StudyStore
from suture.studies.running.tasks import PairTask, TaskRecord, Work

_LOCK = "writing"


@dataclass(frozen=True, kw_only=True)
class TrainTask(PairTask):
    """A training of a network of the zoo, whose images are the data of the work.

    Its pair is the network twice, and its key the name of its file, which holds all that decides the weights.

    Attributes:
        name: in the zoo.
        recipe: with its seed.
        path: file of the last epoch.
        keep: epochs that have a file too.
    """

    name: str
    recipe: Recipe
    path: Path
    keep: tuple[int, ...] = ()

    @property
    def is_done(self) -> bool:
        """True if all its files hold whole weights; a damaged one is set aside."""
        files = [self.path, *(zoo.name_epoch(self.path, k) for k in self.keep)]
        return sum(map(_is_whole, files)) == len(files)


@dataclass(frozen=True)
class TrainingStore(StudyStore):
    """What engines ask of a store, for trainings: their files are their records."""

    def find(self, task: PairTask) -> TaskRecord | None:
        done = isinstance(task, TrainTask) and task.is_done
        return TaskRecord(task.pair, task.key) if done else None

    def is_claimed(self, task: PairTask) -> bool:
        return isinstance(task, TrainTask) and is_held(task.path, _LOCK)

    def finish(self, task: PairTask, reason: str = "", seconds: float = 0.0) -> TaskRecord:
        """Return the record of a training that ended; one that failed is tried again by the next run."""
        return TaskRecord(task.pair, task.key, reason, seconds=seconds)


def run_training(work: Work, task: TrainTask, progress: Progress | None = None) -> TaskRecord:
    """Train a network on the data and the test data of the work, which are image sets.

    A training goes on where it was stopped. One that is finished without an epoch to keep begins anew.

    Raises:
        LockedError: another process works on it.
    """
    start = time.perf_counter()
    with hold_lock(task.path, _LOCK):
        if task.is_done:
            return TaskRecord(task.pair, task.key)
        with _use_one_thread():
            try:
                _train(work, task, False, progress)
            except zoo.EpochNotKeptError:
                _train(work, task, True, progress)
    return TaskRecord(task.pair, task.key, seconds=time.perf_counter() - start)


def _train(work: Work, task: TrainTask, restart: bool, progress: Progress | None) -> None:
    head = task.pair[0]

    def tell(stage: str, done: int, total: int | None) -> None:
        if progress is not None:
            progress(f"{head}: {stage}", done, total)

    keep = {*task.keep, *zoo.list_epochs(task.path)} if restart else task.keep
    zoo.train_and_save(task.name, task.path, task.recipe.seed, task.recipe, (work.data, work.test), tell,
                       device=work.settings["device"], keep=sorted(keep), restart=restart)


@contextmanager
def _use_one_thread() -> Iterator[None]:
    """Train with one thread, because the order of sums, and with it the weights, depends on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _is_whole(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        zoo.read_weights(path)
    except SutureError:
        with suppress(FileNotFoundError):
            path.rename(path.with_name(f"{path.name}.damaged-{secrets.token_hex(4)}"))
        return False
    return True
