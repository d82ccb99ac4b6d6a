"""Engines that run the tasks of a study, one of them: all in this process; and what they have in common."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from typing import Protocol

from suture._base import FOREIGN, CheckpointError, LockedError, Progress, SutureError, describe_error
from suture.results import Comparison
from suture.studies.running.group_passes import is_passing, make_ready, plan_groups
from suture.studies.running.store import StudyStore
from suture.studies.running.tasks import PairTask, TaskRecord, Work
from suture.studies.running.training_tasks import TrainTask, run_training

_WAIT = 0.5
"""Seconds between two looks at a task that another process works on."""


@dataclass(frozen=True)
class Outcome:
    """How one attempt at a task ended.

    Attributes:
        task: the task.
        record: None if another process works on it.
        made: the comparison, where no folder keeps it.
        taken_over: True if an earlier run had done it.
    """

    task: PairTask
    record: TaskRecord | None
    made: Comparison | None = None
    taken_over: bool = False


Outcomes = Generator[Outcome, None, None]


class Engine(Protocol):
    """Runs tasks in some order and yields each outcome as it comes; closed, it ends its workers."""

    def run(self, work: Work, store: StudyStore | None, tasks: Sequence[PairTask],
            progress: Progress | None) -> Outcomes: ...


def run_task(work: Work, store: StudyStore | None, task: PairTask,
             progress: Progress | None = None) -> Outcome:
    """Run one task, or find its result; what fails in one pair becomes the reason of its record."""
    if isinstance(task, TrainTask):
        return run_training_task(work, task, progress)
    try:
        if store is None:
            make_ready(work, store, task, progress)
            made = work.compare(task, progress=progress)
            return Outcome(task, TaskRecord(task.pair, task.key), made)
        with store.claim(task):
            found = store.find(task)
            if found is None or found.reason:
                make_ready(work, store, task, progress)
                found = _compute(work, store, task, progress)
            return Outcome(task, found)
    except LockedError:
        return Outcome(task, None)
    except FOREIGN as error:
        return Outcome(task, TaskRecord(task.pair, task.key, explain_failure(error)))


def run_training_task(work: Work, task: TrainTask, progress: Progress | None = None) -> Outcome:
    """Run a training as `run_task` runs a comparison."""
    try:
        return Outcome(task, run_training(work, task, progress))
    except LockedError:
        return Outcome(task, None)
    except FOREIGN as error:
        return Outcome(task, TaskRecord(task.pair, task.key, explain_failure(error)))


def _compute(work: Work, store: StudyStore, task: PairTask, progress: Progress | None) -> TaskRecord:
    """Compute a claimed task, and return the record of its end."""
    def watch(stage: str, done: int, total: int | None) -> None:
        store.check_claim(task)  # or a process that was suspended would write over another's result
        if progress is not None:
            progress(stage, done, total)

    start = time.perf_counter()
    try:
        with store.open_place(task) as place:
            try:
                work.compare(task, place, progress=watch)
            except CheckpointError:
                work.compare(task, place, restart=True, progress=watch)
        store.check_claim(task)
        return store.finish(task, seconds=time.perf_counter() - start)
    except LockedError:
        raise
    except FOREIGN as error:
        store.check_claim(task)
        return note_failure(store, task, explain_failure(error))


def note_failure(store: StudyStore, task: PairTask, reason: str) -> TaskRecord:
    """Return the record of a task that failed, written unless that fails too, as on a full disk."""
    with suppress(SutureError):
        return store.finish(task, reason)
    return TaskRecord(task.pair, task.key, reason)


def explain_failure(error: BaseException) -> str:
    return str(error) if isinstance(error, SutureError) else describe_error(error)


class Serial:
    """Runs one task after another in this process."""

    def run(self, work: Work, store: StudyStore | None, tasks: Sequence[PairTask],
            progress: Progress | None) -> Outcomes:
        for task in tasks:
            start = time.perf_counter()
            outcome = run_task(work, store, task, progress)
            if outcome.made is not None and outcome.record is not None:
                record = replace(outcome.record, seconds=time.perf_counter() - start)
                outcome = replace(outcome, record=record)
            yield outcome


def run_all(engine: Engine, work: Work, store: StudyStore | None, tasks: Sequence[PairTask],
            progress: Progress | None = None) -> Outcomes:
    """Run all tasks, and wait at the end for those that other processes work on.

    Results that are there come first, so that no engine is started for them.
    """
    waiting = []
    for task in tasks:
        record = None if store is None else store.find(task)
        if record is None or record.reason:
            waiting.append(task)
        else:
            yield Outcome(task, record, taken_over=True)
    work.groups = plan_groups(work, waiting)
    place = {task: k for k, task in enumerate(task for group in work.groups for task in group)}
    waiting.sort(key=lambda task: place.get(task, len(place)))
    while waiting:
        busy = []
        with closing(engine.run(work, store, waiting, progress)) as outcomes:
            for outcome in outcomes:
                if outcome.record is None:
                    busy.append(outcome.task)
                else:
                    yield outcome
        if busy and store is not None:
            _wait_for_others(work, store, busy, progress)
        waiting = busy


def _wait_for_others(work: Work, store: StudyStore, busy: Sequence[PairTask],
                     progress: Progress | None) -> None:
    """Wait until one of the tasks is no longer worked on, without a worker that would look for it."""
    if progress is not None:
        progress("waiting for pairs of other processes", 0, len(busy))
    time.sleep(_WAIT)
    while all(store.is_claimed(task) or is_passing(work, store, task) for task in busy):
        time.sleep(_WAIT)
