"""Tests of indices against their nulls: in closed form, or by permutations of kept rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from suture._base import FOREIGN
from suture.indices.definition import Index, Needs, UndefinedError, Value
from suture.indices.nulls.classes import ClassedRows
from suture.indices.nulls.record import NullTest
from suture.indices.nulls.shuffled_rows import PermutedRows, ShuffledRows
from suture.numbers import (
    FEWEST_ROWS,
    DrawnNull,
    Floats,
    NumericalError,
)

LEAST_PERMUTATIONS = 20
"""Smallest number of permutations by which a value can be above the null's 95 % point."""
_DEFINED = 0.9  # smallest share of permutations in which an index must have a value
UNPAIRED = "it does not see which row of one side belongs to which of the other"


@dataclass(frozen=True, eq=False)
class NullSource:
    """What the nulls of one cell in one alignment are made from.

    Attributes:
        draws, seed: number of permutations, 0 for closed forms alone, and their seed.
        dependent: why rows are not independent, so that closed forms do not hold; "" if they are.
        rows: kept rows, or the reason why there are none.
        grams: data of closed forms, if they are not those of the value.
        refused: kinds of data for whose indices `rows` are not the rows, with the reason.
    """

    draws: int = 0
    seed: int = 0
    dependent: str = ""
    rows: PermutedRows | str = "no rows were kept"
    grams: ClassedRows | None = None
    refused: Mapping[Needs, str] = field(default_factory=dict)


def add_nulls(indices: Mapping[str, Index], values: Mapping[str, Value], inputs: Mapping[Needs, Any],
                source: NullSource) -> dict[str, Value]:
    """Return the values of one cell in one alignment with their nulls."""
    found: dict[str, NullTest] = {}
    drawn = {}
    for name, index in indices.items():
        value = values[name]
        if value.reason or not index.paired:
            found[name] = NullTest.missing(value.reason or UNPAIRED)
            continue
        test = _test_closed(index, value, source.grams or inputs[index.needs], source)
        found[name] = test
        why = source.refused.get(index.needs, source.rows if isinstance(source.rows, str) else "")
        if source.draws and not why:
            drawn[name] = index
        elif test.reason and (source.draws or index.needs in source.refused):
            found[name] = NullTest.missing(why)
    if drawn and isinstance(source.rows, PermutedRows):
        for name, test in _test_drawn(drawn, source.rows, source.draws, source.seed).items():
            closed = found[name]
            found[name] = test if closed.reason else replace(closed, z=test.z, draws=test.draws)
    return {name: replace(values[name], null=test) for name, test in found.items()}


def _test_closed(index: Index, value: Value, data: Any, source: NullSource) -> NullTest:
    """Test a value by the closed form of its null, or return why there is none."""
    ask = "; ask for 200 permutations by nulls=200"
    if index.null_form is None:
        return NullTest.missing(f"{index.name} has no null in closed form{ask}")
    if source.dependent:
        return NullTest.missing(source.dependent + ask)
    if data.n < FEWEST_ROWS:
        return NullTest.missing(f"{data.n} rows: a null needs at least {FEWEST_ROWS}")
    null = index.null_form(data)
    if math.isnan(null.std):
        return NullTest.missing(f"the sums for the null of {index.name} are missing{ask}")
    larger = index.measure.larger_is_more_similar
    return NullTest.of(value.value, null, index.best, larger, data.n, "closed form")


def _test_drawn(indices: Mapping[str, Index], kept: PermutedRows, count: int,
                seed: int) -> dict[str, NullTest]:
    """Test indices by permutations of the kept rows, the same for all of them."""
    exchange = kept.exchange
    if exchange.permutations < LEAST_PERMUTATIONS:
        how = f"in {exchange.permutations:.0f} ways" if exchange.blocks else "because no two have one size"
        why = f"{exchange.blocks} {kept.unit} can change places, {how}: a null needs {LEAST_PERMUTATIONS}"
        return dict.fromkeys(indices, NullTest.missing(why))
    shuffled = ShuffledRows(kept, indices.values())
    values = {name: index(shuffled.own[index.needs]) for name, index in indices.items()}
    faster = {name: index.permute() for name, index in indices.items() if not values[name].reason}
    needs = {i.needs for i in faster.values()}
    drawn: dict[str, list[float]] = {name: [] for name in indices}
    for order in exchange.draw(count, seed) if faster else ():
        inputs = shuffled.reorder(torch.from_numpy(np.searchsorted(exchange.rows, order)), needs)
        for name, index in faster.items():
            drawn[name].append(_compute(index, inputs[index.needs]))
    return {name: _describe_draws(index, values[name], np.array(drawn[name]), kept)
            for name, index in indices.items()}


def _compute(index: Index, data: Any) -> float:
    """Compute an index of permuted rows, whose sides vary as before; nan where it has no value."""
    try:
        return float(index.fn(data, *index.arguments))
    except (UndefinedError, NumericalError, ArithmeticError):
        return math.nan
    except FOREIGN:
        if index.user is None:
            raise
        return math.nan


def _describe_draws(index: Index, value: Value, draws: Floats, kept: PermutedRows) -> NullTest:
    if value.reason:
        return NullTest.missing(f"of the rows for permutations: {value.reason}")
    defined = draws[~np.isnan(draws)]
    if len(defined) < _DEFINED * len(draws):
        return NullTest.missing(f"{index.name} is missing in {len(draws) - len(defined)} of {len(draws)} "
                                "permutations")
    larger = index.measure.larger_is_more_similar
    null = DrawnNull(defined if larger else -defined)
    method = f"{len(defined)} permutations of {kept.unit}"
    found = NullTest.of(value.value, null, index.best, larger, len(kept.exchange.rows), method)
    sign, scale = 1 if larger else -1, null.std if not null.changes_nothing else math.inf
    standard = (sign * draws - null.mean) / scale
    return replace(found, z=(sign * value.value - null.mean) / scale, draws=standard)
