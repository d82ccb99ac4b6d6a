"""Passes over data that go on from a checkpoint, if the data come as they did before it."""

from __future__ import annotations

from collections.abc import Iterator

from suture._base import KeptPass
from suture.data.batch import Batch
from suture.data.batches import Batches
from suture.data.seen import SeenData, SeenDigest


def go_on(batches: Batches, kept: KeptPass) -> Iterator[tuple[int, Batch]]:
    """Yield the batches after those of the checkpoint, with their numbers, and keep the state between them.

    The earlier batches are read again. If they are not those of the checkpoint, the pass starts anew.
    """
    marks = _Marks(batches, kept)
    if kept.finished and batches.seen is not None and kept.mark == _as_mark(batches.seen):
        kept.fill()
        return
    first = kept.before
    if first and not marks.skip(first):
        kept.discard(f"the {batches.name} did not come as they did before, such as in another order")
        marks, first = _Marks(batches, kept), 0
    kept.fill()
    yield from keep_between(marks, kept, first)
    kept.finish(marks.count, marks.get_mark)


def go_on_in_epoch(batches: Batches, kept: KeptPass, first: int) -> Iterator[tuple[int, Batch]]:
    """Yield the batches of an epoch after the first ones with their numbers, and keep the state after each.

    Data that come in another order do not matter to a training.
    """
    yield from keep_between(_Marks(batches, kept, first), kept, first)


def keep_between(marks: _Marks, kept: KeptPass, first: int) -> Iterator[tuple[int, Batch]]:
    """Yield the rest of the batches, and let the pass keep its state after each."""
    k = first
    while True:
        try:
            batch = marks.read()
        except Exception:
            kept.step(k, marks.get_mark)  # a signal also ends the workers of a loader
            raise
        if batch is None:
            return
        yield k, batch
        k += 1
        kept.step(k, marks.get_mark)


class _Marks:
    """One pass over batches, with a digest of what it has read so far."""

    def __init__(self, batches: Batches, kept: KeptPass, first: int | None = None) -> None:
        self._batches, self._kept, self.count, self._checks = batches, kept, first or 0, first is None
        self._stream = iter(batches) if first is None else batches.iterate(first)
        self._own = SeenDigest() if self._checks and kept.active and not batches.watched else None

    def read(self) -> Batch | None:
        batch = next(self._stream, None)
        if batch is not None:
            self.count += 1
            if self._own is not None:
                self._own.update(batch)
        return batch

    def skip(self, count: int) -> bool:
        """Read so many batches; return True if they are those of the checkpoint."""
        while self.count < count:
            self._kept.check()
            if self.read() is None:
                return False
        if self._kept.finished and self.read() is not None:
            return False
        return self.get_mark() == self._kept.mark

    def get_mark(self) -> str:
        digest = self._own or self._batches.running
        return "" if digest is None or not self._checks else _as_mark(digest.finish())


def _as_mark(seen: SeenData) -> str:
    return f"{seen.examples}/{seen.inputs}/{seen.labels}/{seen.batches}"
