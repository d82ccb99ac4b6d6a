"""A dry run: the sites of a comparison, the memory that its sums take, and about how long it will take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from suture.aligned import AlignedMoments
from suture.batches import Batch, Batches, on_device, pieces
from suture.calls import no_gradients
from suture.plans import PRECISIONS
from suture.representations import mask_of
from suture.runs import Run
from suture.sites import SiteInfo
from suture.stitching.evaluate import Evaluator
from suture.stitching.task import GroupTrainer


@dataclass(frozen=True)
class DryRun:
    """What one micro-batch tells of a comparison.

    Attributes:
        names: of source and target.
        source, target: their sites with shapes, in order; the same object for self-stitching.
        examples: number of examples of the data and of the test data; None where a stream does not know.
        micro_batch: examples that pass a network at once.
        state: bytes that the sums of all cells take, whatever the number of examples.
        seconds: estimated wall time of each stage, from a micro-batch; None where the number of examples is not
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
    """Try every stage of a comparison on one micro-batch, twice: the first time warms up, the second is taken."""
    batch = next(iter(pieces(on_device(next(iter(run.fit)), run.plan.device), run.micro)))
    grid = AlignedMoments(run.source.shapes, run.target.shapes, run.plan.alignment, same=run.source is run.target,
                          folds=run.plan.folds, precision=PRECISIONS[run.plan.precision],
                          higher="cka_debiased" in run.plan.indices)
    cost = {"moments": _time(lambda: _moments(run, grid, batch), run.plan.device) / batch.size}
    one = Batches([Batch(batch.source, batch.target, batch.labels)])
    layers = {c: run.new_layer(*c).init_random(0).to(run.plan.device) for c in run.cells if c not in run.excluded}
    tested = _time(lambda: Evaluator(run.source, run.target, layers, run.micro).run(one, run.plan.device),
                   run.plan.device) / batch.size
    n_fit, n_test = run.fit.examples(), run.test.examples()
    seconds = {"moments": _times(n_fit, cost["moments"])}
    for method in run.plan.methods:
        seconds[method] = _times(n_test, tested)
    if "tlm" in run.plan.methods:
        brief = replace(run.plan.recipe, epochs=1, patience=None)
        step = _time(lambda: GroupTrainer(run.source, run.target, layers, brief, run.micro).fit(one, run.plan.device),
                     run.plan.device) / batch.size
        whole, own = _times(run.whole.examples(), step * run.plan.recipe.epochs), seconds["tlm"]
        seconds["tlm"] = None if whole is None or own is None else whole + own
    return DryRun(run.names, run.source.infos, run.target.infos, (n_fit, n_test), run.micro, grid.nbytes, seconds,
                  str(run.plan.device))


def _moments(run: Run, grid: AlignedMoments, batch: Batch) -> None:
    with no_gradients():
        xs = run.source.front(batch.source)
        ys = xs if run.source is run.target else run.target.front(batch.target)
        grid.update(xs, ys, mask_of(batch.source), mask_of(batch.target))


def _time(work: Callable[[], object], device: torch.device) -> float:
    took = 0.0
    for _ in range(2):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        took = time.perf_counter() - start
    return took


def _times(n: int | None, each: float) -> float | None:
    return None if n is None else n * each
