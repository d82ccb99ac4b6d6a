"""The folder of a study: a comparison and a record for every task, written as they come."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from suture._base import (
    Keeper,
    LockedError,
    SutureError,
    check_folder,
    hash_parts,
    hold_lock,
    is_held,
    replace_file,
    still_holds,
)
from suture.compare import PASS
from suture.results import Comparison, has_comparison, load, refuse_foreign
from suture.studies.running.tasks import PairTask, TaskRecord

MANIFEST = "study.json"
PAIRS, TASKS, NETWORKS = "pairs", "tasks", "networks"
"""Folders of comparisons, of the records of tasks, and of the weights of networks that a study trains."""
KNOWN = "known.json"
LOG_FILE = "study.log"
FORMAT = "suture.study/1"
_RESULT = "comparison.safetensors"
_CLAIM = "claim"
_OWN = re.compile(rf"{PAIRS}|{TASKS}|{NETWORKS}|\.?study\.json(\..*)?|{re.escape(LOG_FILE)}|\.trial\..*")
"""Names in the folder of a study, with those of files in writing, which a killed process leaves."""


@dataclass(frozen=True)
class StudyStore:
    """The folder of a study, for one or several processes that write to it at once.

    ``study.json`` names networks and tasks of the call that began last, ``pairs/SLUG`` is the folder of a
    comparison, and ``tasks/SLUG.json`` says how its task ended. Slugs hold the key of the task, so that calls
    with other networks or settings are in nobody's way. What is damaged is set aside and computed again.
    """

    folder: Path

    @classmethod
    def open(cls, folder: str | PathLike[str]) -> StudyStore:
        """Return the store of a folder that can be written, before any work."""
        place, found = check_folder(folder), list[str]()
        with suppress(FileNotFoundError):  # another process may remove the folder of its trial meanwhile
            found = [path.name for path in place.iterdir()]
        if not (place / MANIFEST).exists() and not all(map(_OWN.fullmatch, found)):
            raise SutureError(f"expected an empty folder or one of a study, got {str(place)!r}; choose "
                              "another folder")
        return cls(place)

    def get_place(self, task: PairTask) -> Path:
        """Return the folder of a task's comparison."""
        return self.folder / PAIRS / task.slug

    def _get_record(self, task: PairTask) -> Path:
        return self.folder / TASKS / f"{task.slug}.json"

    @contextmanager
    def claim(self, task: PairTask) -> Iterator[None]:
        """Keep a task from other processes while a block works on it.

        Raises:
            LockedError: another process works on it.
        """
        with hold_lock(self._get_record(task), _CLAIM, beats=True):
            yield

    @contextmanager
    def claim_pass(self, tasks: Sequence[PairTask]) -> Iterator[None]:
        """Keep the pass that tasks share from other processes while a block runs it.

        Raises:
            LockedError: another process runs it.
        """
        with hold_lock(self._name_pass(tasks), _CLAIM, beats=True):
            yield

    def is_passing(self, tasks: Sequence[PairTask]) -> bool:
        """Return True while a process runs the pass that tasks share."""
        return is_held(self._name_pass(tasks), _CLAIM, beats=True)

    def _name_pass(self, tasks: Sequence[PairTask]) -> Path:
        return self.folder / TASKS / f"pass-{hash_parts({'tasks': [t.slug for t in tasks]})}"

    def has_moments(self, task: PairTask) -> bool:
        """Return True if a pass for a task was finished, or its result is there."""
        place = self.get_place(task)
        return has_comparison(place) or Keeper(place).has_finished(PASS)

    def check_claim(self, task: PairTask) -> None:
        """Raise a `LockedError` if another process took over the claim, as while this one was suspended."""
        if not still_holds(self._get_record(task), _CLAIM):
            raise LockedError(f"another process took over {' into '.join(task.pair)}")

    def is_claimed(self, task: PairTask) -> bool:
        """Return True while a process works on a task."""
        return is_held(self._get_record(task), _CLAIM, beats=True)

    @contextmanager
    def open_place(self, task: PairTask) -> Iterator[Path]:
        """Hold the folder of a claimed task's comparison in a block, and set aside what is damaged there."""
        self._set_aside_damaged(task)
        with hold_lock(self.get_place(task), beats=True):
            yield self.get_place(task)

    def find(self, task: PairTask) -> TaskRecord | None:
        """Return how a task ended; None if it did not, or its result is damaged or missing."""
        found = _read_checked(self._get_record(task))
        if found is None:
            return None
        record = TaskRecord(**{**found, "pair": tuple(found["pair"])})
        if record.reason or _hash_file(self.get_place(task) / _RESULT) == record.digest:
            return record
        return None

    def finish(self, task: PairTask, reason: str = "", seconds: float = 0.0) -> TaskRecord:
        """Write and return the record of a task that is done, or that failed for a reason.

        Raises:
            SutureError: it cannot be written.
        """
        digest = "" if reason else _hash_file(self.get_place(task) / _RESULT)
        record = TaskRecord(task.pair, task.key, reason, digest, seconds=seconds)
        _write_checked(self._get_record(task), asdict(record))
        return record

    def load(self, task: PairTask) -> Comparison:
        """Load the comparison of a task that is done."""
        return load(self.get_place(task))

    def _set_aside_damaged(self, task: PairTask) -> None:
        """Rename a damaged record, and the folder of a comparison that cannot be loaded or is incomplete."""
        record, place = self._get_record(task), self.get_place(task)
        if record.exists() and _read_checked(record) is None:
            _set_aside(record)
        try:
            refuse_foreign(place)
            if has_comparison(place):
                load(place)
        except (SutureError, OSError):
            _set_aside(place)

    def read_known(self) -> dict[str, Any]:
        """Read what `list_tasks` knows of networks by their stamps."""
        return _read_checked(self.folder / NETWORKS / KNOWN) or {}

    def write_known(self, known: Mapping[str, Any]) -> None:
        """Write what `list_tasks` knows of networks by their stamps."""
        _write_checked(self.folder / NETWORKS / KNOWN, known)

    def write_manifest(self, about: Mapping[str, Any]) -> None:
        """Write what the study consists of."""
        _write_checked(self.folder / MANIFEST, {"format": FORMAT, **about})

    def read_manifest(self) -> dict[str, Any]:
        """Read what the study consists of.

        Raises:
            SutureError: the folder holds no study, or its manifest is damaged or of another version.
        """
        path = self.folder / MANIFEST
        if not path.exists():
            advice = f"; write suture.load({str(self.folder)!r})" if has_comparison(self.folder) else ""
            raise SutureError(f"expected the folder of a study, got {str(self.folder)!r} without "
                              f"{MANIFEST}{advice}")
        found = _read_checked(path)
        if found is None or found.get("format") != FORMAT:
            raise SutureError(f"{str(path)!r} is damaged or of another version; run the study again")
        return found


def _write_checked(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON with its digest, all or nothing."""
    replace_file(path, json.dumps({"content": content, "digest": _hash_content(content)}, indent=1).encode())


def _read_checked(path: Path) -> dict[str, Any] | None:
    """Read JSON that `_write_checked` wrote; None if it is missing or damaged."""
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        read = json.loads(path.read_bytes())
        content = read["content"]
        if isinstance(content, dict) and read["digest"] == _hash_content(content):
            return content
    return None


def _set_aside(path: Path) -> None:
    path.rename(path.with_name(f"{path.name}.damaged-{secrets.token_hex(4)}"))


def _hash_content(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, "" if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
