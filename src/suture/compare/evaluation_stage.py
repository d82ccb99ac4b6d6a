"""The evaluation stage: every stitched network on the test data, with scores and distances from native."""

from __future__ import annotations

import torch

from suture._base import SutureError
from suture.compare.collect import report_network_errors
from suture.compare.evaluate import Evaluator
from suture.compare.moments_stage import ensure_accumulators
from suture.compare.preparation import OTHER_ORDER
from suture.compare.run import Run
from suture.compare.scores import has_same_examples, score_cells, stack_evaluation
from suture.numbers import frechet, make_missing_estimate
from suture.ood import stack_scores, tabulate_scores
from suture.representations import Accumulators, Cell


def evaluate_method(run: Run, method: str, failed: dict[Cell, str]) -> None:
    """Evaluate every network stitched by `method` on the test data.

    `failed` gives the reason for each cell without a layer.
    """
    layers = {c: run.restore_layer(method, *c) for c in run.cells if c not in failed}
    if run.detection is not None:
        ensure_accumulators(run)
    scoring = run.detection.make_collector() if run.detection is not None else None
    evaluator = Evaluator(run.source, run.target, layers, run.micro_batch, scoring, run.task)
    with report_network_errors(run.test.name, IndexError):
        found = evaluator.run(run.test, run.settings.device, run.settings.progress,
                              f"evaluating {method}")
    shape = (len(run.source.sites), len(run.target.sites))
    arrays = stack_evaluation(found, method, shape)
    if not has_same_examples(run.arrays, arrays):
        raise SutureError(OTHER_ORDER)
    run.arrays |= arrays
    for scored in score_cells(found, arrays, method, shape, run.settings.seed, failed):
        run.add_row(*scored)
    run.counts["n_test"] = found.examples
    if scoring is not None and run.detection is not None:
        _add_distances(run, method, ensure_accumulators(run), failed)
        scored_arrays = stack_scores(scoring, method, shape)
        run.arrays |= scored_arrays
        run.detection.describe_quality(scored_arrays, scoring)
        for scored in tabulate_scores(arrays | scored_arrays, method, shape, run.detection.ood.names,
                                      run.settings.seed, failed):
            run.add_row(*scored)


def _add_distances(run: Run, method: str, accumulators: Accumulators, failed: dict[Cell, str]) -> None:
    """Add the Fréchet distances between stitched and native representations, from the moments."""
    for i, j in run.cells:
        reason = (failed.get((i, j))
                  or ("there is no closed form behind a ReLU" if run.settings.relu else ""))
        pair, parts = accumulators.stitch.get_pair(i, j), None
        if not reason:
            weight, bias = (torch.as_tensor(run.arrays[f"{method}.{k}/{i}/{j}"])
                            for k in ("weight", "bias"))
            parts = frechet(weight, bias, pair)
        for part in ("total", "shift", "shrinkage", "rotation"):
            e = make_missing_estimate(reason) if parts is None else getattr(parts, part)
            name = f"{method}.frechet" + ("" if part == "total" else f"_{part}")
            run.add_row(i, j, name, e, pair.moments.n)
