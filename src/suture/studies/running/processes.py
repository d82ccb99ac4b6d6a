"""The engine that runs the tasks of a study in several processes of this machine."""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from threading import Event, Lock, Thread

import torch

from suture._base import Progress, SutureError, describe_error, expect
from suture.studies.running.engines import Outcome, Outcomes, note_failure, run_task
from suture.studies.running.store import StudyStore
from suture.studies.running.tasks import PairTask, Work

MOST_ATTEMPTS = 3
"""Number of times that a task is begun whose worker ends before it does; the last time it runs alone."""
_LOST = f"its worker process ended {MOST_ATTEMPTS} times without a word, as one that is killed"
_GRACE = 30.0
"""Seconds that a worker has to write its checkpoint when it is to end."""
_LOOK = 0.2
"""Seconds between two looks if the process that started a worker lives."""
_BUSY, _STOP = Lock(), Event()
"""Of this worker: held during a task, and set when it is to end."""
_STATE: dict[str, tuple[Work, StudyStore]] = {}
"""What the tasks of this worker share."""


@dataclass(frozen=True)
class Processes:
    """Runs tasks in worker processes, each of which gets networks and data once.

    A worker that ends in mid-task, such as one that was killed, is replaced, and the task goes on from its
    checkpoints. Workers end with the process that started them.

    Attributes:
        workers: number of processes.
    """

    workers: int = 2

    def __post_init__(self) -> None:
        expect(self.workers >= 1, "at least one worker", self.workers)

    def run(self, work: Work, store: StudyStore | None, tasks: Sequence[PairTask],
            progress: Progress | None) -> Outcomes:
        """Run tasks; see `Engine`. Stages within a pair are not reported."""
        store = require_store(store, "processes")
        sent = work.replace(settings={k: v for k, v in work.settings.items() if k != "progress"})
        check_sendable(sent)
        waiting, losses = list(tasks), dict.fromkeys(tasks, 0)
        while waiting:
            # At last tasks of pools with lost workers run alone, to see which of them ends workers.
            doubtful = [task for task in waiting if losses[task] >= MOST_ATTEMPTS - 1]
            running: dict[Future[Outcome], PairTask] = {}
            workers = 1 if doubtful else min(self.workers, len(waiting))
            threads = max(1, torch.get_num_threads() // self.workers)
            try:
                with _open_pool(workers, sent, store, threads) as pool:
                    for outcome in _run_pool(pool, doubtful or waiting, running, workers):
                        waiting.remove(outcome.task)
                        yield outcome
            except BrokenProcessPool:
                for task in running.values():
                    losses[task] += 1
                    if losses[task] >= MOST_ATTEMPTS and len(running) == 1:
                        waiting.remove(task)
                        yield Outcome(task, note_failure(store, task, _LOST))


@contextmanager
def _open_pool(workers: int, work: Work, store: StudyStore, threads: int) -> Iterator[ProcessPoolExecutor]:
    """Run worker processes in a block; if it fails, they end within a batch, and else when they are done."""
    context = get_context("spawn")
    watched, driver = context.Pipe(duplex=False)  # closed when this process closes its end, or is killed
    pool = ProcessPoolExecutor(workers, context, _start, (work, store, threads, watched))
    try:
        yield pool
    except BaseException:
        driver.close()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        driver.close()
        watched.close()


def _run_pool(pool: ProcessPoolExecutor, tasks: Sequence[PairTask], running: dict[Future[Outcome], PairTask],
              most: int) -> Iterator[Outcome]:
    """Run tasks in one pool, no more at once than workers, so that those of a lost one are known."""
    left = list(tasks)
    while left or running:
        while left and len(running) < most:
            task = left.pop(0)
            with _block_interruptions():
                running[pool.submit(_run, task)] = task
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            outcome = future.result()
            del running[future]
            yield outcome


@contextmanager
def _block_interruptions() -> Iterator[None]:
    """Let SIGINT wait while workers are started: they inherit this, and print nothing while they import."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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


def _start(work: Work, store: StudyStore, threads: int, watched: Connection) -> None:
    # Ctrl-C reaches all processes of a terminal: the one that started the workers ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with, args=(watched,), daemon=True).start()
    torch.set_num_threads(threads)
    _STATE["all"] = work, store


def _end_with(watched: Connection) -> None:
    """Wait until the process that started this one has ended or closed its pool, then end in good order."""
    with suppress(EOFError, OSError):
        watched.recv()
    _STOP.set()
    if _BUSY.locked():
        os.kill(os.getpid(), signal.SIGTERM)  # an interruption of the task, which writes a checkpoint
    if _BUSY.acquire(timeout=_GRACE):
        _BUSY.release()  # for a task that was handed over and has not begun: it returns at once
        driver = parent_process()
        while driver is not None and driver.is_alive():  # which ends this process when all are done
            time.sleep(_LOOK)
    os._exit(1)


def _run(task: PairTask) -> Outcome:
    with _BUSY:
        try:
            return Outcome(task, None) if _STOP.is_set() else run_task(*_STATE["all"], task)
        except KeyboardInterrupt:
            if not _STOP.is_set():  # a signal to this worker alone, which is lost, and not the study
                os._exit(1)
            return Outcome(task, None)
