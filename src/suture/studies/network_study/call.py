"""The public call `study`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from suture._base import Progress, SutureError, get_free_bytes, get_time, listen_to_signals, log_event, takes
from suture.compare import Settings, collect_versions
from suture.results import Comparison
from suture.studies.following.event_log import log_pair
from suture.studies.following.finished_pair import Callbacks, FinishedPair
from suture.studies.network_study.manifest import KeptComparisons, list_broken
from suture.studies.network_study.options import StudyOptions
from suture.studies.network_study.result import Study
from suture.studies.population.members import Member, list_members
from suture.studies.population.pairs import PairName, list_pairs
from suture.studies.running.engine_choice import find_engine
from suture.studies.running.engines import Outcome, run_all
from suture.studies.running.keys import TaskList, list_tasks
from suture.studies.running.store import StudyStore
from suture.studies.running.tasks import Work

_GIVEN = [f.name for f in fields(Settings) if f.name not in ("names", "progress")]


@takes(StudyOptions)
def study(given: StudyOptions) -> Study:
    """Compare many networks pair by pair, and keep every result.

    >>> result = suture.study({"a": a, "b": b, "c": c}, train, test, folder="study")
    >>> result.matrix("cka")

    Each pair is a `suture.compare` with the given settings. A network that cannot be built or compared does
    not end the study: `Study.failures` says why.

    Args:
        {options}

    Raises:
        SutureError: bad input; no pair could be compared.
    """
    with listen_to_signals(), explain_interruption(given.folder):
        return run_study(given)


def run_study(given: StudyOptions) -> Study:
    """Do what `study` does, from the record of its arguments."""
    work, pairs = arrange(given)
    engine, store = find_engine(given.engine), None if given.folder is None else StudyStore.open(given.folder)
    known = {} if store is None else store.read_known()
    listed = list_tasks(work, pairs, given, known)
    about = _describe(work.members, pairs, listed, given)
    if store is not None:
        store.write_manifest(about)
        if listed.known != known:
            store.write_known(listed.known)
    if listed.shares:
        work.memory = min(given.memory_bytes, (get_free_bytes(given.torch_device) or given.memory_bytes) // 2)
    made, failures = dict[PairName, Comparison](), dict(list_broken(about))
    done, total, callbacks = 0, len(listed.tasks), Callbacks(given.callbacks)
    log_event(f"study of {len(work.members)} networks, {total} pairs, {len(listed.failed)} networks failed")
    try:
        with (callbacks.open(),
              closing(run_all(engine, work, store, listed.tasks, given.tell_progress)) as outcomes):
            for done, outcome in enumerate(outcomes, 1):
                _take(outcome, made, failures)
                finished = _finish(outcome, work, store, total - done, total)
                log_pair(finished)
                callbacks.tell(finished)
                _report(given.tell_progress, done, total)
    except KeyboardInterrupt as error:
        error.args = (_explain(done, total, given.folder),)
        log_event(error.args[0])
        raise
    log_event(f"finished: {total - len(failures.keys() & {t.pair for t in listed.tasks})} of {total} pairs "
              "compared")
    kept: Mapping[PairName, Comparison] = {t.pair: made[t.pair] for t in listed.tasks if t.pair in made}
    if store is not None:
        kept = KeptComparisons({t.pair: store.get_place(t) for t in listed.tasks if t.pair not in failures})
    if not kept:
        pair, reason = next(iter(failures.items()))
        raise SutureError(f"no pair could be compared; {' into '.join(pair)}: {reason}")
    return Study.make({**about, "notes": [*listed.notes, *callbacks.notes]}, kept, failures)


@contextmanager
def explain_interruption(folder: Any) -> Iterator[None]:
    """Say of an interruption before the first pair that results of earlier calls are kept."""
    try:
        yield
    except KeyboardInterrupt as error:
        if folder is not None and not any(isinstance(part, str) for part in error.args):
            error.args = (f"interrupted before the first pair; {str(folder)!r} keeps what earlier calls have "
                          "computed",)
        raise


def _explain(done: int, total: int, folder: Any) -> str:
    """Say what was kept of a study that was interrupted, and how to go on."""
    if folder is None:
        return f"interrupted after {done} of {total} pairs; nothing is kept without folder='study'"
    return (f"interrupted after {done} of {total} pairs, which are kept in {str(folder)!r}; the same call "
            "goes on from there")


def arrange(given: StudyOptions) -> tuple[Work, tuple[PairName, ...]]:
    """Return what the tasks of a study share, and its pairs."""
    members = list_members(given.networks, given.about or {})
    pairs = list_pairs(list(members), given.pairs)
    return Work(members, given.data, given.test, {name: getattr(given, name) for name in _GIVEN}), pairs


def _take(outcome: Outcome, made: dict[PairName, Comparison], failures: dict[PairName, str]) -> None:
    record = outcome.record
    assert record is not None  # run_all waits for the tasks of other processes
    if record.reason:
        failures[record.pair] = record.reason
    elif outcome.made is not None:
        made[record.pair] = outcome.made


def _finish(outcome: Outcome, work: Work, store: StudyStore | None, left: int, total: int) -> FinishedPair:
    """Return what callbacks and the log get of an outcome."""
    record = outcome.record
    assert record is not None

    def load() -> Comparison:
        if outcome.made is not None:
            return outcome.made
        assert store is not None  # as the outcome holds no comparison
        return store.load(outcome.task)

    a, b = record.pair
    return FinishedPair(a, b, (work.members[a].about, work.members[b].about), record.key, record.seconds,
                        record.reason, outcome.taken_over, left, total, load)


def _report(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress("pairs", done, total)


def _describe(members: Mapping[str, Member], pairs: Any, listed: TaskList,
              given: StudyOptions) -> dict[str, Any]:
    """Return what the study consists of, as JSON."""
    return {"networks": {name: dict(member.about) for name, member in members.items()},
            "pairs": [list(pair) for pair in pairs],
            "tasks": [{"pair": list(t.pair), "key": t.key} for t in listed.tasks],
            "failed": dict(listed.failed), "notes": list(listed.notes), "created": get_time(),
            "settings": given.as_key(), "versions": collect_versions(),
            "folder": None if given.folder is None else str(Path(given.folder))}
