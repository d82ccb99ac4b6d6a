"""The stage of evaluation: scores and distances from native of all stitched networks, on the test data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from suture._base import SutureError
from suture.compare.evaluation import Evaluation, Evaluator
from suture.compare.records import Findings, Fitted, ScoreRow, write_rows
from suture.compare.setup import OTHER_ORDER, Setup, report_network_errors
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
    frechet,
    make_missing_estimate,
)
from suture.ood import is_constant, stack_scores, tabulate_scores
from suture.representations import Accumulators, Cell
from suture.stitching import Task

_LABELLED = ("accuracy", "relative_accuracy", "ce_gap", "relative_perplexity")
_PREDICTED = (*_LABELLED, "agreement", "kl")


def evaluate(setup: Setup, method: str, fitted: Fitted, before: Arrays,
             accumulators: Accumulators | None) -> Findings:
    """Evaluate all networks stitched by `method` in one pass, and return the measures of every cell.

    `before` holds the arrays of earlier stages. `accumulators` hold the moments of the fitting data, for
    distances from native; they are None without detectors.
    """
    detection, test, seed = setup.detection, setup.data.test, setup.settings.seed
    collector = None if detection is None else detection.make_collector()
    evaluator = Evaluator(setup.source, setup.target, fitted.make_layers(setup), setup.micro_batch, collector,
                          setup.task)
    with report_network_errors(test.name, IndexError):
        found = evaluator.run(test, setup.settings.torch_device, setup.settings.progress,
                              f"evaluating {method}")
    arrays, counts = name_arrays(found, method), {"n_test": found.examples}
    if not has_same_examples(before, arrays):
        raise SutureError(OTHER_ORDER)
    rows = score_cells(found, method, seed, fitted.failed)
    if detection is None or collector is None or accumulators is None:
        return Findings(write_rows(setup, rows), arrays, counts=counts)
    scores = stack_scores(collector, method, setup.shape)
    detection.describe_quality(scores, collector)
    separations = tabulate_scores(arrays | scores, method, setup.shape, detection.ood.names, seed,
                                  fitted.failed)
    rows += [*_measure_distances(setup, method, fitted, accumulators), *(ScoreRow(*r) for r in separations)]
    return Findings(write_rows(setup, rows), arrays | scores, counts=counts, ood=detection.about)


def _measure_distances(setup: Setup, method: str, fitted: Fitted,
                       accumulators: Accumulators) -> list[ScoreRow]:
    """Return the Fréchet distances between stitched and native representations."""
    rows = []
    for cell in setup.cells:
        reason = fitted.failed.get(cell, "")
        if setup.settings.relu and not reason:
            reason = "a layer that ends with a ReLU has no closed form of this distance"
        pair = None if cell in accumulators.unaligned else accumulators.stitch.get_pair(*cell)
        parts = None if reason or pair is None else frechet(*fitted.maps[cell], pair)
        for part in ("total", "shift", "shrinkage", "rotation"):
            value = make_missing_estimate(reason) if parts is None else getattr(parts, part)
            name = f"{method}.frechet" + ("" if part == "total" else f"_{part}")
            rows.append(ScoreRow(*cell, name, value, 0 if pair is None else pair.moments.n))
    return rows


def list_quantities(task: Task) -> list[str]:
    """List the measures of each stitched network (`suture.numbers.MEASURES`)."""
    left_out = {Task.CLASSIFICATION: ("relative_perplexity",), Task.NONE: _PREDICTED}.get(task, ())
    return [q for q in RECORDS if q not in left_out]


def name_arrays(found: Evaluation, method: str) -> dict[str, Any]:
    """Return the arrays of an evaluation by their names on the disk, such as ``dm.kl``, ``target.scale``."""
    named = {f"target.{name}": getattr(found, name) for name in ("batches", "scale", "spread")}
    named |= {f"{method}.{name}": getattr(found, name) for name in ("kl", "error", "agree", "correct", "ce")}
    named |= {"target.correct": found.own_correct, "target.ce": found.own_ce, "target.tokens": found.tokens}
    return {name: array for name, array in named.items() if array is not None}


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


def score_cells(found: Evaluation, method: str, seed: int, failed: Mapping[Cell, str]) -> list[ScoreRow]:
    """Return every measure of every cell, cell by cell in the order of sites.

    Measures of `failed` cells are missing for the given reason. For tasks of tokens, examples are texts.
    Intervals resample whole texts, because the tokens of one text are dependent.
    """
    arrays, quantities, (s, t, n) = name_arrays(found, method), list_quantities(found.task), found.error.shape
    estimates: dict[tuple[int, int, str], Estimate] = {}
    for quantity, j in product(quantities, range(t)):
        reasons = [failed.get((i, j)) or _explain_missing(found, quantity, (i, j)) for i in range(s)]
        defined = [i for i, reason in enumerate(reasons) if not reason]
        records = [build_record(arrays, f"{method}.{quantity}", i, j) for i in defined]
        given = dict(zip(defined, _estimate_quantity(quantity, records, seed), strict=True))
        for i, reason in enumerate(reasons):
            e = make_missing_estimate(reason) if reason else given[i]
            # A single text shows no variation between texts, so there is no interval.
            alone = found.tokens is not None and n == 1
            estimates[i, j, quantity] = Estimate(e.value, reason=e.reason) if alone else e
    return [ScoreRow(i, j, f"{method}.{quantity}", estimates[i, j, quantity],
                     len(found.batches) if quantity == "residual_batches" else n)
            for i, j, quantity in product(range(s), range(t), quantities)]


def _explain_missing(found: Evaluation, quantity: str, cell: Cell) -> str:
    """Return the reason why a measure of a cell is not defined; "" if it is."""
    if quantity in _LABELLED and found.own_correct is None:
        return "the test data have no labels"
    if quantity == "r2":
        spread, scale = (of[cell[1]].sum(dtype=np.float64) for of in (found.spread, found.scale))
        constant = is_constant(spread, scale)
        return "the target's representation is constant on the test data" if constant else ""
    total, unit = ((found.examples, "examples") if found.tokens is None
                   else (int(found.tokens.sum()), "tokens"))
    for who, bad in (("target", found.own_broken), ("stitched", found.broken.get(cell, 0))):
        if bad and quantity in _PREDICTED:
            return f"the {who} network's logits are nan or infinite for {bad} of {total} test {unit}"
    return ""


def _estimate_quantity(quantity: str, records: Sequence[Record], seed: int) -> list[Estimate]:
    if not records:
        return []
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
