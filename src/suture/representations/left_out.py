"""Intervals of the indices of all cells, by leaving out one block of examples after the other.

The blocks come first and the cells second: all cells share the sides and the spectra without a block, and
only those of one block are in memory. Two cells that have the same matrices in each other's place share all
factorisations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING

from suture._base import Keeper, Progress
from suture.indices import FROM_MOMENTS, STITCH, Jackknife, Value, choose_group_size
from suture.numbers import Moments, Pair, Spectra
from suture.representations.aligned_moments import AlignedMoments, Cell

if TYPE_CHECKING:
    from suture.representations.accumulators import Accumulators


class LeftOut:
    """Moments of cells without one block of examples, for one block after the other.

    The blocks outside of a group are merged once for the blocks of the group.
    """

    def __init__(self, moments: AlignedMoments) -> None:
        self.moments, self.number, self._spectra = moments, -1, Spectra()
        self._group, self._others, self._outer = range(0), dict[Cell, Moments](), Spectra()

    def select(self, number: int) -> None:
        """Choose the block that is left out."""
        size = choose_group_size(len(self.moments.folds))
        start = number // size * size
        group = self.moments.folds[start:start + size]
        if group != self._group:
            self._group, self._others, self._outer = group, {}, Spectra()
        self.number, self._spectra = number, Spectra()

    def has(self, i: int, j: int) -> bool:
        """Return True if the block has rows of a cell."""
        return bool(self.moments.get_sums(i, j, [self.number]))

    def get_moments(self, i: int, j: int) -> Moments:
        """Return the moments of one cell without the block; several threads may ask for several cells."""
        outside = [k for k in self.moments.folds if k not in self._group]
        if (i, j) not in self._others and (parts := self._get_sums(i, j, outside)):
            self._others[i, j] = self.moments.join(i, j, parts, self._outer)
        parts = self._get_sums(i, j, [k for k in self._group if k != self.number])
        return self.moments.join(i, j, [*filter(None, [self._others.get((i, j))]), *parts], self._spectra)

    def _get_sums(self, i: int, j: int, folds: Iterable[int]) -> list[Moments]:
        return [part for fold in self.moments.get_sums(i, j, folds) for part in fold]

    def get_pair(self, i: int, j: int) -> Pair:
        """Return the pair of one cell without the block."""
        return self.moments.make_pair(i, j, self.get_moments(i, j), self._spectra)


def pair_turned_cells(moments: AlignedMoments, cells: Iterable[Cell]) -> list[list[Cell]]:
    """Return each cell alone, or together with the one that has the same matrices in each other's place."""
    pairs: dict[Cell, list[Cell]] = {}
    for cell in cells:
        other = cell[::-1]
        if other in pairs and moments.are_turned(other, cell):
            pairs[other].append(cell)
        else:
            pairs[cell] = [cell]
    return [*pairs.values()]


class CellIntervals:
    """Jackknives of the indices of many cells.

    Args:
        cells: with their values.
    """

    def __init__(self, accumulators: Accumulators, cells: Mapping[Cell, Mapping[str, Value]]) -> None:
        self._accumulators = accumulators
        self._left = {name: LeftOut(moments) for name, moments in accumulators.tables.items()}
        self._jackknives: dict[tuple[bool, str, Cell], Jackknife] = {}
        for alignment in self._left:
            for cell in cells:
                self._add_jackknives(alignment, cell, cells[cell])
        self._tasks = {users: self._pair_cells(users) for users in (False, True)}

    def _add_jackknives(self, alignment: str, cell: Cell, values: Mapping[str, Value]) -> None:
        asked = [r for r in self._accumulators.settings.select_requests(alignment, *FROM_MOMENTS)
                 if r.name in values]
        if (alignment == STITCH and cell in self._accumulators.unaligned) or not asked:
            return
        if len(self._accumulators.tables[alignment].get_sums(*cell)) < 2:
            return
        pair = self._accumulators.get_pair(*cell, alignment)
        for users in {bool(r.index.user) for r in asked}:
            some = {r.name: r.index for r in asked if bool(r.index.user) == users}
            self._jackknives[users, alignment, cell] = Jackknife({n: values[n] for n in some}, some, pair)

    def _pair_cells(self, users: bool) -> list[tuple[str, list[Cell]]]:
        """Return the cells of each alignment, those together that have the same matrices."""
        return [(alignment, cells) for alignment, left in self._left.items() for cells in pair_turned_cells(
            left.moments, [c for u, a, c in self._jackknives if (u, a) == (users, alignment)])]

    def run(self, pool: Executor, keeper: Keeper, progress: Progress | None = None) -> None:
        """Leave out each block; `progress` is called as ``progress("intervals", blocks done, blocks)``.

        The user's own functions run one at a time.
        """
        blocks = self._accumulators.settings.blocks
        state = {"left": {key: jackknife.state for key, jackknife in self._jackknives.items()}}
        with keeper.keep("intervals", state, "moments") as kept:
            kept.fill_unless_changed()
            for number in range(kept.before, blocks):
                for left in self._left.values():
                    left.select(number)
                list(pool.map(lambda task: self._add(False, *task), self._tasks[False]))
                for task in self._tasks[True]:
                    self._add(True, *task)
                if progress:
                    progress("intervals", number + 1, blocks)
                kept.step(number + 1)
            kept.finish(blocks)

    def _add(self, users: bool, alignment: str, cells: Sequence[Cell]) -> None:
        """Add the pairs of one cell, and of the one that has the same matrices, without the present block."""
        jackknives = [self._jackknives[users, alignment, c] for c in cells]
        if not self._left[alignment].has(*cells[0]) or not any(j.is_open for j in jackknives):
            return
        pair = self._accumulators.get_pair(*cells[0], alignment, self._left)
        for jackknife, made in zip(jackknives, (pair, pair.turn()), strict=False):
            jackknife.add(made)

    def compute_values(self) -> dict[Cell, dict[str, Value]]:
        """Return the values of each cell that have intervals or a mark that says why not."""
        found: dict[Cell, dict[str, Value]] = {}
        for (_, _, cell), jackknife in self._jackknives.items():
            found.setdefault(cell, {}).update(jackknife.compute_values())
        return found
