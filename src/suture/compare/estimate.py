"""A dry run: the sites of a comparison, the memory that its sums take, and about how long it will take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from suture.compare.collect import moments_pass
from suture.compare.evaluate import Evaluator
from suture.compare.stages import Run
from suture.data.batches import Batch, Batches, on_device, pieces
from suture.networks.sites import SiteInfo
from suture.representations.accumulators import Gathering
from suture.stitching.task import GroupTrainer

MOST = 32
"""Examples that are tried."""
QUICK = 1.0
"""Seconds below which a stage is tried a second time."""


@dataclass(frozen=True)
class DryRun:
    """What one micro-batch tells of a comparison.

    Attributes:
        names: of source and target.
        source, target: their sites with shapes, in order; the same object for self-stitching.
        examples: number of examples of the data and of the test data; None where a stream does not know.
        micro_batch: examples that pass a network at once.
        state: bytes that the sums of all cells take, whatever the number of examples.
        seconds: estimated wall time of each stage, from a few examples; None where the number of examples is not
            known. Solving, intervals and trained detectors come on top.
        device: where it runs.
    """

    names: tuple[str, str]
    source: tuple[SiteInfo, ...]
    target: tuple[SiteInfo, ...]
    examples: tuple[int | None, int | None]
    micro_batch: int
    state: int
    seconds: dict[str, float | None]
    device: str


def rehearse(run: Run) -> DryRun:
    """Try every stage of a comparison on a few examples; what is quick twice, because the first time warms up."""
    device, plan = run.plan.device, run.plan
    batch = next(iter(pieces(on_device(next(iter(run.fit)), device), min(run.micro, MOST))))
    one = Batches([Batch(batch.source, batch.target, batch.labels)])
    grid = Gathering(run.source.shapes, run.target.shapes, plan.wanted, plan.alignment, same=run.source is run.target)

    def each(work: Callable[[], object]) -> float:
        return _time(work, device) / batch.size

    n_test, per_test = run.test.examples(), 0.0
    seconds = {"moments": _times(run.fit.examples(), each(lambda: moments_pass(
        run.source, run.target, one, grid, device=device, micro=run.micro)))}
    layers = {c: run.new_layer(*c).init_random(0).to(device) for c in run.cells if c not in run.excluded}
    if plan.methods:
        evaluator = Evaluator(run.source, run.target, layers, run.micro, None, run.task)
        per_test = each(lambda: evaluator.run(one, device))
        seconds |= dict.fromkeys(plan.methods, _times(n_test, per_test))
    if "tlm" in plan.methods:
        brief = replace(plan.recipe, epochs=1, patience=None)
        step = each(lambda: GroupTrainer(run.source, run.target, layers, brief, run.micro, run.task).fit(one, device))
        training, testing = _times(run.whole.examples(), step * plan.recipe.epochs), seconds["tlm"]
        seconds["tlm"] = None if training is None or testing is None else training + testing
    return DryRun(run.names, run.source.infos, run.target.infos, (run.fit.examples(), n_test), run.micro,
                  grid.nbytes_planned, seconds, str(device))


def _time(work: Callable[[], object], device: torch.device) -> float:
    took = 0.0
    for _ in range(2):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        took = time.perf_counter() - start
        if took > QUICK:
            break
    return took


def _times(n: int | None, each: float) -> float | None:
    return None if n is None else n * each
