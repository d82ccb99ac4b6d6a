"""The start of a comparison: networks are copied, data are opened, and possible failures are tried early."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from suture._base import SutureError, check_free_memory, fingerprint_network
from suture.compare.collect import check_share, report_network_errors
from suture.compare.provenance import choose_display_names, describe_data, hash_inputs
from suture.compare.run import Run
from suture.compare.settings import FORWARD_DTYPES, Settings
from suture.data import Batch, Batches, is_same_batch, move_batch
from suture.networks import (
    SitedNetwork,
    SiteSpec,
    choose_micro_batch,
    disable_gradients,
    fold_batch_norms,
    prepare,
    take_first,
)
from suture.ood import Detection
from suture.representations import PAPER_EXAMPLES, Accumulators
from suture.stitching import Task, make_training_batches

OTHER_ORDER = ("the test data came in another order than in the pass before, or augmented at random, so "
               "cells could not be compared in pairs; give a test loader with shuffle=False")


@dataclass(frozen=True)
class _Data:
    """The data of a comparison, opened once for each use.

    Attributes:
        whole: all examples to fit to.
        fit: examples that make the moments.
        test: examples for the evaluation of stitched networks.
        training: batches of task loss matching, and held-out ones.
        paper: examples of the alignment ``paper``.
    """

    whole: Batches
    fit: Batches
    test: Batches
    training: tuple[Batches, Batches | None] | None
    paper: Batches | None


def start_run(source: nn.Module, target: nn.Module | None, data: Any, test: Any, settings: Settings, *,
              sites: SiteSpec = None, target_sites: SiteSpec = None, allow_bypass: bool = False,
              names: tuple[str, str] | None = None, batch_size: int = 256) -> Run:
    """Prepare both networks and check the first batch (arguments as for `suture.compare`).

    Raises:
        SutureError: bad input.
    """
    opened = _open_data(data, test, settings, batch_size)
    other = source if target is None else target
    first = move_batch(next(iter(opened.fit)), settings.device)
    a, b = _site_networks(source, other, first, settings, sites, target_sites, allow_bypass)
    micro_batch = choose_micro_batch(max(a.peak, b.peak), settings.device)
    settings = settings.replace_task(b, first)
    if settings.token_rate < 1:
        check_share(a, b)
    fingerprints = (fingerprint_network(source), fingerprint_network(other))
    origin = {name: found for name, d in (("fit", data), ("test", test)) if (found := describe_data(d))}
    key = hash_inputs((fingerprints, type(source).__qualname__, type(other).__qualname__, a.infos, b.infos,
                       settings.as_record(), origin), opened.fit, opened.test, *settings.open_auxiliary())
    detection = (Detection(settings.ood, b, settings.device, micro_batch, settings.seed, fingerprints[1],
                           data) if settings.ood else None)
    planned = Accumulators(a.shapes, b.shapes, settings.accumulator_settings, settings.alignment, same=a is b)
    check_free_memory(planned.nbytes_planned, settings.device, "the sums of all cells",
                      "give fewer sites, jackknife=0, or indices of one alignment at a time")
    names = names or choose_display_names(source, other, other is source)
    run = Run(a, b, names, opened.fit, opened.test, settings, micro_batch, key, fingerprints, opened.whole,
              origin, detection, opened.training, paper_batches=opened.paper)
    if settings.methods:
        _look_ahead(run, first)
        _exclude_cells(run)
    return run


def _open_data(data: Any, test: Any, settings: Settings, batch_size: int) -> _Data:
    if data is None:
        raise SutureError("expected data to compare the networks on, got none; pass a loader or "
                          "(inputs, labels)")
    how: dict[str, Any] = {"size": batch_size, "device": settings.device}
    whole = Batches(data, **how)
    fit = whole if settings.examples is None else Batches(data, most=settings.examples, **how)
    tested = Batches(data if test is None else test, name="data" if test is None else "test data", **how)
    training = (make_training_batches(data, settings.recipe, settings.device)
                if "tlm" in settings.methods else None)
    paper = None
    if any(r.alignment == "paper" for r in settings.indices):
        paper = Batches(data if test is None else test, name="test data", most=PAPER_EXAMPLES, **how)
    return _Data(whole, fit, tested, training, paper)


def _site_networks(source: nn.Module, target: nn.Module, first: Batch, settings: Settings, sites: SiteSpec,
                   target_sites: SiteSpec, allow_bypass: bool) -> tuple[SitedNetwork, SitedNetwork]:
    """Copy the networks and find their sites.

    The result is the same object twice if one pass serves both sides.
    """
    copies = [prepare(source, take_first(first.source), settings.device, "source")]
    if target is not source:
        copies.append(prepare(target, take_first(first.target), settings.device, "target"))
    how: dict[str, Any] = {"allow_bypass": allow_bypass, "autocast": FORWARD_DTYPES[settings.forward]}
    a = SitedNetwork(copies[0], first.source, sites, name="source", **how)
    shared = target is source and first.source is first.target and target_sites is None
    b = a if shared else SitedNetwork(copies[-1], first.target, sites if target_sites is None
                                      else target_sites, name="target", **how)
    kept = {s.path for s in (*a.sites, *b.sites)}
    for network, inputs in {copies[0]: first.source, copies[-1]: first.target}.items():
        fold_batch_norms(network, take_first(inputs), kept)
    return a, b


def _look_ahead(run: Run, first: Batch) -> None:
    """Run the late steps on the first examples, so that bad input does not end a long run."""
    if run.detection is not None:
        run.detection.check_task(run.task)
        run.detection.check_user_inputs(Batch(take_first(first.source), take_first(first.target), None))
    batch, again = (move_batch(next(iter(run.test)), run.settings.device) for _ in range(2))
    if len(run.settings.methods) > 1 and not is_same_batch(batch, again):
        raise SutureError(OTHER_ORDER)
    with disable_gradients(), report_network_errors(run.test.name, RuntimeError, IndexError):
        run.source.front(take_first(batch.source))
        output = run.target.run_full(take_first(batch.target)).output
    if run.task is not Task.NONE:
        run.task.check_labels(run.task.find_rows(batch.target, batch.labels), run.task.extract_logits(output))


def _exclude_cells(run: Run) -> None:
    """Exclude the cells whose widths do not allow the family."""
    for i, j in run.cells:
        try:
            run.settings.family.check(run.source.shapes[i].width, run.target.shapes[j].width)
        except SutureError as e:
            run.excluded[i, j] = str(e)
    if run.excluded and len(run.excluded) == len(run.cells):
        raise SutureError(next(iter(run.excluded.values())))
