"""Nulls of the indices of all cells: options, checks, and the findings of a comparison."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from typing_extensions import Doc

from suture._base import Draws, expect, keyword_options
from suture.data import is_same_batch
from suture.indices import Groups, Labels, NullTest, Value
from suture.representations import Cell
from suture.results import NULL_FIELDS

if TYPE_CHECKING:
    from suture.compare.opened_data import OpenedData


@keyword_options
class NullOptions:
    """Options of what indices say by chance."""

    nulls: Annotated[Draws, Doc(
        "Permutations of examples for the nulls of indices, such as 200 (docs/indices.md). 0: nulls in "
        "closed form alone, which cost nothing.")] = 0
    groups: Annotated[Groups, Doc(
        "Group of each example of `data`, in order, where examples belong together; whole groups are "
        "permuted.")] = None
    within: Annotated[Labels, Doc(
        "Class of each example of `data`, in order, for indices ``@within`` classes. None: the labels of the "
        "data.")] = None

    @property
    def null_settings(self) -> dict[str, Any]:
        """The options that are not at their defaults, by name."""
        given = {"nulls": self.nulls or None, "groups": self.groups, "within": self.within}
        return {name: value for name, value in given.items() if value is not None}


def check_labels(given: NullOptions, data: OpenedData) -> None:
    """Check that groups and classes given by the user can be those of the examples."""
    for name in ("groups", "within"):
        labels = getattr(given, name)
        if labels is None:
            continue
        one, two = (next(iter(data.fit)) for _ in range(2))
        expect(is_same_batch(one, two), f"data in one order for {name}=",
               "data that come otherwise in every pass", "give a loader with shuffle=False")
        counts = {n for d in (data.fit, data.whole) if (n := d.count_examples()) is not None}
        expect(not counts or len(labels) in counts,
               f"{name} with one label for each of {max(counts, default=0)} examples", len(labels))


def collect_nulls(values: Mapping[Cell, Mapping[str, Value]],
                  shape: tuple[int, int]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the nulls of all measures as arrays, and in words.

    Arrays are ``null.tests/MEASURE`` (`NULL_FIELDS`, S, T), and ``null.maxima/MEASURE`` of the largest
    standardised value of all cells in each permutation. Words are methods and reasons by measure, each with
    its cells or ``"all"``.
    """
    tests: dict[str, dict[Cell, NullTest]] = {}
    for cell, found in values.items():
        for name, value in found.items():
            if value.null is not None or value.reason:
                tests.setdefault(name, {})[cell] = value.null or NullTest.missing(value.reason)
    arrays: dict[str, Any] = {}
    words: dict[str, Any] = {}
    for name, of in tests.items():
        words[name] = {"methods": _group_cells((c, t.method) for c, t in of.items()),
                       "reasons": _group_cells((c, t.reason) for c, t in of.items())}
        known = {c: t for c, t in of.items() if not t.reason}
        if known:
            full = np.full((len(NULL_FIELDS), *shape), np.nan)
            for cell, t in known.items():
                full[:, *cell] = [getattr(t, field) for field in NULL_FIELDS]
            arrays[f"null.tests/{name}"] = full
        draws = [t.draws for t in known.values() if t.draws is not None]
        if draws:
            arrays[f"null.maxima/{name}"] = np.fmax.reduce(draws)
    return arrays, words


def _group_cells(words: Iterable[tuple[Cell, str]]) -> dict[str, Any]:
    """Return for each text its cells, or "all" if it is that of every cell."""
    found: dict[str, list[list[int]]] = {}
    count = 0
    for cell, text in words:
        count += 1
        if text:
            found.setdefault(text, []).append(list(cell))
    return {text: "all" if len(cells) == count else cells for text, cells in found.items()}
