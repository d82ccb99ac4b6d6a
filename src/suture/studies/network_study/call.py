"""The public call `study`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any

from suture._base import Progress, get_free_bytes, get_time, listen_to_signals, takes
from suture.compare import Settings, collect_versions
from suture.results import Comparison
from suture.studies.network_study.options import StudyOptions
from suture.studies.network_study.result import KeptComparisons, Study, list_broken
from suture.studies.population.members import Member, list_members
from suture.studies.population.pairs import PairName, list_pairs
from suture.studies.running.engine_choice import find_engine
from suture.studies.running.engines import Outcome, run_all
from suture.studies.running.keys import TaskList, list_tasks
from suture.studies.running.store import StudyStore
from suture.studies.running.tasks import PairTask, Work

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
    with listen_to_signals():
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
    done, total = 0, len(listed.tasks)
    try:
        with closing(run_all(engine, work, store, listed.tasks, given.progress)) as outcomes:
            for done, outcome in enumerate(outcomes, 1):
                _take(outcome, store, made, failures, given)
                _report(given.progress, done, total)
    except KeyboardInterrupt as error:
        error.args = (_explain(done, total, given.folder),)
        raise
    kept: Mapping[PairName, Comparison] = {t.pair: made[t.pair] for t in listed.tasks if t.pair in made}
    if store is not None:
        kept = KeptComparisons({t.pair: store.get_place(t) for t in listed.tasks if t.pair not in failures})
    return Study.make(about, kept, failures)


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


def _take(outcome: Outcome, store: StudyStore | None, made: dict[PairName, Comparison],
          failures: dict[PairName, str], given: StudyOptions) -> None:
    record = outcome.record
    assert record is not None  # run_all waits for the tasks of other processes
    if record.reason:
        failures[record.pair] = record.reason
        return
    if outcome.made is not None:
        made[record.pair] = outcome.made
    if given.on_result is not None:
        given.on_result(outcome.made or _load(store, outcome.task))


def _load(store: StudyStore | None, task: PairTask) -> Comparison:
    assert store is not None  # as the outcome holds no comparison
    return store.load(task)


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
