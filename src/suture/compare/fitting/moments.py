"""The stage of moments: one pass over the data, then structural indices and direct matching of all cells."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from suture._base import NO_KEEPER, Progress, SutureError, is_out_of_memory, summarise_error
from suture.compare.fitting.index_rows import describe_indices
from suture.compare.fitting.token_share import TokenShare
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
from suture.numbers import Arrays, NonFiniteError, NumericalError
from suture.ood import DetectorFitter, SiteFeatures
from suture.representations import (
    Accumulators,
    AccumulatorSettings,
    Cell,
    Masks,
    has_unpadded_tokens,
    select_mask,
)
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
def collect_moments(setup: SharedSetup, batches: Batches, accumulators: Accumulators,
                    progress: Progress | None = None, fitter: DetectorFitter | None = None,
                    share: TokenShare | None = None, name: str = "") -> None:
    """Add the representations of all examples at all sites to `accumulators` and `fitter`.

    Args:
        accumulators: get the unpadded tokens, or those that `share` draws.
        progress: called as ``progress("moments", batches done, batches)``.
        fitter: gets native representations, always with all tokens.
        name: of the pass in checkpoints. Default: none are written.
    """
    rows = [0]
    state = {"rows": rows, "accumulators": accumulators, "share": share,
             "detectors": None if fitter is None else fitter.list_statistics()}
    with (setup.keeper if name else NO_KEEPER).keep(name, state) as kept:
        for k, batch in go_on(batches, kept):
            with _explain_failure(setup, k):
                rows[0] += _add_batch(setup, batch, accumulators, fitter, share)
            if progress:
                progress("moments", k + 1, batches.count_batches())
    if not rows[0]:
        raise SutureError("the data hold only padding tokens; give another attention mask, more data, or a "
                          "larger token_rate")


def _add_batch(setup: SharedSetup, batch: Batch, accumulators: Accumulators, fitter: DetectorFitter | None,
               share: TokenShare | None) -> int:
    """Add a batch; return the number of its pieces where both networks' inputs have unpadded tokens."""
    rows, source, target = 0, setup.source, setup.target

    def run_fronts(piece: Batch) -> tuple[list[Tensor], list[Tensor]]:
        xs = source.front(piece.source)
        return xs, xs if source is target else target.front(piece.target)

    for piece, (xs, ys) in setup.pieces.map(batch, setup.settings.torch_device, run_fronts):
        own = target.find_masks(piece.target)
        masks: list[Masks] = [source.find_masks(piece.source), own]
        if share is not None:
            masks = share.draw_masks(xs, *(select_mask(m, of.shapes[0].sequence) for m, of in zip(
                masks, (source, target), strict=True)))
        accumulators.update(xs, ys, masks[0], masks[1], piece.labels)
        if fitter is not None:
            fitter.update(ys, piece.labels, own)
        rows += all(map(has_unpadded_tokens, masks))
    return rows


@contextmanager
def _explain_failure(setup: SharedSetup, batch: int) -> Iterator[None]:
    """Turn an error in a batch of the data, but for running out of memory, into one line."""
    try:
        yield
    except NonFiniteError as e:
        raise make_nan_error(setup.source if e.side == "source" else setup.target, e.index, batch,
                             "data") from None
    except (RuntimeError, IndexError) as e:
        if is_out_of_memory(e):
            raise
        instead = ("token ids below the number of embeddings" if isinstance(e, IndexError)
                   else "batches of one input size")
        raise SutureError(f"a network fails on batch {batch} of the data, after the first ones went "
                          f"well: {summarise_error(e)}; give {instead}") from e


def collect(setup: Setup) -> Accumulators:
    """Run the pass over the data that fills the accumulators and fits the detectors.

    If the accumulators run out of memory, the pass begins again with a smaller micro-batch.
    """
    accumulators, fitter = setup.pieces.run(lambda: _collect_once(setup))
    if setup.detection is not None and fitter is not None:
        setup.detection.finish(fitter, setup.data.whole, setup.settings.progress, setup.keeper)
    return accumulators


def _collect_once(setup: Setup) -> tuple[Accumulators, DetectorFitter | None]:
    settings, data, detection = setup.settings, setup.data, setup.detection
    accumulators = setup.make_accumulators()
    fitter = None if detection is None else detection.make_fitter()
    share = TokenShare(settings.token_rate, settings.seed) if settings.token_rate < 1 else None
    collect_moments(setup, data.fit, accumulators, settings.progress,
                    fitter if data.fit is data.whole else None, share, "moments")
    if fitter is not None and data.fit is not data.whole and fitter.needed:
        _fit_detectors(setup, fitter)
    return accumulators, fitter


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
        collect_moments(setup, paper, made, setup.settings.progress, name="first test data")
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
        solutions[i, j], maps[i, j] = found, FittedMap(found.weight, found.bias)
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
