"""Order relations between cells that a measure should keep, and which are broken beyond chance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from suture.numbers import get_measure
from suture.results import LEVEL, NoiseTest, adjust_holm, choose_test
from suture.studies.measure_tests.population_cells import ComparedPair, PopulationCells

Place = tuple[int, int, int, int]
"""Source network, target network, source layer, target layer."""
_ROUNDING = 1e-9
_ROUNDING_OF_LOGARITHMS = 1e-6


@dataclass(frozen=True)
class Relation:
    """A cell that should be at least as similar as each of several others of the same two networks.

    Attributes:
        more: the cell.
        less: the others, all with a value.
        broken: some of them is more similar, beyond rounding.
    """

    more: Place
    less: tuple[Place, ...]
    broken: bool


@dataclass(frozen=True)
class Violations:
    """What is left of relations.

    Attributes:
        relations: those whose cells have values.
        beyond: numbers of the broken ones among them that are broken beyond chance; None where a measure has
            no test, so that each broken one counts.
        test: name of the test; empty without one.
    """

    relations: tuple[Relation, ...]
    beyond: tuple[int, ...] | None
    test: str

    @property
    def broken(self) -> tuple[int, ...]:
        """Numbers of the broken relations."""
        return tuple(k for k, r in enumerate(self.relations) if r.broken)

    @property
    def counted(self) -> tuple[int, ...]:
        """Numbers of the relations that count as broken."""
        return self.broken if self.beyond is None else self.beyond

    def describe(self) -> str:
        """Say how many are broken, and how many beyond chance."""
        found = f"{len(self.broken)} of {len(self.relations)} broken"
        return found if self.beyond is None else (f"{found}, {len(self.beyond)} beyond chance ({self.test}, "
                                                  f"Holm, p < {LEVEL:g})")


def relate(cells: PopulationCells, wanted: Iterable[tuple[Place, Sequence[Place]]]) -> tuple[Relation, ...]:
    """Return relations between cells with values; a missing or marked cell takes no part."""
    entry, s = get_measure(cells.measure), cells.similarity
    rounding = _ROUNDING_OF_LOGARITHMS if entry.functional else _ROUNDING
    found = []
    for more, others in wanted:
        less = tuple(place for place in others if not np.isnan(s[place]))
        if less and not np.isnan(s[more]):
            found.append(Relation(more, less, bool(max(s[place] for place in less) - s[more] > rounding)))
    return tuple(found)


def find_violations(cells: PopulationCells, relations: tuple[Relation, ...]) -> Violations:
    """Find which relations are broken beyond chance.

    A measure with results per example is tested in pairs of cells on the same examples (McNemar's test for
    hits). The smallest p of a relation is multiplied by its number of other cells (Bonferroni), because the
    cell that broke it was chosen after looking. Holm's procedure runs over all broken relations, also of
    different networks.
    """
    broken = [k for k, r in enumerate(relations) if r.broken]
    first = next(iter(cells.comparisons.values()), None)
    test = None if first is None else _choose_test(cells, first)
    if test is None:
        return Violations(relations, None, "")
    chances = np.full(len(broken), np.nan)
    for pair in dict.fromkeys(relations[k].more[:2] for k in broken):  # one comparison in memory at a time
        compared = cells.comparisons[pair]
        of_pair = _choose_test(cells, compared)
        for number, k in enumerate(broken):
            if relations[k].more[:2] == pair and of_pair is not None:
                chances[number] = _find_p(cells, relations[k], of_pair, compared)
    adjusted = adjust_holm(chances)
    beyond = tuple(k for k, p in zip(broken, adjusted.tolist(), strict=True) if p < LEVEL)
    return Violations(relations, beyond, test.name)


def _choose_test(cells: PopulationCells, compared: ComparedPair) -> NoiseTest | None:
    made = compared.load()
    return choose_test(get_measure(cells.measure), (len(made.sources), len(made.targets)), made)


def _find_p(cells: PopulationCells, relation: Relation, test: NoiseTest, compared: ComparedPair) -> float:
    def place(of: Place) -> tuple[int, int]:
        return int(compared.rows[of[2]]), int(compared.columns[of[3]])

    s = cells.similarity
    smallest = min(test.compute(place(relation.more), place(other))
                   for other in relation.less if s[other] > s[relation.more])
    return min(1.0, smallest * len(relation.less))
