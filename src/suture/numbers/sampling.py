"""Seeded draws that depend on the seed and the example numbers in the stream, not on batches."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from suture._base import expect
from suture.numbers.records import Floats, Ints

SAMPLE_ROWS = 2000
"""Default number of rows in a sample."""


def draw_uniform(seed: int, numbers: Iterable[int], count: int = 1, purpose: tuple[int, ...] = ()) -> Floats:
    """Draw `count` uniform numbers in [0, 1) for each example number in the stream, (examples, count).

    Draws of one seed with different `purpose` are independent.
    """
    return np.stack([np.random.default_rng((seed, int(k), *purpose)).random(count) for k in numbers])


def _mix_bits(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Apply the 64-bit bijection that ends SplitMix64 (Steele, Lea and Flood 2014; Stafford's variant 13)."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


@dataclass
class Reservoir:
    """A uniform sample without replacement of the numbers 0, 1, ... of a stream of unknown length.

    The `most` numbers with the smallest hash of (seed, number) are kept; a shorter stream is kept whole. The
    hash is a bijection, so no two hashes are equal. The sample and its slots depend only on the seed and the
    stream's length, `seen`, and on the number of its first example, `start`. `most` below 1 raises
    `SutureError`.
    """

    most: int = SAMPLE_ROWS
    seed: int = 0
    seen: int = field(default=0, init=False)
    start: int = field(default=0, init=False)
    _largest: list[tuple[int, int]] = field(default_factory=list, init=False, repr=False)
    _numbers: Ints = field(init=False, repr=False)

    def __post_init__(self) -> None:
        expect(self.most >= 1, "a sample of at least one row", self.most, f"write {SAMPLE_ROWS}")
        self._numbers = np.empty(0, np.int64)

    @property
    def numbers(self) -> Ints:
        """Stream numbers now held, (m,) by slot; m = min(most, seen)."""
        return self._numbers + self.start

    def start_at(self, number: int) -> None:
        """Begin with an example in the middle of the stream."""
        self.start = number

    def offer(self, count: int) -> tuple[Ints, Ints]:
        """Choose which of the next `count` >= 0 examples to store; return their positions and their slots.

        Slots ascend. They number the rows of a table of `most` rows; an example replaces what is in its slot,
        and the largest hash held leaves for a smaller one.
        """
        first, held, start = self.seen, len(self._numbers), self.start + self.seen
        self._numbers = np.append(self._numbers, np.full(min(self.most, first + count) - held, -1))
        hashes = _mix_bits(_mix_bits(np.array([self.seed % 2**64], np.uint64))
                           + np.arange(start, start + count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
        may_enter = (range(count) if len(self._largest) < self.most
                     else np.flatnonzero(hashes < np.uint64(-self._largest[0][0])))
        for position in map(int, may_enter):
            key, slot = -int(hashes[position]), len(self._largest)
            if slot < self.most:
                heapq.heappush(self._largest, (key, slot))
            elif key > self._largest[0][0]:
                slot = self._largest[0][1]
                heapq.heapreplace(self._largest, (key, slot))
            else:
                continue
            self._numbers[slot] = first + position
        self.seen += count
        slots = np.flatnonzero(self._numbers >= first)
        return self._numbers[slots] - first, slots


@dataclass
class ChosenRows:
    """Numbers of a stream that were chosen beforehand, in order; used as a `Reservoir` is."""

    chosen: Ints
    seed: int = 0
    seen: int = field(default=0, init=False)
    start: int = field(default=0, init=False)

    def start_at(self, number: int) -> None:
        """Begin with an example in the middle of the stream."""
        self.start = number

    @property
    def most(self) -> int:
        """Number of rows in the sample."""
        return len(self.chosen)

    @property
    def numbers(self) -> Ints:
        """Stream numbers now held."""
        return self.chosen[self.chosen < self.start + self.seen]

    def offer(self, count: int) -> tuple[Ints, Ints]:
        """Choose which of the next `count` examples to store; return their positions and their slots."""
        first = self.start + self.seen
        slots = np.flatnonzero((self.chosen >= first) & (self.chosen < first + count))
        positions = self.chosen[slots] - first
        self.seen += count
        return positions, slots


def choose_groups(groups: Ints, most: int, seed: int) -> ChosenRows:
    """Choose whole groups at random until `most` examples are reached; `groups` (n,) are those of examples.

    At least two groups are chosen, if there are two.
    """
    numbers, counts = np.unique(groups, return_counts=True)
    order = np.random.default_rng((seed, 3)).permutation(len(numbers))
    fits = np.cumsum(counts[order]) <= most
    fits[:2] = True
    return ChosenRows(np.flatnonzero(np.isin(groups, numbers[order[fits]])), seed)


def merge_samples(parts: Sequence[Reservoir | ChosenRows]
                  ) -> tuple[Reservoir | ChosenRows, list[tuple[int, int]]]:
    """Return the sample of a stream from those of its parts in order, and where each slot's example lies.

    Returns:
        The sample, and for each of its slots the number of a part and the slot there.
    """
    made = replace(parts[0])
    made.offer(sum(part.seen for part in parts))
    places = {int(number): (k, slot) for k, part in enumerate(parts)
              for slot, number in enumerate(part.numbers) if number >= part.start}
    return made, [places[int(number)] for number in made.numbers]
