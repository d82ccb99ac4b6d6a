"""The measures of every stitched network, from the per-example arrays of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suture.compare.evaluate import Evaluation
from suture.numbers import (
    RECORDS,
    Arrays,
    Estimate,
    Record,
    build_record,
    estimate_batch_mean,
    estimate_hit_ratio,
    estimate_proportion,
    estimate_ratios,
    exponentiate,
    make_missing_estimate,
)
from suture.ood import is_constant
from suture.representations import Cell
from suture.stitching import Task

_LABELLED = ("accuracy", "relative_accuracy", "ce_gap", "relative_perplexity")
_PREDICTED = (*_LABELLED, "agreement", "kl")
ScoreRow = tuple[int, int, str, Estimate, int]
"""Source site, target site, measure, estimate, number of examples (or batches, for means over them)."""


def list_quantities(task: Task) -> tuple[str, ...]:
    """Return the measures of each stitched network (`suture.numbers.measures.MEASURES`)."""
    left_out = {Task.CLASSIFICATION: ("relative_perplexity",), Task.NONE: _PREDICTED}.get(task, ())
    return tuple(q for q in RECORDS if q not in left_out)


def stack_evaluation(found: Evaluation, method: str, shape: tuple[int, int]) -> dict[str, NDArray[Any]]:
    """Return the per-example arrays of a comparison, for S source and T target sites (`shape`).

    Returns:
        ``{method}.correct`` and ``.agree`` bool, ``.kl``, ``.ce`` and ``.error`` float32, all (S, T, N);
        ``target.correct`` bool and ``target.ce`` float32 (N,), ``target.scale`` and ``target.spread`` float32
        (T, N), ``target.batches`` int64 (B,). Cells that were not evaluated are False or NaN. Without labels
        there is no ``correct`` and ``ce``. Without logits there are only ``error``, ``target.scale``,
        ``target.spread`` and ``target.batches``.

    For tasks of tokens, ``correct``, ``agree``, ``kl`` and ``ce`` are float32 sums over the scored tokens of
    an example, whose number is ``target.tokens`` int64 (N,).
    """
    n, (s, t) = found.examples, shape
    arrays: dict[str, NDArray[Any]] = {"target.batches": found.batches}
    for name, of in (("scale", found.scale), ("spread", found.spread)):
        arrays[f"target.{name}"] = _stack_arrays(of, (t, n), np.float32)
    per_cell: dict[str, Mapping[Cell, NDArray[Any]]] = {"error": found.error}
    if found.task is not Task.NONE:
        per_cell = {"kl": found.kl, "error": found.error, "agree": found.agree}
    of_target: dict[str, NDArray[Any] | None] = {"tokens": found.tokens}
    if found.own_correct is not None and found.own_ce is not None:
        per_cell |= {"correct": found.correct, "ce": found.ce}
        of_target = {"correct": found.own_correct, "ce": found.own_ce, "tokens": found.tokens}
    for name, values in per_cell.items():
        counts = name in ("agree", "correct") and found.tokens is None
        arrays[f"{method}.{name}"] = _stack_arrays(values, (s, t, n), np.bool_ if counts else np.float32)
    return arrays | {f"target.{name}": given for name, given in of_target.items() if given is not None}


def has_same_examples(one: Arrays, other: Arrays) -> bool:
    """Return True if two passes had the same test examples in the same order, or `one` has no pass yet.

    The target network's results are compared within tolerances, because last digits may differ between
    devices.
    """
    for name, rtol, atol in (("target.scale", 1e-2, 0.0), ("target.ce", 5e-2, 1e-3),
                             ("target.tokens", 0.0, 0.0)):
        if name in one and name in other:
            a, b = one[name], other[name]
            if a.shape != b.shape or not np.allclose(a, b, rtol=rtol, atol=atol, equal_nan=True):
                return False
    return True


def _stack_arrays(of: Mapping[Any, NDArray[Any]], shape: tuple[int, ...], dtype: type) -> NDArray[Any]:
    full: NDArray[Any] = np.full(shape, False if dtype is np.bool_ else np.nan, dtype)
    for key, values in of.items():
        full[key] = values
    return full


def score_cells(found: Evaluation, arrays: Arrays, method: str, shape: tuple[int, int], seed: int,
                failed: Mapping[Cell, str]) -> list[ScoreRow]:
    """Return every measure of every cell, cell by cell in the order of sites.

    `arrays` are those of `stack_evaluation`. Measures of `failed` cells are missing for the given reason. For
    tasks of tokens, examples are texts. Intervals resample whole texts, because the tokens of one text are
    dependent.
    """
    n = found.examples
    columns = [_estimate_column(found, arrays, method, j,
                                [i for i in range(shape[0]) if (i, j) not in failed], seed)
               for j in range(shape[1])]
    rows: list[ScoreRow] = []
    for (i, j), quantity in product(product(*map(range, shape)), list_quantities(found.task)):
        e = make_missing_estimate(failed[i, j]) if (i, j) in failed else columns[j][quantity][i]
        rows.append((i, j, f"{method}.{quantity}", e,
                     len(found.batches) if quantity == "residual_batches" else n))
    return rows


def _estimate_column(found: Evaluation, arrays: Arrays, method: str, j: int, sources: Sequence[int],
                     seed: int) -> dict[str, dict[int, Estimate]]:
    """Return the estimates of all cells into one target site, by measure and source."""
    column: dict[str, dict[int, Estimate]] = {quantity: {} for quantity in list_quantities(found.task)}
    if not sources:
        return column
    for quantity, of in column.items():
        if not found.labelled and quantity in _LABELLED:
            estimates = [make_missing_estimate("the test data have no labels")] * len(sources)
        elif quantity == "r2" and _is_constant_site(found, j):
            estimates = ([make_missing_estimate("the target's representation is constant on the test data")]
                         * len(sources))
        else:
            records = [build_record(arrays, f"{method}.{quantity}", i, j) for i in sources]
            estimates = _estimate_quantity(quantity, records, seed)
        if found.tokens is not None and found.examples == 1:
            # A single text shows no variation between texts, so there is no interval.
            estimates = [Estimate(e.value, reason=e.reason) for e in estimates]
        of.update(zip(sources, estimates, strict=True))
    for i, quantity in product(sources, column.keys() & _PREDICTED):
        reason = _explain_unpredicted(found, (i, j))
        if reason and not (not found.labelled and quantity in _LABELLED):
            column[quantity][i] = make_missing_estimate(reason)
    return column


def _estimate_quantity(quantity: str, records: Sequence[Record], seed: int) -> list[Estimate]:
    hits = records[0].top.dtype == np.bool_
    if quantity in ("accuracy", "agreement") and hits:
        return [estimate_proportion(r.top) for r in records]
    if quantity == "relative_accuracy" and hits:
        return [estimate_hit_ratio(r.top, r.bottom > 0, seed) for r in records]
    if quantity == "residual_batches":
        return [estimate_batch_mean(r.top) for r in records]
    if quantity == "relative_accuracy" and not records[0].bottom.any():
        return [make_missing_estimate("the target network has no correct prediction")] * len(records)
    found = estimate_ratios(np.stack([r.top for r in records]), records[0].bottom, seed)
    return [exponentiate(e) for e in found] if records[0].exponential else found


def _is_constant_site(found: Evaluation, j: int) -> bool:
    spread, scale = (of[j].sum(dtype=np.float64) for of in (found.spread, found.scale))
    return is_constant(spread, scale)


def _explain_unpredicted(found: Evaluation, cell: Cell) -> str:
    """Return the reason why a cell's predictions are invalid; "" if they are valid."""
    total, unit = ((found.examples, "examples") if found.tokens is None
                   else (int(found.tokens.sum()), "tokens"))
    for who, bad in (("target", found.own_broken), ("stitched", found.broken.get(cell, 0))):
        if bad:
            return f"the {who} network's logits are nan or infinite for {bad} of {total} test {unit}"
    return ""
