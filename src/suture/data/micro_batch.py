"""How many examples pass a network at once: halved while memory runs out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar

import torch

from suture._base import SutureError, free_cached_memory, is_out_of_memory, log_event
from suture.data.batch import Batch, cut_batch, move_batch

T = TypeVar("T")
_MORE_MEMORY = "use a device with more memory"
_NOTE = re.compile(r"(memory ran out.*): networks ran on at most (\d+) examples at once")


class MicroBatch:
    """Maximum number of examples (`most`) that pass a network at once; it is halved while memory runs out.

    Args:
        most: the maximum to begin with.
        stage: where memory runs out, in the sentence of `notes`, such as "in training".
        instead: advice where a single example does not fit.

    Attributes:
        notes: a sentence if memory ran out.
    """

    def __init__(self, most: int, stage: str = "", instead: str = _MORE_MEMORY) -> None:
        self.most, self.notes, self._largest = max(1, most), list[str](), 0
        self._stage, self._instead = f" {stage}" if stage else "", instead

    @classmethod
    def of(cls, given: int | MicroBatch) -> MicroBatch:
        """Return a micro-batch for a number; return a micro-batch unchanged."""
        return given if isinstance(given, MicroBatch) else cls(given)

    def take_over(self, other: MicroBatch) -> None:
        """Begin with the maximum and the notes of another micro-batch."""
        self.most, self.notes = other.most, [*other.notes]

    def choose_piece_size(self, size: int) -> int:
        """Return the size that cuts `size` examples into as few and as equal pieces as possible."""
        return -(-size // -(-size // self.most))

    def count_at_once(self, size: int) -> int:
        """Return the number of batches of `size` examples that pass a tail together."""
        return max(1, self.most // size)

    def run(self, work: Callable[[], T], size: int | None = None) -> T:
        """Return the result of `work`; while memory runs out, halve `most` and start again.

        `work` must leave nothing behind when it fails. Without `most` it would pass `size` examples at once;
        default: those of the largest piece so far.
        """
        while not (done := self._try(work, size)):
            pass
        return done[0]

    def map(self, batch: Batch, device: torch.device | None,
            work: Callable[[Batch], T]) -> Iterator[tuple[Batch, T]]:
        """Yield the pieces of a batch in order, each with the result of `work`.

        Pieces are moved to `device`; None leaves them where they are. A piece for which memory runs out is
        cut in half. `work` must leave nothing behind when it fails.
        """
        waiting = [batch]
        while waiting:
            piece = waiting.pop()
            if piece.size > self.most:
                waiting += reversed(list(cut_batch(piece, self.most)))
                continue
            self._largest = max(self._largest, piece.size)
            done = self._try(partial(_move_and_work, piece, device, work), piece.size)
            if done:
                yield done[0]
            else:
                waiting.append(piece)

    def _try(self, work: Callable[[], T], size: int | None) -> tuple[T] | None:
        """Return the result of `work`, or None after halving `most` because memory ran out."""
        try:
            return work(),
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Not in the except clause: the exception holds the frames, and the frames hold the tensors.
        free_cached_memory()
        tried = min(self.most, size or self._largest or self.most)
        if tried == 1:
            raise SutureError(f"out of memory with a single example{self._stage}; {self._instead}")
        self.most = tried // 2
        self.notes = [f"memory ran out{self._stage}: networks ran on at most {self.most} examples at once"]
        log_event(self.notes[0], of="retries")
        return None


def join_memory_notes(notes: Iterable[str]) -> list[str]:
    """Return notes in their order, without all but the smallest number where memory ran out in one place."""
    least: dict[str, tuple[int, str]] = {}
    for note in notes:
        found = _NOTE.fullmatch(note)
        place, most = (found[1], int(found[2])) if found else (note, 0)
        if place not in least or most < least[place][0]:
            least[place] = most, note
    return [note for _, note in least.values()]


def _move_and_work(piece: Batch, device: torch.device | None, work: Callable[[Batch], T]) -> tuple[Batch, T]:
    moved = piece if device is None else move_batch(piece, device)
    return moved, work(moved)
