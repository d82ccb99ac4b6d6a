"""Permutations of whole blocks of rows, such as the positions of one example, with others of their kind."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from suture.numbers.records import Ints

_PURPOSE = 2  # keeps these draws apart from others of one seed


@dataclass(frozen=True, eq=False)
class Exchange:
    """Blocks of rows that change places with others of their kind.

    `tables` holds for each kind the row numbers (m, r) of its m > 1 blocks of r rows. Rows of a block that no
    other is like are in none.
    """

    tables: Sequence[Ints]

    @classmethod
    def of(cls, blocks: Ints, kinds: Ints) -> Exchange:
        """Make it from the block (n,) of every row and the kind (n,) of every row.

        Blocks are of one kind if they have as many rows, and these have the same kinds in the same order.
        """
        order = np.argsort(blocks, kind="stable")
        edges = np.flatnonzero(np.diff(blocks[order])) + 1
        found: dict[bytes, list[Ints]] = {}
        for rows in np.split(order, edges):
            found.setdefault(kinds[rows].tobytes(), []).append(rows)
        return cls([np.stack(alike) for alike in found.values() if len(alike) > 1])

    @cached_property
    def _places(self) -> Ints:
        return np.argsort(self._join(list(self.tables)), kind="stable")

    @staticmethod
    def _join(tables: Sequence[Ints]) -> Ints:
        return np.concatenate([np.empty(0, np.int64), *(t.ravel() for t in tables)]).astype(np.int64)

    @cached_property
    def rows(self) -> Ints:
        """Numbers of the rows that can move, in order."""
        return self._join(list(self.tables))[self._places]

    @property
    def blocks(self) -> int:
        """Number of blocks that can move."""
        return sum(len(t) for t in self.tables)

    @property
    def permutations(self) -> float:
        """Number of different permutations, or infinity for very many."""
        log = sum(math.lgamma(len(t) + 1) for t in self.tables)
        return math.exp(log) if log < 700 else math.inf

    def draw(self, count: int, seed: int) -> Iterator[Ints]:
        """Draw permutations: each gives for every one of `rows` the row that takes its place."""
        generator = np.random.default_rng((seed, _PURPOSE))
        for _ in range(count):
            yield self._join([t[generator.permutation(len(t))] for t in self.tables])[self._places]
