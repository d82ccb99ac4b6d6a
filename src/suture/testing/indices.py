"""Laws of a structural index: its range, its missing values, and the properties that it states."""

from __future__ import annotations

import numpy as np

from suture._base import Count, Seed, checked, expect
from suture.indices import TRANSFORMATIONS, Names, Streaming, chosen, of_matrices
from suture.numbers import Floats
from suture.testing.laws import ROWS, Changes, Law, LawBook, draw_related, law

ROUNDING = 1e-6
"""Largest change by rounding. The root of a distance near zero loses half of its digits."""


@checked
def index_laws(index: Names, *, columns: tuple[Count, Count] = (6, 4), seed: Seed = 0) -> list[Law]:
    """Return the laws of an index: its range, data that do not vary, and every property that it states.

    Args:
        index: an index, its name, or a function of yours as for `suture.indices.own`.
        columns: numbers of columns of source and target matrix, which have 60 rows.
        seed: seed of the matrices.
    """
    return _IndexLaws(index, columns, seed).list_laws()


class _IndexLaws(LawBook):
    def __init__(self, index: Names, columns: tuple[int, int], seed: int) -> None:
        super().__init__()
        found = chosen(index)
        expect(len(found) == 1, "one index", f"{len(found)}", 'write "cka"')
        self._request = found[0]
        self._entry = entry = self._request.index
        self._pairs = [draw_related(seed + k, *columns) for k in range(2)]
        changes = Changes(self._measure, self._pairs, ROUNDING)
        for side, stated in (("source", entry.invariant_x), ("target", entry.invariant_y)):
            for how in TRANSFORMATIONS if stated is not None else ():
                kept = how in (stated or ())
                verb = "leaves" if kept else "does not leave"
                self.vary(f"{how} of the {side}", f"A {how} of the {side}'s columns {verb} it unchanged.",
                          changes.check, side, how, kept)
        if entry.identical is not None:
            self.vary("identical matrices", f"Its value is {entry.identical} where the target is the source.",
                      self._check_identical, entry.identical)
        if entry.null is not None:
            self.vary("unrelated matrices", f"Its value is near {entry.null} for many unrelated rows.",
                      self._check_unrelated, entry.null)
        if entry.symmetric is not None:
            verb = "leaves" if entry.symmetric else "does not leave"
            self.vary("symmetry", f"An exchange of source and target {verb} it unchanged.",
                      self._check_symmetry, entry.symmetric)
        if self._request.alignment != "flatten":
            self.vary("batches", "Rows in batches give the value of all rows at once.", self._check_batches)

    def _measure(self, x: Floats, y: Floats) -> float:
        found = of_matrices(x, y, self._request)[self._request.name]
        assert not found.reason, f"It has no value on random matrices: {found.reason}."
        return found.value

    @law("All values lie in the range of the measure.")
    def range(self) -> None:
        low, high = self._entry.measure.native
        first, second = self._pairs
        for x, y in [*self._pairs, (first[0], second[1]), (first[0], first[0])]:
            value = self._measure(x, y)
            assert low - 1e-9 <= value <= high + 1e-9, f"Got {value}, the range is {low} to {high}."

    @law("Data that do not vary give a missing value with a reason.")
    def constant_data(self) -> None:
        x, y = self._pairs[0]
        for pair in ((np.ones_like(x), y), (x, np.ones_like(y)), (x[:1], y[:1])):
            found = of_matrices(*pair, self._request)[self._request.name]
            assert found.reason, f"Got {found.value}."

    def _check_identical(self, stated: float) -> None:
        values = [self._measure(x, x) for x, _ in self._pairs]
        assert np.allclose(values, stated, rtol=0, atol=1e-5), f"Got {values}."

    def _check_unrelated(self, stated: float) -> None:
        g = np.random.default_rng(5)
        x, y = g.normal(size=(1000, 3)) + 2, g.normal(size=(1000, 4)) * [2, 1, 1, 1] + 3
        value = self._measure(x, y)
        assert abs(value - stated) <= 0.15, f"Got {value}."

    def _check_symmetry(self, stated: bool) -> None:
        changes = [abs(self._measure(x, y) - self._measure(y, x)) for x, y in self._pairs]
        assert (max(changes) <= ROUNDING) == stated, f"It changes by {max(changes)}."

    def _check_batches(self) -> None:
        (x, y), stream = self._pairs[0], Streaming(self._request)
        for rows in np.split(np.arange(ROWS), [1, 8, 31]):
            stream.update(x[rows], y[rows])
        value, whole = stream.values()[self._request.name].value, self._measure(x, y)
        assert abs(value - whole) <= 1e-8 * max(1, abs(whole)), f"Got {value} and {whole}."
