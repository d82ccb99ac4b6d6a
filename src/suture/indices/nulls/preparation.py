"""Kept rows of one cell, prepared for permutations and for indices within classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from suture.indices.definition import FROM_MOMENTS, Needs, UndefinedError, require
from suture.indices.nulls.classes import ClassedRows, choose_classes
from suture.indices.nulls.permutation import NullSource
from suture.indices.nulls.shuffled_rows import PermutedRows
from suture.indices.sample import Sample
from suture.numbers import Exchange, Ints

GROUPED = "examples of one group are not independent"
"""Why closed forms do not hold with groups."""


def keep_rows(x: Tensor, y: Tensor, groups: Ints | None, *, sample: Sample | None = None,
              precision: torch.dtype = torch.float64) -> PermutedRows:
    """Prepare rows, one for each example, for permutations of examples, or of groups of them."""
    n = len(x)
    exchange = Exchange.of(np.arange(n) if groups is None else groups, np.zeros(n, np.int64))
    return PermutedRows(x, y, exchange, "examples" if groups is None else "groups", precision=precision,
                    sample=sample)


def prepare_within(x: Tensor, y: Tensor, labels: Ints | None, groups: Ints | None, draws: int, seed: int,
                   precision: torch.dtype = torch.float64) -> tuple[dict[Needs, Any] | str, NullSource]:
    """Return the inputs of indices within classes, or the reason why there are none, and their null.

    Rows, or groups of rows, are permuted within their classes.
    """
    try:
        require(labels is not None, "examples have no class: write within=, one for each example")
        assert labels is not None
        rows = ClassedRows.of(x, y, labels, precision)
    except UndefinedError as e:
        return str(e), NullSource()
    inputs: dict[Needs, Any] = dict.fromkeys(FROM_MOMENTS, rows.pair)
    inputs |= {Needs.ROWS: rows.sample, Needs.CLASSES: rows}
    kept, classes = choose_classes(labels)
    exchange = Exchange.of(np.arange(len(kept)) if groups is None else groups[kept], classes)
    unit = "examples within classes" if groups is None else "groups within classes"
    permuted = PermutedRows(*rows.centred, exchange, unit, rows.pair.share, precision, rows.sample, rows)
    return inputs, NullSource(draws, seed, "" if groups is None else GROUPED, permuted, rows)
