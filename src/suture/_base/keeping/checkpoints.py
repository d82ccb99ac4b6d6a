"""Checkpoints of long passes: what is kept about every minute, and at interruption, so that a run goes on."""

from __future__ import annotations

import json
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from suture._base.errors import SutureError, SutureWarning
from suture._base.files import TensorFile, clean_file_name, load_tensors, save_tensors
from suture._base.hashing import hash_parts
from suture._base.keeping.interruptions import delay_interruption, find_interruption
from suture._base.keeping.object_state import UnknownStateError, fill_state, write_state

KIND = "suture.checkpoint/1"
INTERVAL = 60.0
"""Seconds after which the state of a running pass is written."""
_LEAST = 0.1
"""Share of the interval of a pass whose end is written."""
_SHARE = 10
"""Between two checkpoints there is at least this many times as long as the first one took to write."""
RESTART = "restart=True (--restart) removes it"
FOLDER_NAMES = "checkpoint-", ".safetensors"
"""Beginning and end of the names of checkpoints in the folder of a comparison."""
CHECKPOINT_NAME = re.compile(r"checkpoint-[A-Za-z0-9._-]+\.safetensors")
_LONGEST_HEADER = 100_000_000
"""Bytes, the limit of safetensors."""


class CheckpointError(SutureError):
    """A checkpoint is damaged or of another run, so that this run cannot go on from it."""


def is_checkpoint(path: Path) -> bool:
    """Return True for a file that a keeper has written, also if it is cut off or empty.

    Weights of the user's own may have the name of a checkpoint.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
            header = file.read(min(int.from_bytes(start, "little"), _LONGEST_HEADER))
    except OSError:
        return False
    return not start or KIND.encode() in header


class Keeper:
    """The checkpoints of one run.

    Args:
        folder: where they lie. None: nothing is kept.
        key: what decides the run's numbers, as JSON. A checkpoint of another key is never used.
        device: of the run.
        names: beginning and end of the names of the files.
        restart: do not go on from earlier checkpoints. They are removed when the first pass begins.

    Attributes:
        notes: sentences on what was taken over.
        seen: digests of the data that the passes of this run have read to their ends, by name of the pass.
    """

    def __init__(self, folder: Path | None = None, key: Any = None, device: torch.device | str = "cpu",
                 names: tuple[str, str] = FOLDER_NAMES, *, restart: bool = False) -> None:
        self.folder, self.device, self._ends, self._restart = folder, torch.device(device), names, restart
        self._key = "" if folder is None else hash_parts({"key": key, "device": str(device)})
        self.notes: list[str] = []
        self.seen: dict[str, str] = {}
        self._saved, self._took = time.monotonic(), 0.0
        self._stages: dict[str, set[Path]] = {}
        self._names: list[str] = []

    def find_path(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / clean_file_name(name).join(self._ends)

    @contextmanager
    def keep(self, name: str, state: dict[str, Any], stage: str = "",
             shorten: Callable[[], None] | None = None) -> Iterator[KeptPass]:
        """Keep the state of a pass that runs in a block.

        Args:
            name: of the pass, once in a run.
            state: objects by name; those that can change are filled in place with the state of a checkpoint
                (`fill_state`).
            stage: the checkpoint is removed when this stage ends. Default: when the run ends.
            shorten: called before the state is written, to bring it into a short form.
        """
        if self.folder is None:
            yield KeptPass(None, name, state, shorten)
            return
        if self._restart:
            self.remove_all()
            self._restart = False
        while name in self._names:
            name += " again"
        self._names.append(name)
        self._stages.setdefault(stage, set()).add(self.find_path(name))
        with delay_interruption():
            yield KeptPass(self, name, state, shorten)

    def has(self, name: str) -> bool:
        """Return True if there is a checkpoint of a pass."""
        return self.folder is not None and self.find_path(name).exists()

    def has_finished(self, name: str) -> bool:
        """Return True if there is a checkpoint of the end of a pass; the rest of the file is not checked."""
        with suppress(OSError, ValueError, KeyError, TypeError), self.find_path(name).open("rb") as file:
            header = file.read(min(int.from_bytes(file.read(8), "little"), _LONGEST_HEADER))
            about = json.loads(json.loads(header)["__metadata__"]["about"])
            return bool(about["position"]["finished"])
        return False

    def is_due(self) -> bool:
        waited = time.monotonic() - self._saved
        return waited >= INTERVAL and waited >= _SHARE * self._took

    def is_long(self) -> bool:
        """Return True if so much was done since the last checkpoint that the end of a pass is worth one."""
        return time.monotonic() - self._saved >= _LEAST * INTERVAL

    def find_last(self) -> str:
        """Return the name of the last pass of which there is a checkpoint; "" without one."""
        return next((name for name in reversed(self._names) if self.has(name)), "")

    def save(self, name: str, state: dict[str, Any], position: dict[str, Any]) -> None:
        """Write a checkpoint; a disk that is full does not end the run."""
        began = time.monotonic()
        try:
            tree, tensors = write_state(state)
            assert self.folder is not None
            save_tensors(self.find_path(name), KIND, tensors, {"key": self._key, "name": name, "state": tree,
                                                               "position": position})
            self._took = time.monotonic() - began
        except UnknownStateError:
            pass  # a detector of the user's own holds what only its code knows: the pass starts anew
        except SutureError as e:
            warnings.warn(f"no checkpoint of {name!r}, and the run goes on: {e}", SutureWarning, stacklevel=2)
        self._saved = time.monotonic()  # also without a checkpoint, or every batch would try again

    def load(self, name: str) -> TensorFile | None:
        """Load the checkpoint of a pass; None if there is none.

        Raises:
            SutureError: the file is damaged or of another run. It names it.
        """
        path = self.find_path(name)
        if not path.exists():
            return None
        try:
            file = load_tensors(path, KIND)
        except SutureError as e:
            raise CheckpointError(f"{e}, or {RESTART}") from e
        if file.about["key"] != self._key:
            raise CheckpointError(f"{str(path)!r} was kept by a run with other networks, settings or "
                                  f"device; choose another place, or {RESTART}")
        return file

    def finish(self, stage: str) -> None:
        """Remove the checkpoints of a stage, after its result was saved."""
        for path in self._stages.pop(stage, ()):
            path.unlink(missing_ok=True)

    def remove_all(self) -> None:
        """Remove all checkpoints, also those of other runs into the folder."""
        if self.folder is None:
            return
        name = re.compile("[A-Za-z0-9._-]+".join(map(re.escape, self._ends)))
        for path in list(self.folder.iterdir()):
            if name.fullmatch(path.name) and is_checkpoint(path):
                with suppress(OSError):
                    path.unlink()


NO_KEEPER = Keeper()
"""A keeper that keeps nothing."""


class KeptPass:
    """One pass of a run: its position in steps, and what its checkpoints hold.

    Attributes:
        before: number of steps of the checkpoint that was found; 0 without one.
        mark: the mark of its data there, see `step`.
        finished: True if the pass was done there.
    """

    def __init__(self, keeper: Keeper | None, name: str, state: dict[str, Any],
                 shorten: Callable[[], None] | None = None) -> None:
        self.keeper, self.name, self.state, self._shorten = keeper, name, state, shorten
        self._file = None if keeper is None else keeper.load(name)
        position = {} if self._file is None else self._file.about["position"]
        self.before, self.mark = int(position.get("steps", 0)), str(position.get("mark", ""))
        self.finished = bool(position.get("finished"))
        self._seen: dict[str, str] = position.get("seen", {})

    def fill(self) -> bool:
        """Fill the state from the checkpoint; return False if there is none."""
        if self._file is None or self.keeper is None:
            return False
        try:
            fill_state(self.state, self._file.about["state"], self._file.tensors, self.keeper.device)
        except UnknownStateError as e:
            path = self.keeper.find_path(self.name)
            raise SutureError(f"{str(path)!r} does not fit ({e}); remove it, or {RESTART}") from e
        self._file = None
        self.keeper.notes.append(f"went on from a checkpoint of {self.name}")
        return True

    def fill_unless_changed(self) -> None:
        """Fill the state of a pass that reads no data itself.

        It starts anew if an earlier pass of this run has read other data than before the checkpoint.
        """
        now = {} if self.keeper is None else self.keeper.seen
        if any(now.get(name, mark) != mark for name, mark in self._seen.items()):
            self.discard("the data did not come as they did before")
        self.fill()

    def discard(self, why: str) -> None:
        """Start the pass anew, with a note that says why."""
        assert self.keeper is not None
        self._file, self.before, self.finished = None, 0, False
        self.keeper.notes.append(f"started {self.name} anew: {why}")
        self.keeper.find_path(self.name).unlink(missing_ok=True)

    @property
    def active(self) -> bool:
        return self.keeper is not None

    def check(self) -> None:
        """Raise an interruption that waits; the checkpoint stays as it is."""
        interruption = find_interruption() if self.active else None
        if interruption is not None:
            raise interruption

    def step(self, steps: int, mark: Callable[[], str] = str, now: bool = False) -> None:
        """Say that the state is whole after so many steps; write it if it is time, or at an interruption.

        `mark` returns a digest of the data so far, which a later run compares. With `now` it is time.

        Raises:
            Interruption: a signal came in the last step.
        """
        self._keep(steps, mark, lambda keeper: now or keeper.is_due())

    def note_data(self, mark: str) -> None:
        """Note the digest of all data of the pass, which later passes depend on."""
        if self.keeper is not None and mark:
            self.keeper.seen[self.name] = mark

    def finish(self, steps: int, mark: Callable[[], str] = str) -> None:
        """Say that the pass is done; its end is written if it took long."""
        self.finished = True
        self.note_data(mark())
        self._keep(steps, mark, Keeper.is_long)

    def _keep(self, steps: int, mark: Callable[[], str], is_time: Callable[[Keeper], bool]) -> None:
        if self.keeper is None:
            return
        interruption = find_interruption()
        if interruption is None and not is_time(self.keeper):
            return
        if self._shorten is not None:
            self._shorten()
        self.keeper.save(self.name, self.state, {"steps": steps, "mark": mark(), "finished": self.finished,
                                                 "seen": dict(self.keeper.seen)})
        if interruption is not None:
            raise interruption
