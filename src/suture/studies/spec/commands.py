"""What can be done with the file of a study: plan it, run it, say how it stands, and clean its folder."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from suture._base import Progress, SutureError, checked, is_held, log_event
from suture.studies.following.event_log import keep_log
from suture.studies.network_study.call import arrange, explain_interruption, run_study
from suture.studies.network_study.manifest import list_broken, read_tasks
from suture.studies.network_study.options import StudyOptions
from suture.studies.network_study.result import Study
from suture.studies.population.pairs import PairName
from suture.studies.population.sources import TrainedNetwork
from suture.studies.running.keys import TaskList, list_tasks
from suture.studies.running.store import KNOWN, LOG_FILE, MANIFEST, NETWORKS, PAIRS, TASKS, StudyStore
from suture.studies.running.tasks import PairTask, Work
from suture.studies.spec.study_file import StudyFile
from suture.studies.spec.training import train_missing

_DAMAGED = r"\.damaged-[0-9a-f]{8}"
_SLUG = re.compile(rf"(?P<slug>.+-[0-9a-f]{{6}}-[0-9a-f]{{16}})(\.json)?(?P<damaged>{_DAMAGED})?")
_WEIGHTS = re.compile(
    rf"\.?(?P<file>.+-[0-9a-f]{{16}}(-epoch\d+)?\.safetensors)((?P<damaged>{_DAMAGED})|\.checkpoint-.*)?")


@checked
def run_file(spec: StudyFile, progress: Progress | None = None, on_result: Any = None) -> Study:
    """Train what is to be trained, and run the study of a file; ``study.log`` in its folder has the events.

    Args:
        progress, on_result: as for `suture.study`.
    """
    with explain_interruption(spec.folder):
        given = spec.open()
        StudyStore.open(spec.folder)
        return _run_opened(spec, given, progress, on_result)


def _run_opened(spec: StudyFile, given: StudyOptions, progress: Progress | None, on_result: Any) -> Study:
    with keep_log(spec.folder / LOG_FILE):
        log_event(f"begins: {spec.file.path}")
        networks = train_missing(spec, given, progress)
        return run_study(replace(given, networks=networks, progress=progress, on_result=on_result))


@dataclass(frozen=True)
class PlannedRun:
    """What a run would do.

    Attributes:
        states: "done", "to do", or why it failed, of each pair.
        untrained: networks to train first.
        failed: reasons why networks cannot be built.
        seconds: estimated time of the pairs to do, without trainings; None if unknown.
        size: estimated bytes of their results; None before the first.
        free: bytes of the disk that are free.
        notes: sentences for the reader.
    """

    states: Mapping[PairName, str]
    untrained: tuple[str, ...]
    failed: Mapping[str, str]
    seconds: float | None
    size: int | None
    free: int
    notes: tuple[str, ...]

    @property
    def to_do(self) -> list[PairName]:
        """Pairs that a run would compare: those that failed are tried again."""
        return [pair for pair, state in self.states.items() if state != DONE]


DONE, TO_DO = "done", "to do"


@checked
def plan_file(spec: StudyFile) -> PlannedRun:
    """Say what a run of a file would do; nothing is run or trained but a few examples of one pair."""
    listed, work, untrained = _list(spec)
    store = StudyStore.open(spec.folder)
    states, sizes = dict[PairName, str](), list[int]()
    for task in listed.tasks:
        record = None if untrained & set(task.pair) else store.find(task)
        states[task.pair] = TO_DO if record is None else record.reason or DONE
        if states[task.pair] == DONE:
            sizes.append(sum(file.stat().st_size for file in store.get_place(task).rglob("*")))
    left, notes = [task for task in listed.tasks if states[task.pair] != DONE], [*listed.notes]
    seconds = _estimate(work, left, notes)
    size = round(len(left) * sum(sizes) / len(sizes)) if sizes else None
    place = next(part for part in (spec.folder.absolute(), *spec.folder.absolute().parents) if part.exists())
    to_train = tuple(name for name in work.members if name in untrained)
    return PlannedRun(states, to_train, listed.failed, seconds, size, shutil.disk_usage(place).free,
                      tuple(notes))


def _estimate(work: Work, left: list[PairTask], notes: list[str]) -> float | None:
    """Return the seconds of some pairs by the first that can be estimated; a note says if none can."""
    problem = ""
    for task in left:
        try:
            work.estimate(task)  # because the first passes of a process take a hundred times as long
            each = list(work.estimate(task).seconds.values())
        except SutureError as error:
            problem = problem or f"{' into '.join(task.pair)} cannot be compared: {error}"
            continue
        return None if None in each else len(left) * sum(s for s in each if s is not None)
    notes += filter(None, [problem])
    return None if left else 0.0


def _list(spec: StudyFile) -> tuple[TaskList, Work, set[str]]:
    """Return tasks, their work, and networks to train, in place of which stand those with random weights."""
    given = spec.open()
    untrained = {name: source.untrained for name, source in given.networks.items()
                 if isinstance(source, TrainedNetwork) and not source.path.exists()}
    work, pairs = arrange(replace(given, networks={**given.networks, **untrained}))
    listed = list_tasks(work, pairs, given, StudyStore(spec.folder).read_known())
    random = {f"{name}: " for name in untrained}
    return (replace(listed, notes=[n for n in listed.notes if not n.startswith(tuple(random))]), work,
            set(untrained))


@dataclass(frozen=True)
class Standing:
    """How the last run of a file stands.

    Attributes:
        trained: number of networks that are trained, and of those to train.
        done, running, waiting: pairs.
        failed: reasons by pair.
        seconds: time left at the pace so far; None if it is unknown.
        changed: True if the file has changed since.
    """

    trained: tuple[int, int]
    done: tuple[PairName, ...]
    running: tuple[PairName, ...]
    waiting: tuple[PairName, ...]
    failed: Mapping[PairName, str]
    seconds: float | None
    changed: bool


@checked
def find_standing(spec: StudyFile) -> Standing:
    """Say how the last run of a file stands; networks are not opened."""
    store, pairs = StudyStore(spec.folder), spec.list_pairs()
    trained = _count_trained(spec)
    if not (spec.folder / MANIFEST).exists():
        return Standing(trained, (), (), pairs, {}, None, False)
    about = store.read_manifest()
    done, running, waiting, paces = list[PairName](), list[PairName](), list[PairName](), list[float]()
    failed = dict(list_broken(about))
    for task in read_tasks(about):
        claimed, record = store.is_claimed(task), store.find(task)
        if claimed and (record is None or record.reason):
            running.append(task.pair)
        elif record is None:
            waiting.append(task.pair)
        elif record.reason:
            failed[task.pair] = record.reason
        else:
            done.append(task.pair)
            paces += [record.seconds] if record.seconds else []
    left = len(running) + len(waiting)
    seconds = sum(paces) / len(paces) * left / max(1, len(running)) if paces else None
    return Standing(trained, tuple(done), tuple(running), tuple(waiting), failed, seconds,
                    not _is_of(about, spec))


def _count_trained(spec: StudyFile) -> tuple[int, int]:
    if all(entry.is_given for entry in spec.networks.values()):
        return 0, 0
    paths = [source.path for source in spec.open().networks.values() if isinstance(source, TrainedNetwork)]
    return sum(path.exists() for path in paths), len(paths)


def _is_of(about: Mapping[str, Any], spec: StudyFile) -> bool:
    """Return True if a manifest was written for what a file says now."""
    pairs = spec.list_pairs()
    now = {"networks": {name: dict(entry.about) for name, entry in spec.networks.items()},
           "pairs": [list(pair) for pair in pairs], "settings": spec.settings.as_key()}
    return bool(json.loads(json.dumps(now)) == {name: about[name] for name in now})


@checked
def list_garbage(spec: StudyFile) -> list[Path]:
    """Return files and folders of the study that its file no longer names, and those set aside as damaged.

    What another process works on stays, and so do results of networks that cannot be built now.
    """
    listed, _, _ = _list(spec)
    store = StudyStore.open(spec.folder)
    about = store.read_manifest() if (spec.folder / MANIFEST).exists() else None
    old = () if about is None or not _is_of(about, spec) else read_tasks(about)
    kept = {task.slug for task in (*listed.tasks, *old)}
    pairs = spec.list_pairs()
    unknown = tuple(PairTask(pair, "").slug for pair in pairs if listed.failed.keys() & set(pair))
    found = [path for folder in (PAIRS, TASKS) for path in _list_folder(spec.folder / folder)
             if (named := _SLUG.fullmatch(path.name)) is not None
             and (named["damaged"] or not (named["slug"] in kept or named["slug"].startswith(unknown)))
             and not is_held(spec.folder / TASKS / f"{named['slug']}.json", "claim", beats=True)]
    found += _list_weights(spec.folder / NETWORKS, spec.open())
    return found + [path for name in (MANIFEST, f"{NETWORKS}/{KNOWN}")
                    for path in sorted(spec.folder.glob(f"{name}.damaged-*"))]


def _list_weights(folder: Path, given: StudyOptions) -> Iterator[Path]:
    trained = [source for source in given.networks.values() if isinstance(source, TrainedNetwork)]
    kept = {name for source in trained for name in (source.path.name, source.training.name)}
    for path in _list_folder(folder):
        named = _WEIGHTS.fullmatch(path.name)
        if named is not None and (named["damaged"] or named["file"] not in kept) and not is_held(
                folder / re.sub(r"-epoch\d+(?=\.\w+$)", "", named["file"]), "writing"):
            yield path


def _list_folder(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


@checked
def remove_garbage(paths: list[Path]) -> None:
    """Remove files and folders that `list_garbage` found."""
    for path in paths:
        with suppress(FileNotFoundError):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
