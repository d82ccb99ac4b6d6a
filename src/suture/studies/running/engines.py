"""Engines that run the tasks of a study, one of them: all in this process; and what they have in common."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from suture._base import LockedError, Progress, SutureError
from suture.results import Comparison
from suture.studies.running.store import StudyStore
from suture.studies.running.tasks import PairTask, TaskRecord, Work

_WAIT = 0.5
"""Seconds between two looks at a task that another process works on."""


@dataclass(frozen=True)
class Outcome:
    """How one attempt at a task ended.

    Attributes:
        task: the task.
        record: None if another process works on it.
        made: the comparison, where no folder keeps it.
    """

    task: PairTask
    record: TaskRecord | None
    made: Comparison | None = None


class Engine(Protocol):
    """Runs tasks in some order and yields each outcome as it comes."""

    def run(self, work: Work, store: StudyStore | None, tasks: Sequence[PairTask],
            progress: Progress | None) -> Iterator[Outcome]: ...


def run_task(work: Work, store: StudyStore | None, task: PairTask,
             progress: Progress | None = None) -> Outcome:
    """Run one task, or find its result; bad input of one pair becomes the reason of its record."""
    try:
        if store is None:
            made = work.compare(task.pair, progress=progress)
            return Outcome(task, TaskRecord(task.pair, task.key), made)
        with store.claim(task):
            found = store.find(task)
            if found is None or found.reason:
                store.set_aside_damaged(task)
                start = time.perf_counter()
                work.compare(task.pair, store.get_place(task), progress=progress)
                found = store.finish(task, seconds=time.perf_counter() - start)
            return Outcome(task, found)
    except LockedError:
        return Outcome(task, None)
    except SutureError as error:
        failed = str(error)
    return Outcome(task, TaskRecord(task.pair, task.key, failed) if store is None
                   else store.finish(task, failed))


class Serial:
    """Runs one task after another in this process."""

    def run(self, work: Work, store: StudyStore | None, tasks: Sequence[PairTask],
            progress: Progress | None) -> Iterator[Outcome]:
        for task in tasks:
            yield run_task(work, store, task, progress)


def run_all(engine: Engine, work: Work, store: StudyStore | None, tasks: Sequence[PairTask],
            progress: Progress | None = None) -> Iterator[Outcome]:
    """Run all tasks, and wait at the end for those that other processes work on.

    Results that are there come first, so that no engine is started for them.
    """
    waiting = []
    for task in tasks:
        record = None if store is None else store.find(task)
        if record is None or record.reason:
            waiting.append(task)
        else:
            yield Outcome(task, record)
    while waiting:
        busy = []
        for outcome in engine.run(work, store, waiting, progress):
            if outcome.record is None:
                busy.append(outcome.task)
            else:
                yield outcome
        if len(busy) == len(waiting):
            time.sleep(_WAIT)
        waiting = busy
