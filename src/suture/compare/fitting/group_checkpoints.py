"""Checkpoints of a pass that comparisons share: each in the folder of its comparison, all after one batch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from itertools import islice
from pathlib import Path
from typing import Protocol, Self

from suture._base import (
    INTERVAL,
    CheckpointError,
    Keeper,
    KeptPass,
    LockedError,
    delay_interruption,
    find_interruption,
)
from suture.compare.fitting.filling import Filling
from suture.compare.key import shorten_key
from suture.compare.setup import Setup
from suture.data import Batch, Batches, make_mark

PASS = "moments"
"""Name of the pass in checkpoints and progress."""
_SHARE = 10
"""Between two checkpoints there is at least this many times as long as the last one took to write."""


class Places(Protocol):
    """The folders of comparisons that share a pass."""

    def find(self, setup: Setup) -> Path:
        """Return the folder of a comparison."""

    def hold(self, setup: Setup) -> AbstractContextManager[object]:
        """Keep the folder from other processes in a block; a `LockedError` says that another one has it."""


class GroupCheckpoints:
    """What a shared pass keeps of each comparison while it runs in a block; nothing without `places`.

    Args:
        fillings: of the comparisons; those that leave the group are no longer kept.
        batches: the data, with digests of what was read.
    """

    def __init__(self, fillings: list[Filling], batches: Batches, places: Places | None) -> None:
        self._fillings, self._batches, self._places = fillings, batches, places
        self._block, self._saved, self._took, self._steps = ExitStack(), time.monotonic(), 0.0, 0

    def __enter__(self) -> Self:
        if self._places is not None:
            self._block.enter_context(delay_interruption())
        return self

    def __exit__(self, *error: object) -> None:
        self._block.close()

    def read(self) -> Iterator[tuple[int, Batch]]:
        """Yield numbered batches, after those of the checkpoints if all go on from one batch."""
        stream, first = iter(self._batches), 0
        kept = self._find_kept()
        if kept:
            first = kept[0].before
            for _ in islice(stream, first):
                self._check()
            if self._batches.running is not None and make_mark(self._batches.running) == kept[0].mark:
                for one in kept:
                    one.fill()
            else:
                stream, first = iter(self._batches), 0
        yield from enumerate(stream, first)

    def _find_kept(self) -> list[KeptPass]:
        """Return the checkpoints of all comparisons, of the same batch; none if one has another or none."""
        found: list[KeptPass] = []
        for filling in self._fillings if self._places is not None else ():
            try:
                kept = KeptPass(self._make_keeper(filling), PASS, filling.state)
            except CheckpointError:
                return []
            if not kept.before or kept.finished or (found and found[0].mark != kept.mark):
                return []
            found.append(kept)
        return found

    def _make_keeper(self, filling: Filling) -> Keeper:
        setup = filling.setup
        assert self._places is not None
        assert isinstance(setup, Setup)
        return Keeper(self._places.find(setup), shorten_key(setup.key), setup.settings.torch_device)

    def _check(self) -> None:
        interruption = find_interruption() if self._places is not None else None
        if interruption is not None:
            raise interruption

    def step(self, steps: int) -> None:
        """Say that so many batches are done; what is there is kept if it is time, or at an interruption.

        Raises:
            Interruption: a signal came in the last step.
        """
        self._steps = steps
        if self._places is None:
            return
        waited, interruption = time.monotonic() - self._saved, find_interruption()
        if interruption is not None or waited >= max(INTERVAL, _SHARE * self._took):
            self._save(False)
        if interruption is not None:
            raise interruption

    def finish(self) -> None:
        """Keep what a whole pass has collected."""
        if self._places is not None:
            self._save(True)

    def _save(self, finished: bool) -> None:
        assert self._places is not None
        assert self._batches.running is not None
        began, mark = time.monotonic(), make_mark(self._batches.running)
        position = {"steps": self._steps, "mark": mark, "finished": finished,
                    "seen": {PASS: mark} if finished else {}}
        for filling in self._fillings:
            assert isinstance(filling.setup, Setup)
            try:
                with self._places.hold(filling.setup):
                    self._make_keeper(filling).save(PASS, filling.state, position)
            except LockedError:
                continue  # another process works on this pair
        self._saved, self._took = time.monotonic(), time.monotonic() - began
