"""The stage of evaluation: scores and distances from native of all stitched networks, on the test data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from suture._base import SutureError
from suture.compare.records import Evaluation, Findings, Fitted, ScoreRow, stack_cells, write_rows
from suture.compare.scoring.chance import count_predictions, count_scored
from suture.compare.scoring.evaluation import Evaluator
from suture.compare.scoring.example_rows import ExampleRows
from suture.compare.setup import OTHER_ORDER, Setup, report_network_errors
from suture.numbers import (
    RECORDS,
    Arrays,
    Estimate,
    NumericalError,
    Record,
    build_record,
    estimate_batch_mean,
    estimate_hit_ratio,
    estimate_proportion,
    estimate_ratios,
    exponentiate,
    frechet,
    make_missing_estimate,
    name_runs,
    pool_runs,
    take_root,
)
from suture.ood import is_constant, stack_scores, tabulate_scores
from suture.representations import Accumulators, Cell
from suture.stitching import Task

PER_EXAMPLE = ("kl", "error", "agree", "correct", "ce", "output_gap")
"""Results per example of each stitched network (`Evaluation`)."""
_LABELLED = ("accuracy", "relative_accuracy", "ce_gap", "relative_perplexity")
_PREDICTED = (*_LABELLED, "agreement", "kl")
_OUTPUTS = ("output_r2", "output_error")


def evaluate(setup: Setup, method: str, runs: Sequence[Fitted], before: Arrays,
             accumulators: Accumulators | None, paired: ExampleRows | None = None) -> Findings:
    """Evaluate all networks stitched by `method`, and return the measures of every cell.

    Each of the `runs`, one for each initialisation, needs one pass over the test data. Measures are means
    over runs, as are the per-example arrays; scores of detectors are those of the first run. `before` holds
    the arrays of earlier stages. `accumulators` hold the moments of the fitting data, for distances from
    native; they are None without detectors. `paired` are rows of a few test examples, likewise.
    """
    rows: list[list[ScoreRow]] = []
    arrays: dict[str, Any] = {}
    found = Findings()
    for number, fitted in enumerate(runs):
        new, found = _evaluate_run(setup, method, fitted, {**before, **arrays}, accumulators, paired)
        rows.append(new)
        arrays = _average_arrays(method, arrays, found.arrays, number)
    if len(runs) > 1:
        arrays |= _stack_runs(rows, setup.shape)
    return replace(found, rows=write_rows(setup, [_pool_rows(of) for of in zip(*rows, strict=True)]),
                   arrays=arrays)


def _average_arrays(method: str, old: Arrays, new: Arrays, number: int) -> dict[str, Any]:
    """Return the arrays of the first `number` runs, means of those of `method`, with a new run among them."""
    if not number:
        return dict(new)
    means = {f"{method}.{name}" for name in PER_EXAMPLE}
    return dict(old) | {
        name: (array + (new[name].astype(np.float32) - array) / np.float32(number + 1)).astype(np.float32)
        for name, array in old.items() if name in means}


def _pool_rows(runs: Sequence[ScoreRow]) -> ScoreRow:
    """Return one row of the table from the rows of each run."""
    least, most = _find_bounds(runs[0].measure)
    return runs[0]._replace(value=pool_runs([r.value for r in runs], least, most))


def _stack_runs(runs: Sequence[Sequence[ScoreRow]], shape: tuple[int, int]) -> dict[str, Any]:
    """Return the value of every measure by run, (runs, S, T), under the names of `name_runs`."""
    found: dict[str, dict[tuple[int, int, int], float]] = {}
    for number, rows in enumerate(runs):
        for r in rows:
            found.setdefault(name_runs(r.measure), {})[number, r.i, r.j] = r.value.value
    return {name: stack_cells(of, (len(runs), *shape)) for name, of in found.items()}


def _find_bounds(measure: str) -> tuple[float, float]:
    """Return the least and the largest possible value of a measure."""
    quantity = measure.rpartition(".")[2]
    shares = ("accuracy", "agreement", *(f"{q}_" for q in ("ood", "auroc", "ap", "fpr95")))
    least = -math.inf if quantity in ("r2", "output_r2", "ce_gap") else 0.0
    return least, 1.0 if quantity in ("r2", "output_r2") or quantity.startswith(shares) else math.inf


def _evaluate_run(setup: Setup, method: str, fitted: Fitted, before: Arrays,
                  accumulators: Accumulators | None,
                  paired: ExampleRows | None) -> tuple[list[ScoreRow], Findings]:
    """Evaluate all networks stitched by `method` in one pass; return rows and findings without rows."""
    detection, test, seed = setup.detection, setup.data.test, setup.settings.seed
    collector = None if detection is None else detection.make_collector()
    layers, failed = fitted.make_layers(setup)
    unmade = {c: why for c, why in failed.items() if c not in fitted.failed}
    evaluator = Evaluator(setup.source, setup.target, layers, setup.pieces, collector, setup.task)
    with report_network_errors(test.name, IndexError):
        found = evaluator.run(test, setup.settings.torch_device, setup.settings.tell_progress,
                              f"evaluating {method}", setup.keeper)
    arrays, counts = name_arrays(found, method), {"n_test": found.examples, **count_predictions(found)}
    if not has_same_examples(before, arrays):
        raise SutureError(OTHER_ORDER)
    rows = score_cells(found, method, seed, failed) + _explain_no_task(setup, method, found.examples)
    if detection is None or collector is None or accumulators is None or paired is None:
        return rows, Findings(arrays=arrays, counts=counts, failed=unmade)
    scores = stack_scores(collector, method, setup.shape)
    detection.describe_quality(scores, collector)
    separations = tabulate_scores(collector, arrays | scores, method, setup.shape, detection.ood.names, seed,
                                  failed)
    working = Fitted(fitted.maps, failed)
    near, new = paired.measure(method, working)
    rows += [*near, *_measure_distances(setup, method, working, accumulators),
             *(ScoreRow(*r) for r in separations)]
    return rows, Findings(arrays=arrays | scores, counts=counts, failed=unmade, ood=detection.about).add(new)


def _measure_distances(setup: Setup, method: str, fitted: Fitted,
                       accumulators: Accumulators) -> list[ScoreRow]:
    """Return the Fréchet distances between stitched and native representations."""
    rows = []
    for cell in setup.cells:
        reason = fitted.failed.get(cell, "")
        if setup.settings.relu and not reason:
            reason = "a layer that ends with a ReLU has no closed form of this distance"
        pair = None if cell in accumulators.unaligned else accumulators.stitch.get_pair(*cell)
        try:
            parts = None if reason or pair is None else frechet(*fitted.maps[cell], pair)
        except NumericalError as e:
            parts, reason = None, str(e)
        for part in ("total", "shift", "shrinkage", "rotation"):
            value = make_missing_estimate(reason) if parts is None else getattr(parts, part)
            name = f"{method}.frechet" + ("" if part == "total" else f"_{part}")
            rows.append(ScoreRow(*cell, name, value, 0 if pair is None else pair.moments.n))
    return rows


def _explain_no_task(setup: Setup, method: str, n: int) -> list[ScoreRow]:
    """Return agreement and KL as missing, with the reason why "auto" takes the output for no logits."""
    why = "" if setup.scored is None else setup.scored.why
    return [ScoreRow(*cell, f"{method}.{quantity}", make_missing_estimate(why), n)
            for cell in setup.cells for quantity in ("agreement", "kl") if why]


def list_quantities(task: Task) -> list[str]:
    """List the measures of each stitched network (`suture.numbers.MEASURES`)."""
    left_out = {Task.CLASSIFICATION: ("relative_perplexity", *_OUTPUTS), Task.NONE: _PREDICTED}.get(
        task, _OUTPUTS)
    return [q for q in RECORDS if q not in left_out]


def name_arrays(found: Evaluation, method: str) -> dict[str, Any]:
    """Return the arrays of an evaluation by their names on the disk, such as ``dm.kl``, ``target.scale``."""
    named = {f"target.{name}": getattr(found, name) for name in ("batches", "scale", "spread",
                                                                 "output_scale", "output_spread")}
    named |= {f"{method}.{name}": getattr(found, name) for name in PER_EXAMPLE}
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
    if quantity in _OUTPUTS:
        return _explain_missing_output(found, quantity)
    total, unit = count_scored(found), "examples" if found.tokens is None else "tokens"
    for who, bad in (("target", found.own_broken), ("stitched", found.broken.get(cell, 0))):
        if bad and quantity in _PREDICTED:
            return f"the {who} network's logits are nan or infinite for {bad} of {total} test {unit}"
    return ""


def _explain_missing_output(found: Evaluation, quantity: str) -> str:
    assert found.output_scale is not None
    assert found.output_spread is not None
    broken = int((~np.isfinite(found.output_scale)).sum())
    if broken:
        return (f"the target network's output is nan or infinite for {broken} of {found.examples} test "
                "examples, or has no examples along its first axis")
    spread, scale = (of.sum(dtype=np.float64) for of in (found.output_spread, found.output_scale))
    constant = quantity == "output_r2" and is_constant(spread, scale)
    return "the target network's output is constant on the test data" if constant else ""


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
    if records[0].root:
        return [take_root(e) for e in found]
    return [exponentiate(e) for e in found] if records[0].exponential else found
