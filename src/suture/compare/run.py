"""The public calls `compare` and `paper`, and the stages that they run."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from suture._base import (
    SutureError,
    explain_foreign_errors,
    get_time,
    leave_inference_mode,
    log_event,
    report_out_of_memory,
    takes,
)
from suture.compare.fitting.moments import (
    collect,
    compute_published,
    describe_moments,
    mark_overfitted,
    match,
)
from suture.compare.fitting.prepared_networks import PreparedNetworks
from suture.compare.fitting.shards import collect_shard
from suture.compare.fitting.task_loss import (
    describe_training,
    find_marks,
    measure_own_layers,
    train,
)
from suture.compare.kept_run import open_kept_run, report_checkpoints
from suture.compare.records import LOGGED, Findings, Fitted, mark_rows, unpack_maps
from suture.compare.result import assemble, list_standing_notes, take_over
from suture.compare.scoring.example_rows import ExampleRows
from suture.compare.scoring.scores import evaluate
from suture.compare.settings import CompareOptions
from suture.compare.setup import OTHER_ORDER, Setup, set_up
from suture.representations import Accumulators, AlignmentRule
from suture.results import Comparison
from suture.stitching import FULL, TaskRecipe


@takes(CompareOptions)
def compare(given: CompareOptions) -> Comparison:
    """Compare two networks layer by layer.

    One pass over `data` gives the moments of all cells, and from them every index and every direct-matching
    layer. Task loss matching trains on `data`. Stitched networks are evaluated on `test`, and
    their representations measured against the target's natural range (`Comparison.cells`).

    Args:
        {options}

    Raises:
        SutureError: bad input. One line says what was expected, what was given and what to write instead.
    """
    if given.shard is not None:
        return collect_shard(given)  # type: ignore[return-value]  # a `Shard`, as the option says
    return run_stages(given)


def compare_prepared(*, setup: Setup | None = None, known: PreparedNetworks | None = None,
                     **options: Any) -> Comparison:
    """Compare as `compare`, with what was made before with the same options.

    Args:
        setup: the setup of this comparison.
        known: networks that were prepared for others with the same data and settings.
        options: of `compare`.
    """
    with explain_foreign_errors(), leave_inference_mode():
        given = CompareOptions(**options)
        if setup is not None:
            setup = replace(setup, settings=replace(setup.settings, progress=given.progress))
        return run_stages(given, setup, known)


def run_stages(given: CompareOptions, setup: Setup | None = None,
               known: PreparedNetworks | None = None) -> Comparison:
    """Run what is unfinished of a comparison; `setup` and `known` as for `compare_prepared`."""
    with open_kept_run(given) as kept:
        run = _Run(kept.keep(setup or set_up(given, known)), kept.previous)
        result: Comparison | None = None
        for stage in run.unfinished:
            start = time.perf_counter()
            log_event(f"{run.name}: {stage} begins", logging.DEBUG, LOGGED)
            run.run_stage(stage)
            log_event(f"{run.name}: {stage}, {time.perf_counter() - start:.1f} s", of=LOGGED)
            result = None
            if kept.folder is not None or given.on_stage:
                result = assemble(run.setup, run.found)
                kept.save(result, stage)
                if given.on_stage:
                    given.on_stage(result)
        kept.end()
        result = result or assemble(run.setup, run.found)
        for note in result.meta["notes"]:
            log_event(f"{run.name}: note: {note}", logging.DEBUG, LOGGED)
        return result


class _Run:
    """One comparison in progress; the finished stages of an earlier result `previous` are not run again."""

    def __init__(self, setup: Setup, previous: Comparison | None = None) -> None:
        self.setup = setup
        self.found = (Findings() if previous is None
                      else take_over(previous, setup,
                                     list_standing_notes(setup, previous.meta.get("chance") or {})))
        self.unfinished = [s for s in ("moments", *setup.settings.method_names) if s not in self.found.stages]
        self.name = " into ".join(setup.names)
        sites = " x ".join(str(len(side.sites)) for side in (setup.source, setup.target))
        log_event(f"{self.name}: {sites} sites, {setup.micro_batch} examples at a time on "
                  f"{setup.settings.torch_device}; to do: {', '.join(self.unfinished) or 'nothing'}",
                  logging.DEBUG, LOGGED)

    def run_stage(self, stage: str) -> None:
        """Run one stage and add its findings."""
        run = {"moments": self._run_moments, "dm": self._run_direct_matching,
               "tlm": self._run_task_loss_matching}[stage]
        with report_out_of_memory(f"the stage {stage}", "give fewer sites, indices of one alignment at a "
                                  "time, or another device"):
            new, before = run(), self.found.seen.get("test data")
        report_checkpoints(self.setup)
        seen = self._list_seen(stage)
        if before is not None and before != seen["test data"]:
            raise SutureError(OTHER_ORDER)
        self.found = self.found.add(replace(new, stages=[stage], computed={stage: get_time()}, seen=seen))

    def _list_seen(self, stage: str) -> dict[str, dict[str, Any]]:
        """Return what the passes have seen of the data; data that no pass saw in order are read for it."""
        watched = self.setup.data.watched
        unordered = [n for n in watched if n.startswith(("auxiliary", "unseen"))
                     or (n == "all data" and stage == "tlm")]
        for name in unordered:
            if watched[name].seen is None:
                watched[name].read_again()
        return {name: data.seen.as_record() for name, data in watched.items() if data.seen is not None}

    @cached_property
    def accumulators(self) -> Accumulators:
        """The accumulators after the pass over the data, which a continued run repeats only if needed."""
        return collect(self.setup)

    @cached_property
    def paired(self) -> ExampleRows:
        """Rows of a few test examples, with the natural range of an earlier result if there is one."""
        return ExampleRows(self.setup, self.found.ood.get("range"))

    @cached_property
    def matched(self) -> Fitted:
        """The maps of direct matching, just fitted or of the earlier result."""
        return unpack_maps("dm", self.found.arrays, self.found.failed)

    def _run_moments(self) -> Findings:
        published, counts = compute_published(self.setup)
        matched = match(self.setup, self.accumulators)
        self.matched = matched.fitted
        return describe_moments(self.setup, self.accumulators, matched, published, counts)

    def _run_direct_matching(self) -> Findings:
        return mark_overfitted(self.setup, self.found.arrays, self._evaluate("dm", [self.matched]))

    def _run_task_loss_matching(self) -> Findings:
        training = train(self.setup, self.matched)
        tested = self._evaluate("tlm", training.fitted)
        marks = find_marks(self.setup, training, measure_own_layers(self.setup, training, tested))
        return describe_training(self.setup, training, marks).add(mark_rows(self.setup, tested, marks))

    def _evaluate(self, method: str, runs: Sequence[Fitted]) -> Findings:
        return evaluate(self.setup, method, runs, self.found.arrays,
                        *((None, None) if self.setup.detection is None
                          else (self.accumulators, self.paired)))


def paper(seed: int = 0) -> dict[str, Any]:
    """Return the arguments of `compare` and `suture.stitch` for the setup of Balogh and Jelasity, AAAI 2025.

    >>> suture.compare(network, data=train, test=test, **suture.paper())

    In the paper (arXiv 2412.11299), the map is a bilinear resize to the target's size, then a full affine map
    (one for all tokens). Direct matching uses the first 100 examples of `data`, which should not be
    augmented. Task loss matching uses `TaskRecipe.paper`. Functional DM is ``dm.accuracy``, structural DM is
    ``dm.residual_batches``.

    Two errors of the published code are not repeated. Its float32 pseudo-inverse drops more directions the
    more rows there are. Its residual belongs to another map than the stitching layer.

    The paper's detectors take hours, so they are not included. To add them, write
    ``ood=suture.OOD(("energy",), energy=suture.EnergyRecipe.paper(), auxiliary=random_images,
    store="detectors")``.

    Args:
        seed: seed of initialisations, the order of the data and the augmentation.
    """
    return {"family": FULL, "alignment": AlignmentRule(resize="bilinear", order="before", prefix="auto"),
            "examples": 100, "tlm": TaskRecipe.paper(seed), "seed": seed}
