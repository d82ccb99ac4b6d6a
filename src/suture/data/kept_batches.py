"""Passes over data that go on from a checkpoint, if the data come as they did before it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from torch import Tensor

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
        kept.note_data(kept.mark)
        return
    first = kept.before
    if first and not marks.skip(first):
        kept.discard(f"the {batches.name} did not come as they did before, such as in another order")
        marks, first = _Marks(batches, kept), 0
    kept.fill()
    yield from keep_between(marks, kept, first)
    kept.finish(marks.count, marks.get_mark)


@dataclass(kw_only=True)
class EpochPosition:
    """Where a training stands, a part of what its checkpoint holds.

    Attributes:
        epoch: epoch that runs, from 0.
        batch: number of its batches that are done.
        order: state of the data's order at the start of this epoch; None before the first, and where suture
            does not shuffle.
    """

    epoch: int = 0
    batch: int = 0
    order: Tensor | None = None

    def read(self, stream: Iterable[Batch], kept: KeptPass) -> Iterator[tuple[int, Batch]]:
        """Yield the rest of the epoch's batches in its order, with their numbers; keep the state after each.

        Data that come in another order do not matter to a training.
        """
        if not isinstance(stream, Batches):
            yield from islice(enumerate(stream), self.batch, None)
            return
        self.set_order(stream)
        self._note_order(stream)
        yield from keep_between(_Marks(stream, kept, self.batch), kept, self.batch)

    def set_order(self, stream: Iterable[Batch]) -> None:
        order = getattr(stream, "order", None)
        if order is not None and self.order is not None:
            order.set_state(self.order)

    def end_epoch(self, stream: Iterable[Batch]) -> None:
        self.epoch, self.batch = self.epoch + 1, 0
        self._note_order(stream)

    def _note_order(self, stream: Iterable[Batch]) -> None:
        order = getattr(stream, "order", None)
        self.order = None if order is None else order.get_state()


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
        return "" if digest is None or not self._checks else make_mark(digest)


def make_mark(digest: SeenDigest) -> str:
    """Return what a checkpoint says of the data before it."""
    return _as_mark(digest.finish())


def _as_mark(seen: SeenData) -> str:
    return f"{seen.examples}/{seen.inputs}/{seen.labels}/{seen.batches}"
