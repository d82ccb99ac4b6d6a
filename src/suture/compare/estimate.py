"""The dry run of a comparison: its sites, the memory of its sums, and its estimated time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from suture.compare.collect import collect_moments
from suture.compare.evaluate import Evaluator
from suture.compare.setup import Setup
from suture.data import Batch, Batches, cut_batch, move_batch
from suture.networks import SiteInfo
from suture.stitching import GroupTrainer

TRIED_EXAMPLES = 32
"""Largest number of examples of a dry run."""
QUICK_SECONDS = 1.0
"""A stage runs a second time if it is faster, because the first run warms up."""


@dataclass(frozen=True)
class DryRun:
    """Sites, memory and estimated time of a comparison, from one micro-batch.

    Attributes:
        names: names of source and target.
        source, target: their sites with shapes, in order; the same object for self-stitching.
        examples: numbers of examples of data and test data; None where a stream does not know.
        micro_batch: examples per pass of a network.
        state: bytes of the sums of all cells, for any number of examples.
        seconds: estimated wall time of each stage; None if the number of examples is unknown. Solving,
            intervals and trained detectors are not included.
        device: device of the run.
    """

    names: tuple[str, str]
    source: tuple[SiteInfo, ...]
    target: tuple[SiteInfo, ...]
    examples: tuple[int | None, int | None]
    micro_batch: int
    state: int
    seconds: dict[str, float | None]
    device: str


def estimate_run(setup: Setup) -> DryRun:
    """Estimate a comparison by running every stage on a few examples."""
    settings, data, device = setup.settings, setup.data, setup.settings.torch_device
    batch = next(iter(cut_batch(move_batch(next(iter(data.fit)), device),
                                min(setup.micro_batch, TRIED_EXAMPLES))))
    one = Batches([Batch(batch.source, batch.target, batch.labels)])
    accumulators, networks = setup.make_accumulators(), (setup.source, setup.target)

    def each(work: Callable[[], object]) -> float:
        return _time_work(work, device) / batch.size

    n_fit, n_test = data.fit.count_examples(), data.test.count_examples()
    seconds = {"moments": _multiply(n_fit, each(lambda: collect_moments(
        *networks, one, accumulators, device=device, micro_batch=setup.micro_batch)))}
    layers = {c: setup.make_layer(c).init_random(0).to(device) for c in setup.cells if c not in setup.unfit}
    if settings.method_names:
        evaluator = Evaluator(*networks, layers, setup.micro_batch, None, setup.task)
        testing = _multiply(n_test, each(lambda: evaluator.run(one, device)))
        seconds |= dict.fromkeys(settings.method_names, testing)
    if "tlm" in settings.method_names:
        brief = replace(settings.recipe, epochs=1, patience=None)
        step = each(lambda: GroupTrainer(*networks, layers, brief, setup.micro_batch,
                                         setup.task).fit(one, device))
        training = _multiply(data.whole.count_examples(), step * settings.recipe.epochs)
        seconds["tlm"] = None if training is None or testing is None else training + testing
    return DryRun(setup.names, setup.source.infos, setup.target.infos, (n_fit, n_test), setup.micro_batch,
                  accumulators.nbytes_planned, seconds, str(device))


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
