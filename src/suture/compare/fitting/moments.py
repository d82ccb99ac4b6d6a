"""The stage of moments: one pass over the data, then structural indices and direct matching of all cells."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from suture._base import NO_KEEPER, Progress
from suture.compare.fitting.filling import Filling
from suture.compare.fitting.index_rows import describe_indices
from suture.compare.records import (
    Findings,
    Fitted,
    FittedMap,
    SharedSetup,
    mark_rows,
    pack_maps,
    stack_cells,
)
from suture.compare.setup import Setup, make_nan_error
from suture.data import Batch, Batches, go_on
from suture.indices import FOLDS, STITCH, Needs, Value
from suture.networks import disable_gradients
from suture.numbers import Arrays, NumericalError
from suture.ood import DetectorFitter, SiteFeatures
from suture.representations import Accumulators, AccumulatorSettings, Cell
from suture.stitching import DirectMatch, direct_match, explain_overfit

_SOLUTIONS = {"rank": "dm.rank", "condition": "dm.condition", "residual": "dm.fit_residual",
              "expected": "dm.expected_residual"}
"""Arrays of a result by attribute of `DirectMatch`."""


@dataclass(frozen=True)
class Matched:
    """Direct matching of all cells: the fitted maps, and their solutions."""

    fitted: Fitted
    solutions: Mapping[Cell, DirectMatch]


@disable_gradients()
def collect_moments(batches: Batches, filling: Filling, progress: Progress | None = None,
                    name: str = "") -> None:
    """Add the representations of all examples at all sites of both networks.

    Args:
        progress: called as ``progress("moments", batches done, batches)``.
        name: of the pass in checkpoints. Default: none are written.
    """
    setup = filling.setup
    with (setup.keeper if name else NO_KEEPER).keep(name, filling.state) as kept:
        for k, batch in go_on(batches, kept):
            with filling.explain_failure(k):
                add_batch(batch, filling)
            if progress:
                progress("moments", k + 1, batches.count_batches())
    filling.check()


def add_batch(batch: Batch, filling: Filling) -> None:
    """Add a batch, in pieces, after both networks have run on each."""
    source, target = filling.setup.source, filling.setup.target

    def run_fronts(piece: Batch) -> tuple[list[Tensor], list[Tensor]]:
        xs = source.front(piece.source)
        return xs, xs if source is target else target.front(piece.target)

    for piece, (xs, ys) in filling.setup.pieces.map(batch, filling.setup.settings.torch_device, run_fronts):
        filling.add(piece, xs, ys)


def collect(setup: Setup) -> Accumulators:
    """Run the pass over the data that fills the accumulators and fits the detectors, if none has yet.

    If the accumulators run out of memory, the pass begins again with a smaller micro-batch.
    """
    done = setup.pieces.run(lambda: _collect_once(setup))
    if setup.detection is not None and done.fitter is not None:
        setup.detection.finish(done.fitter, setup.data.whole, setup.settings.tell_progress, setup.keeper)
    return done.accumulators


def _collect_once(setup: Setup) -> Filling:
    done = setup.collected
    if done is None:
        done = Filling.of(setup)
        collect_moments(setup.data.fit, done, setup.settings.tell_progress, "moments")
    if setup.detection is None or done.fitter is not None:
        return done
    fitter = setup.detection.make_fitter()
    if fitter.needed:
        _fit_detectors(setup, fitter)
    return replace(done, fitter=fitter)


@disable_gradients()
def _fit_detectors(setup: Setup, fitter: DetectorFitter) -> None:
    """Run an extra pass over all data for `fitter`, if the moments used only the first examples."""
    target = setup.target
    with setup.keeper.keep("detectors", {"detectors": fitter.list_statistics()}) as kept:
        for number, batch in go_on(setup.data.whole, kept):
            for piece, xs in setup.pieces.map(batch, setup.settings.torch_device,
                                              lambda piece: target.front(piece.target)):
                mask = target.find_masks(piece.target)
                for k, x in enumerate(xs):
                    if not torch.isfinite(SiteFeatures(x, target.shapes[k], mask).mean).all():
                        raise make_nan_error(target, k, number, "data")
                fitter.update(xs, piece.labels, mask)


def compute_published(setup: SharedSetup) -> tuple[dict[Cell, dict[str, Value]], dict[str, int]]:
    """Compute the indices with the alignment of Balogh and Jelasity (2025), and count their examples.

    CKA uses flattened maps. The other indices use positions as rows if the shapes agree, else means over
    positions. This pass comes first, because it may fail on data that the long pass accepts.
    """
    paper = setup.data.paper
    if paper is None:
        return {}, {}
    asked, sources, targets = setup.settings.accumulator_settings, setup.source.shapes, setup.target.shapes
    papers = asked.select_requests("paper")
    views = {r.name: ("flatten",) if r.index.needs is Needs.KEPT_KERNELS else (STITCH, "pool")
             for r in papers}
    requests = [replace(r, alignment=view) for r in papers for view in views[r.name]]
    how = AccumulatorSettings(requests, precision=asked.precision)

    def collect_once() -> Accumulators:
        made = Accumulators(sources, targets, how, same=setup.source is setup.target)
        collect_moments(paper, Filling(setup, made), setup.settings.tell_progress, "first test data")
        return made

    accumulators, found = setup.pieces.run(collect_once), {}
    for i, j in setup.cells:
        values = accumulators.compute_values(i, j)
        alike = replace(sources[i], last=targets[j].last) == targets[j]
        found[i, j] = {r.name: values[replace(r, alignment=views[r.name][0 if alike else -1]).name]
                       for r in papers}
    return found, {"n_paper": accumulators.examples}


def match(setup: Setup, accumulators: Accumulators) -> Matched:
    """Solve direct matching in every cell whose widths allow the family."""
    settings, failed = setup.settings, {**accumulators.unaligned, **setup.unfit}
    solutions: dict[Cell, DirectMatch] = {}
    maps: dict[Cell, FittedMap] = {}
    for i, j in setup.cells if settings.method_names else ():
        if (i, j) in failed:
            continue
        folds = accumulators.stitch.get_folds(i, j, FOLDS) if settings.folds > 1 else None
        try:
            found = direct_match(accumulators.stitch.get_pair(i, j), settings.affine_family, folds)
        except NumericalError as e:
            failed[i, j] = str(e)
            continue
        # In rows, as when it is read back: products of transposed matrices may round otherwise.
        solutions[i, j], maps[i, j] = found, FittedMap(found.weight.contiguous(), found.bias)
    return Matched(Fitted(maps, failed), solutions)


def describe_moments(setup: Setup, accumulators: Accumulators, matched: Matched,
                     published: Mapping[Cell, Mapping[str, Value]], counts: Mapping[str, int]) -> Findings:
    """Return the findings: indices, direct matching, spectra of the sites, notes."""
    arrays = pack_maps("dm", matched.fitted)
    for name, key in _SOLUTIONS.items() if matched.solutions else ():
        of = {c: float(getattr(m, name)) for c, m in matched.solutions.items()}
        arrays[key] = stack_cells(of, setup.shape)
    found = Findings(arrays=arrays, failed=matched.fitted.failed).add(
        describe_indices(setup, accumulators, published, counts))
    if setup.detection is None:
        return found
    return found.add(Findings(arrays=setup.detection.stack_auxiliary_scores(), notes=setup.detection.notes))


def mark_overfitted(setup: Setup, arrays: Arrays, tested: Findings) -> Findings:
    """Mark the cells of direct matching whose fit does not carry over to new data; `tested` evaluates them.

    The R² on test data decides, or without such data the one that the number of rows lets expect.
    """
    found = {(r["source"], r["target"]): r["value"] for r in tested.rows if r["measure"] == "dm.r2"}
    marks, fits = {}, {}
    solved = _SOLUTIONS["residual"] in arrays  # not if every cell failed, as a sparse map may
    for i, j in setup.cells if solved else ():
        residual, expected = (float(arrays[_SOLUTIONS[name]][i, j]) for name in ("residual", "expected"))
        r2 = found.get((str(setup.source.sites[i]), str(setup.target.sites[j])), math.nan)
        if mark := explain_overfit(residual, expected, r2 if setup.data.held_out else None):
            marks[i, j], fits[i, j] = mark, residual + (r2 if setup.data.held_out else -expected)
    marked = mark_rows(setup, tested, marks)
    if not marks:
        return marked
    i, j = worst = min(fits, key=fits.__getitem__)
    note = (f"direct matching does not generalise in {len(marks)} of {len(setup.cells)} cells, such as "
            f"{setup.source.sites[i]} into {setup.target.sites[j]} ({marks[worst].partition(': ')[2]}); give "
            "more examples, or family='ridge:cv'")
    return replace(marked, notes=[*marked.notes, note])
