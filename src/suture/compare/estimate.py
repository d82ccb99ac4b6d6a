"""The dry run of a comparison: its sites, the memory of its sums, and an estimate of its time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from suture.compare.collect import collect_moments
from suture.compare.evaluate import Evaluator
from suture.compare.run import Run
from suture.data import Batch, Batches, cut_batch, move_batch
from suture.networks import SiteInfo
from suture.representations import Accumulators
from suture.stitching import GroupTrainer

TRIED_EXAMPLES = 32
"""Number of examples of a dry run."""
QUICK_SECONDS = 1.0
"""A stage that is faster than this is run a second time."""


@dataclass(frozen=True)
class DryRun:
    """Sites, memory and estimated time of a comparison, from one micro-batch.

    Attributes:
        names: of source and target.
        source, target: their sites with shapes, in order; the same object for self-stitching.
        examples: number of examples of the data and of the test data; None where a stream does not know.
        micro_batch: examples per pass of a network.
        state: bytes of the sums of all cells, for any number of examples.
        seconds: estimated wall time of each stage, from a few examples; None if the number of examples is
            unknown. Solving, intervals and trained detectors are not included.
        device: of the run.
    """

    names: tuple[str, str]
    source: tuple[SiteInfo, ...]
    target: tuple[SiteInfo, ...]
    examples: tuple[int | None, int | None]
    micro_batch: int
    state: int
    seconds: dict[str, float | None]
    device: str


def estimate_run(run: Run) -> DryRun:
    """Run every stage of a comparison on a few examples, and return the estimates.

    A fast stage runs twice, because the first run warms up.
    """
    device, plan = run.settings.device, run.settings
    batch = next(iter(cut_batch(move_batch(next(iter(run.fit)), device),
                                min(run.micro_batch, TRIED_EXAMPLES))))
    one = Batches([Batch(batch.source, batch.target, batch.labels)])
    accumulators = Accumulators(run.source.shapes, run.target.shapes, plan.accumulator_settings,
                                plan.alignment, same=run.source is run.target)

    def each(work: Callable[[], object]) -> float:
        return _time_work(work, device) / batch.size

    n_test, per_test = run.test.count_examples(), 0.0
    seconds = {"moments": _multiply(run.fit.count_examples(), each(lambda: collect_moments(
        run.source, run.target, one, accumulators, device=device, micro_batch=run.micro_batch)))}
    layers = {c: run.make_layer(*c).init_random(0).to(device) for c in run.cells if c not in run.excluded}
    if plan.methods:
        evaluator = Evaluator(run.source, run.target, layers, run.micro_batch, None, run.task)
        per_test = each(lambda: evaluator.run(one, device))
        seconds |= dict.fromkeys(plan.methods, _multiply(n_test, per_test))
    if "tlm" in plan.methods:
        brief = replace(plan.recipe, epochs=1, patience=None)
        step = each(lambda: GroupTrainer(run.source, run.target, layers, brief, run.micro_batch,
                                         run.task).fit(one, device))
        training, testing = _multiply(run.whole.count_examples(), step * plan.recipe.epochs), seconds["tlm"]
        seconds["tlm"] = None if training is None or testing is None else training + testing
    return DryRun(run.names, run.source.infos, run.target.infos, (run.fit.count_examples(), n_test),
                  run.micro_batch, accumulators.nbytes_planned, seconds, str(device))


def _time_work(work: Callable[[], object], device: torch.device) -> float:
    took = 0.0
    for _ in range(2):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        took = time.perf_counter() - start
        if took > QUICK_SECONDS:
            break
    return took


def _multiply(n: int | None, each: float) -> float | None:
    return None if n is None else n * each
