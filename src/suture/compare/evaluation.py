"""The stage of evaluation: all stitched networks on the test data, with scores and distances from native."""

from __future__ import annotations

from dataclasses import dataclass

from suture._base import SutureError
from suture.compare.collect import report_network_errors
from suture.compare.evaluate import Evaluation, Evaluator
from suture.compare.records import Findings, Fitted, ScoreRow, write_rows
from suture.compare.scores import has_same_examples, score_cells, stack_evaluation
from suture.compare.setup import OTHER_ORDER, Setup
from suture.numbers import Arrays, frechet, make_missing_estimate
from suture.ood import ScoreCollector, stack_scores, tabulate_scores
from suture.representations import Accumulators


@dataclass(frozen=True)
class Evaluated:
    """Stitched networks of one method on the test data; `collector` has the scores of the detectors."""

    method: str
    fitted: Fitted
    evaluation: Evaluation
    collector: ScoreCollector | None


def evaluate(setup: Setup, method: str, fitted: Fitted) -> Evaluated:
    """Evaluate all networks stitched by `method` on the test data, in one pass."""
    collector = None if setup.detection is None else setup.detection.make_collector()
    evaluator = Evaluator(setup.source, setup.target, fitted.make_layers(setup), setup.micro_batch, collector,
                          setup.task)
    test = setup.data.test
    with report_network_errors(test.name, IndexError):
        found = evaluator.run(test, setup.settings.torch_device, setup.settings.progress,
                              f"evaluating {method}")
    return Evaluated(method, fitted, found, collector)


def describe_evaluation(setup: Setup, evaluated: Evaluated, before: Arrays,
                        accumulators: Accumulators | None) -> Findings:
    """Return the measures of every cell, and the arrays behind them.

    `before` holds the arrays of earlier stages. `accumulators` hold the moments of the fitting data, for
    distances from native; they are None without detectors.
    """
    method, shape, seed = evaluated.method, setup.shape, setup.settings.seed
    arrays = stack_evaluation(evaluated.evaluation, method, shape)
    if not has_same_examples(before, arrays):
        raise SutureError(OTHER_ORDER)
    rows = [ScoreRow(*r) for r in score_cells(evaluated.evaluation, arrays, method, shape, seed,
                                              evaluated.fitted.failed)]
    ood = {}
    if setup.detection is not None and evaluated.collector is not None and accumulators is not None:
        rows += _measure_distances(setup, evaluated, accumulators)
        scores = stack_scores(evaluated.collector, method, shape)
        setup.detection.describe_quality(scores, evaluated.collector)
        ood = setup.detection.about
        rows += [ScoreRow(*r) for r in tabulate_scores(
            arrays | scores, method, shape, setup.detection.ood.names, seed, evaluated.fitted.failed)]
        arrays |= scores
    return Findings(write_rows(setup, rows), arrays, ood=ood,
                    counts={"n_test": evaluated.evaluation.examples})


def _measure_distances(setup: Setup, evaluated: Evaluated,
                       accumulators: Accumulators) -> list[ScoreRow]:
    """Return the Fréchet distances between stitched and native representations."""
    rows = []
    for cell in setup.cells:
        reason = evaluated.fitted.failed.get(cell, "")
        if setup.settings.relu and not reason:
            reason = "a layer that ends with a ReLU has no closed form of this distance"
        pair = accumulators.stitch.get_pair(*cell)
        parts = None if reason else frechet(*evaluated.fitted.maps[cell], pair)
        for part in ("total", "shift", "shrinkage", "rotation"):
            value = make_missing_estimate(reason) if parts is None else getattr(parts, part)
            name = f"{evaluated.method}.frechet" + ("" if part == "total" else f"_{part}")
            rows.append(ScoreRow(*cell, name, value, pair.moments.n))
    return rows
