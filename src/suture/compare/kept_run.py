"""The folder that a comparison is saved to: found fit before any pass, locked, and kept up to date."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Protocol, TypeVar

from suture._base import (
    NO_KEEPER,
    RESTART,
    Keeper,
    Progress,
    SutureError,
    check_folder,
    hold_lock,
    listen_to_signals,
    log_event,
)
from suture.compare.key import shorten_key
from suture.compare.records import LOGGED, SharedSetup
from suture.results import (
    Comparison,
    give_up_result,
    has_comparison,
    is_given_up,
    load,
    refuse_foreign,
    remove_temporary,
)

S = TypeVar("S", bound=SharedSetup)


class Kept(Protocol):
    """Options of a comparison that say where it is kept."""

    @property
    def save_to(self) -> str | PathLike[str] | None: ...

    @property
    def restart(self) -> bool: ...

    @property
    def previous(self) -> Comparison | None: ...

    @property
    def tell_progress(self) -> Progress | None: ...


@contextmanager
def hold_folder(place: str | Path, restart: bool = False) -> Iterator[str]:
    """Check and lock the folder of a result in a block, before any work.

    With `restart`, a damaged result in it is no obstacle.

    Yields:
        A sentence on a lock that was taken over; usually empty.

    Raises:
        SutureError: the folder holds other files, cannot be written, or is in use.
    """
    folder = check_folder(place)
    refuse_foreign(folder, damaged=restart)
    with hold_lock(folder) as note, listen_to_signals():
        remove_temporary(folder)
        yield note


@dataclass
class KeptRun:
    """A comparison and its folder.

    Attributes:
        folder: None if nothing is saved.
        previous: the earlier result that the run goes on from.
        restart: begin anew. The earlier result stays until the first stage is saved.
    """

    folder: Path | None
    previous: Comparison | None
    restart: bool = False
    _keeper: Keeper = NO_KEEPER
    _finished: Sequence[str] = ()

    def keep(self, setup: S) -> S:
        """Return the setup with checkpoints in the folder."""
        if self.folder is None:
            return setup
        self._keeper = Keeper(self.folder, shorten_key(setup.key), setup.settings.torch_device)
        if self.restart:
            self._keeper.remove_all()
            give_up_result(self.folder)
        return replace(setup, keeper=self._keeper)

    def save(self, result: Comparison, stage: str) -> None:
        """Save a result after a stage, and remove the checkpoints of this stage."""
        if self.folder is not None:
            result.save(self.folder)
            self._finished = result.meta["stages"]
            self._keeper.finish(stage)

    def end(self) -> None:
        self._keeper.remove_all()

    def explain(self) -> str:
        """Say what was kept of a run that was interrupted, and how to go on."""
        last = self._keeper.find_last()
        kept = [*self._finished, *([f"{last} so far"] if last else [])]
        if not kept:
            return "interrupted; nothing was finished yet, so the same call starts anew"
        again = "the same call without restart" if self.restart else "the same call"
        return f"interrupted; kept in {str(self.folder)!r}: {', '.join(kept)}; {again} goes on from there"


def report_checkpoints(setup: SharedSetup) -> None:
    """Say through the progress function what was taken over from checkpoints."""
    while setup.keeper.notes:
        note = setup.keeper.notes.pop(0)
        log_event(note, of=LOGGED)
        if setup.settings.tell_progress is not None:
            setup.settings.tell_progress(note, 1, 1)


@contextmanager
def open_kept_run(given: Kept) -> Iterator[KeptRun]:
    """Hold the folder of a comparison in a block. An interruption says what was kept."""
    if given.save_to is None:
        yield KeptRun(None, given.previous)
        return
    folder = Path(given.save_to)
    with hold_folder(folder, given.restart) as note:
        if note and given.tell_progress is not None:
            given.tell_progress(note, 1, 1)
        previous = None if given.restart or is_given_up(folder) else _load_earlier(folder)
        stages = () if previous is None else previous.meta.get("stages", ())
        made = KeptRun(folder, previous, given.restart, _finished=stages)
        try:
            yield made
        except KeyboardInterrupt as e:
            e.args = (made.explain(),)
            raise


def _load_earlier(folder: Path) -> Comparison | None:
    """Return the result in a folder; None if there is none."""
    try:
        return load(folder) if has_comparison(folder) else None
    except SutureError as e:
        raise SutureError(f"{e}; or {RESTART}") from e
