"""The engine that runs the tasks of a study in several processes of this machine."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context

import torch

from suture._base import Progress, SutureError, describe_error
from suture.studies.running.engines import Outcome, run_task
from suture.studies.running.store import StudyStore
from suture.studies.running.tasks import PairTask, Work

MOST_ATTEMPTS = 3
"""Number of times that a task is begun whose worker ends before it does."""
_STATE: dict[str, tuple[Work, StudyStore]] = {}
"""What the tasks of this worker share."""


@dataclass(frozen=True)
class Processes:
    """Runs tasks in worker processes, each of which gets networks and data once.

    A worker that ends in mid-task, such as one that was killed, is replaced, and the task goes on from its
    checkpoints.

    Attributes:
        workers: number of processes.
    """

    workers: int = 2

    def run(self, work: Work, store: StudyStore | None, tasks: Sequence[PairTask],
            progress: Progress | None) -> Iterator[Outcome]:
        """Run tasks; see `Engine`. Stages within a pair are not reported."""
        store = require_store(store, "processes")
        sent = work.replace(settings={k: v for k, v in work.settings.items() if k != "progress"})
        check_sendable(sent)
        waiting, attempts = list(tasks), dict.fromkeys(tasks, 0)
        while waiting:
            running: dict[Future[Outcome], PairTask] = {}
            threads = max(1, torch.get_num_threads() // self.workers)
            pool = ProcessPoolExecutor(min(self.workers, len(waiting)), get_context("spawn"), _start,
                                       (sent, store, threads))
            try:
                for outcome in self._run_pool(pool, waiting, running, attempts):
                    waiting.remove(outcome.task)
                    yield outcome
            except BrokenProcessPool:
                lost = [task for task in running.values() if attempts[task] >= MOST_ATTEMPTS]
                for task in lost:
                    waiting.remove(task)
                    yield Outcome(task, store.finish(task, f"its worker process ended {MOST_ATTEMPTS} times "
                                                           "without a word, as one that is killed"))
            finally:
                pool.shutdown(cancel_futures=True)

    def _run_pool(self, pool: ProcessPoolExecutor, waiting: Sequence[PairTask],
                  running: dict[Future[Outcome], PairTask], attempts: dict[PairTask, int]
                  ) -> Iterator[Outcome]:
        """Run tasks in one pool, no more at once than workers, so that those of a lost one are known."""
        left = list(waiting)
        while left or running:
            while left and len(running) < self.workers:
                task = left.pop(0)
                attempts[task] += 1
                running[pool.submit(_run, task)] = task
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                outcome = future.result()
                del running[future]
                yield outcome


def require_store(store: StudyStore | None, engine: str) -> StudyStore:
    """Return the store, which workers need to hand over their results."""
    if store is None:
        raise SutureError(f"expected a folder for engine={engine!r}, got none; write folder='study'")
    return store


def check_sendable(work: Work) -> None:
    """Check that networks, data and settings can be sent to another process.

    Raises:
        SutureError: it names the first part that cannot.
    """
    parts = {**{f"the network {name!r}": m for name, m in work.members.items()}, "the data": work.data,
             "the test data": work.test, "the settings": dict(work.settings)}
    for name, part in parts.items():
        try:
            pickle.dumps(part)
        except Exception as error:
            raise SutureError(f"{name} cannot be sent to another process: {describe_error(error)}; give "
                              "modules, specs or functions of a module, or write engine='serial'"
                              ) from error


def _start(work: Work, store: StudyStore, threads: int) -> None:
    torch.set_num_threads(threads)
    _STATE["all"] = work, store


def _run(task: PairTask) -> Outcome:
    return run_task(*_STATE["all"], task)
