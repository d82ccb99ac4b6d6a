"""Sentences on comparisons that have few cells, no verdicts, or no values at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from suture.numbers import METHOD_NAMES, Bools, Estimate, get_measure
from suture.results.measured import Measured, take_cells
from suture.results.standing import Criterion, find_standing

if TYPE_CHECKING:
    from suture.results.verdicts import CellVerdicts


def shorten_name(name: str, most: int = 48) -> str:
    """Return a name with an ellipsis for its middle if it has more letters than `most`."""
    head = (most - 1) // 2
    return name if len(name) <= most else f"{name[:head]}…{name[head + 1 - most:]}"


def describe_one_cell(measured: Measured, methods: Mapping[str, CellVerdicts]) -> list[str]:
    """Say the verdict of the only cell by each method, with its reason."""
    source, target = shorten_name(measured.sources[0]), shorten_name(measured.targets[0])
    return [f"{METHOD_NAMES[method].capitalize()} of {source} into {target}: {found.words.to_numpy()[0, 0]}; "
            f"{found.reasons.to_numpy()[0, 0]}." for method in ("tlm", "dm")
            if (found := methods.get(method)) is not None]


def find_valued(measured: Measured, method: str) -> Bools:
    """Return which cells of a method have the value by which they work (sources, targets)."""
    by = find_standing(measured).criteria[method]
    found: Bools = ~np.isnan(take_cells(measured, f"{method}.{by.quantity}"))
    return found


def describe_working(measured: Measured) -> str:
    """Say how many cells work where no natural distance allows verdicts; empty without stitched networks."""
    criteria = find_standing(measured).criteria
    counts = [f"{METHOD_NAMES[method]} in {_count_working(measured, method, by)}"
              for method in ("tlm", "dm") if (by := criteria.get(method)) is not None]
    if not counts:
        return ""
    rule = next(iter(criteria.values())).rule
    return (f"Stitched networks work ({rule}) by {', by '.join(counts)}; if as artefacts is unknown, because "
            "natural distances were not measured.")


def _count_working(measured: Measured, method: str, by: Criterion) -> str:
    name = f"{method}.{by.quantity}"
    columns = [take_cells(measured, name, what).ravel().tolist()
               for what in ("value", "low", "high", "reason")]
    marks = take_cells(measured, name, "mark").ravel().tolist()
    clear = [Estimate(*cell) for *cell, mark in zip(*columns, marks, strict=True) if not mark]
    known = [cell for cell in clear if not np.isnan(cell.value)]
    works = sum(by.decide(cell)[0] is True for cell in known)
    rest = ((len(marks) - len(clear), "not converged" if method == "tlm" else "not generalising"),
            (len(clear) - len(known), "without a value"))
    more = ", ".join(f"{n} {words}" for n, words in rest if n)
    return f"{works} of {len(known)} cell{'s' * (len(known) != 1)}" + (f" ({more})" if more else "")


def describe_values(measured: Measured, leading: tuple[str, ...]) -> str:
    """Say in a sentence what the leading measure says of cells, of which at least one has a value."""
    names = [*(name for name in leading if name in measured.measures), *measured.measures]
    known = [name for name in names if not np.isnan(take_cells(measured, name)).all()]
    name, entry = known[0], get_measure(known[0])
    values = take_cells(measured, name)
    i, j = np.unravel_index(int(np.nanargmax([entry.common(v) for v in values.ravel()])), values.shape)
    most = f"{shorten_name(measured.sources[i])} into {shorten_name(measured.targets[j])}"
    if values.size == 1:
        return f"{entry.label} of {most} is {values[i, j]:.3g}; {entry.direction} is more similar."
    return (f"Most similar by {entry.label}: {most} ({values[i, j]:.3g}; all cells "
            f"{np.nanmin(values):.3g} to {np.nanmax(values):.3g}).")


def advise_null(measured: Measured) -> str:
    """Say that a null is missing, if an index has a value and none; empty for one network with itself."""
    missing = not any(name.startswith("null.tests/") for name in measured.arrays)
    indices = [m for m in measured.measures if "." not in m and not np.isnan(take_cells(measured, m)).all()]
    return ("Next: compare with nulls=200; what the indices say by chance is unknown."
            if missing and not measured.same_network and indices else "")
