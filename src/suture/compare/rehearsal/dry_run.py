"""The dry run of a comparison: sites, memory and time, from a few examples that pass every stage."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from suture._base import Progress, checked, name_callback, takes
from suture.compare.fitting.filling import Filling
from suture.compare.fitting.moments import collect_moments
from suture.compare.fitting.task_loss import make_layers
from suture.compare.rehearsal.jackknife_time import predict_intervals
from suture.compare.rehearsal.null_time import predict_nulls
from suture.compare.rehearsal.timing import (
    Cost,
    choose_tried,
    measure_cost,
    measure_step,
    predict_indices,
    predict_scores,
)
from suture.compare.run import run_stages
from suture.compare.scoring.evaluation import Evaluator
from suture.compare.settings import CompareOptions
from suture.compare.setup import Setup, set_up
from suture.data import Batch, Batches, cut_batch, move_batch
from suture.networks import SiteInfo
from suture.ood import count_shifted_examples
from suture.representations import Cell
from suture.results import Comparison
from suture.stitching import GroupedPass, StitchingLayer, augment_batch, sort_by_target


@dataclass(frozen=True)
class DryRun:
    """Sites, memory and estimated time of a comparison, from one micro-batch.

    Attributes:
        names: names of source and target.
        source, target: their sites with shapes, in order; the same object for self-stitching.
        examples: numbers of examples of data and test data; None where a stream does not know.
        micro_batch: examples per pass of a network.
        state: bytes of the sums of all cells, for any number of examples.
        seconds: estimated wall time of each stage in a process that has run before, of ``intervals`` and of
            ``nulls`` by permutation where there are any; None if the number of examples is unknown. Reading
            and preprocessing data, indices that need kept rows and trained detectors are not included.
        device: device of the run.
        warning: sentence on labels that the target network cannot predict; usually empty.
        notes: sentences on what is scored of the target network's output.
    """

    names: tuple[str, str]
    source: tuple[SiteInfo, ...]
    target: tuple[SiteInfo, ...]
    examples: tuple[int | None, int | None]
    micro_batch: int
    state: int
    seconds: dict[str, float | None]
    device: str
    warning: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ready:
    """A comparison that is set up and has not begun, so that it can be estimated before it runs.

    Attributes:
        given: its arguments.
        setup: the networks at their sites, and the opened data.
        seconds: wall time of the set-up.
    """

    given: CompareOptions
    setup: Setup
    seconds: float

    @checked
    def estimate(self) -> DryRun:
        """Return what `dry_run` returns."""
        return _Rehearsal(self.setup, self.seconds).describe()

    @checked
    def run(self, progress: Progress | None = None) -> Comparison:
        """Run the comparison as `compare` does; `progress` takes the place of the argument."""
        heard = name_callback("progress")(progress)
        return run_stages(self.given, replace(self.setup, settings=replace(self.setup.settings,
                                                                           progress=heard)))


@takes(CompareOptions)
def make_ready(given: CompareOptions) -> Ready:
    """Set up a comparison, for `Ready.estimate` and `Ready.run`.

    Args:
        {options}

    Raises:
        SutureError: bad input, as by `compare`.
    """
    return _set_up(given)


@takes(CompareOptions)
def dry_run(given: CompareOptions) -> DryRun:
    """Return sites, shapes, memory of the sums and estimated time of `compare` with the same arguments.

    A few examples pass every stage, at most a tenth of what it is for. `on_stage`, `previous`, `save_to`
    and `restart` are ignored.

    Args:
        {options}

    Raises:
        SutureError: bad input, as by `compare`.
    """
    return _set_up(given).estimate()


def _set_up(given: CompareOptions) -> Ready:
    start = time.perf_counter()
    setup = set_up(given)
    return Ready(given, setup, time.perf_counter() - start)


class _Rehearsal:
    """Passes of a few examples through every stage of a comparison that is set up."""

    def __init__(self, setup: Setup, set_up_seconds: float) -> None:
        data, self.device = setup.data, setup.settings.torch_device
        self.setup, self._start = setup, set_up_seconds
        self.n_fit, self.n_test, self._n_whole = (d.count_examples()
                                                  for d in (data.fit, data.test, data.whole))
        tried = choose_tried([self.n_fit, self.n_test], setup.micro_batch)
        batch = move_batch(next(iter(data.fit)), self.device)
        self._batch = next(iter(cut_batch(batch, tried)))
        # Without labels of examples, because the few examples pass again and again.
        free = replace(setup, settings=replace(setup.settings, groups=None, within=None))
        self._accumulators = free.make_accumulators()

    def describe(self) -> DryRun:
        """Return sites, memory and time."""
        setup = self.setup
        return DryRun(setup.names, setup.source.infos, setup.target.infos, (self.n_fit, self.n_test),
                      setup.micro_batch, setup.make_accumulators().nbytes_planned, self._predict(),
                      str(self.device), setup.warning, () if setup.scored is None else setup.scored.notes)

    def _predict(self) -> dict[str, float | None]:
        """Predict the seconds of each stage; setting up and detectors are part of the first."""
        setup, settings = self.setup, self.setup.settings
        indices = predict_indices(setup)
        passing = self._measure(self._collect, settings.accumulator_settings.blocks)
        auxiliary = 0 if setup.detection is None else setup.detection.count_made()
        seconds = {"moments": _add(self._start, passing.predict(self.n_fit, setup.micro_batch),
                                   auxiliary * passing.each_example, indices)}
        seconds |= predict_intervals(setup, self._accumulators)
        seconds |= predict_nulls(setup, self._accumulators, self.n_fit)
        if settings.method_names:
            seconds |= dict.fromkeys(settings.method_names, self._predict_testing())
        if "tlm" in settings.method_names:
            seconds["tlm"] = _add(self._predict_training(),
                                  *[self._predict_testing()] * settings.recipe.seeds)
        first = next(iter(settings.method_names), None)
        if first and settings.detection is not None:
            shifted = count_shifted_examples(setup.target, self._batch.target, setup.task,
                                             settings.detection.shifts,
                                             min(settings.detection.range_examples, self.n_test or 0))
            seconds[first] = _add(seconds[first], shifted * passing.each_example)
        return seconds

    def _measure(self, work: Callable[[Batch], Any], least: int = 1) -> Cost:
        def run(n: int) -> object:
            return work(next(iter(cut_batch(self._batch, n))))

        return measure_cost(run, self._batch.size, self.device, least)

    def _collect(self, batch: Batch) -> None:
        collect_moments(Batches([batch]), Filling(self.setup, self._accumulators))

    @cached_property
    def _layers(self) -> dict[Cell, StitchingLayer]:
        setup = self.setup
        return {c: setup.make_layer(c).init_random(0).to(self.device) for c in setup.cells
                if c not in setup.unfit}

    @cached_property
    def _testing(self) -> tuple[Cost, float]:
        """The cost of a pass over test data, and the seconds of its scores."""
        setup = self.setup
        evaluator = Evaluator(setup.source, setup.target, self._layers, setup.pieces, None, setup.task)
        found = []
        cost = self._measure(lambda batch: found.append(evaluator.run(Batches([batch]), self.device)))
        return cost, predict_scores(setup, found[-1], self.n_test or 0)

    def _predict_testing(self) -> float | None:
        cost, scoring = self._testing
        return _add(cost.predict(self.n_test, self.setup.micro_batch), scoring)

    def _predict_training(self) -> float | None:
        """Predict the seconds of all epochs, by forward and backward passes and the sums of the optimiser."""
        setup, recipe = self.setup, self.setup.settings.recipe
        starting, _ = make_layers(setup, self._layers)
        layers = sort_by_target(starting)
        trained = GroupedPass(setup.source, setup.target, recipe, setup.micro_batch, setup.task)
        generator = torch.Generator().manual_seed(recipe.seed)

        def step(batch: Batch) -> None:
            trained.run(layers, augment_batch(batch, recipe, generator), self.device, backward=True,
                        check=True)

        cost = self._measure(step)
        cost = replace(cost, each_pass=cost.each_pass + measure_step(layers.values()))
        epoch = cost.predict(self._n_whole, recipe.batch_size)
        return None if epoch is None else epoch * recipe.epochs


def _add(*parts: float | None) -> float | None:
    """Add seconds; None if one of them is unknown."""
    known = [p for p in parts if p is not None]
    return sum(known) if len(known) == len(parts) else None
