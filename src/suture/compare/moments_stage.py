"""The moments stage: one pass over the data for all cells."""

from __future__ import annotations

import numpy as np

from suture._base import SutureError
from suture.compare.collect import TokenShare, collect_moments, compute_paper_indices, fit_detectors
from suture.compare.run import Run
from suture.indices import FOLDS, Value
from suture.numbers import Estimate, Pair
from suture.representations import Accumulators, Cell
from suture.stitching import direct_match


def run_moments(run: Run) -> None:
    """Run one pass for all cells, then compute indices, direct matching and training-free detectors."""
    published = _run_paper_indices(run)  # first, because it may fail on data that the long pass accepts
    accumulators = ensure_accumulators(run)
    short: list[tuple[int, int, int]] = []
    constant: dict[int, None] = {}
    values = accumulators.compute_all_values(run.cells, run.settings.progress) if run.settings.indices else {}
    for i, j in run.cells:
        rows = accumulators.count_rows(i, j)
        for name, v in (values.get((i, j), {}) | published.get((i, j), {})).items():
            n = rows.get(name, run.counts.get("n_paper", 0))
            run.add_row(i, j, name, Estimate(v.value, v.low, v.high, v.reason), n)
        if not accumulators.has_stitch:
            continue
        pair = accumulators.stitch.get_pair(i, j)
        if pair.x.rank + pair.y.rank >= pair.moments.n:
            short.append((pair.moments.n, i, j))
        if pair.x.rank == 0:
            constant[i] = None
        if run.settings.methods and (i, j) not in run.excluded:
            _match_cell(run, i, j, pair, accumulators)
    run.counts["n_fit"] = accumulators.examples
    _describe_sites(run, accumulators)
    _note_rows(run, list(constant), short)
    if run.detection is not None:
        run.arrays |= run.detection.stack_auxiliary_scores()
        run.notes += run.detection.notes


def _run_paper_indices(run: Run) -> dict[Cell, dict[str, Value]]:
    """Compute the indices of the alignment ``paper``."""
    if run.paper_batches is None:
        return {}
    found, run.counts["n_paper"] = compute_paper_indices(
        run.source, run.target, run.paper_batches, run.settings.accumulator_settings,
        device=run.settings.device, micro_batch=run.micro_batch, progress=run.settings.progress)
    return found


def _describe_sites(run: Run, accumulators: Accumulators) -> None:
    """Add the spectra of the sites, from which their statistics follow."""
    for side, network in (("source", run.source), ("target", run.target)):
        for k in range(len(network.sites)) if run.settings.indices and accumulators.has_stitch else ():
            found = accumulators.compute_statistics(side, k)
            run.arrays[f"{side}.spectrum/{k}"] = found.spectrum.cpu().numpy()
            run.arrays[f"{side}.rows/{k}"] = np.array([found.n, found.width, found.dead], dtype=np.int64)


def ensure_accumulators(run: Run) -> Accumulators:
    """Return the accumulators, after the pass over the data if it was not run yet.

    The same pass makes the detectors. A run continued from an earlier result repeats it.
    """
    if run.accumulators is None:
        fitter = run.detection.make_fitter() if run.detection is not None else None
        a, b, plan = run.source, run.target, run.settings
        accumulators = Accumulators(a.shapes, b.shapes, plan.accumulator_settings,
                                    plan.alignment, same=a is b)
        collect_moments(a, b, run.fit, accumulators, device=plan.device, micro_batch=run.micro_batch,
                        fitter=fitter if run.fit is run.whole else None, progress=plan.progress,
                        share=TokenShare(plan.token_rate, plan.seed) if plan.token_rate < 1 else None)
        run.accumulators = accumulators
        if run.detection is not None and fitter is not None:
            if run.fit is not run.whole and fitter.needed:
                fit_detectors(b, run.whole, fitter, plan.device, run.micro_batch)
            run.detection.finish(fitter, run.whole, run.settings.progress)
    return run.accumulators


def _match_cell(run: Run, i: int, j: int, pair: Pair, accumulators: Accumulators) -> None:
    try:
        match = direct_match(pair, run.settings.family,
                             accumulators.stitch.get_folds(i, j, FOLDS)
                             if run.settings.folds > 1 else None)
    except SutureError as e:  # a sparse map did not converge
        run.excluded[i, j] = str(e)
        return
    run.arrays[f"dm.weight/{i}/{j}"] = match.weight.cpu().numpy()
    run.arrays[f"dm.bias/{i}/{j}"] = match.bias.cpu().numpy()
    shape = (len(run.source.sites), len(run.target.sites))
    for name, value in (("rank", match.rank), ("condition", match.condition),
                        ("fit_residual", match.residual)):
        run.arrays.setdefault(f"dm.{name}", np.full(shape, np.nan))[i, j] = value


def _note_rows(run: Run, constant: list[int], short: list[tuple[int, int, int]]) -> None:
    if constant:
        names = ", ".join(str(run.source.sites[i]) for i in constant)
        run.notes.append(f"constant representation at {names}: similarities are "
                          "missing there, and direct matching predicts the target's mean")
    if short:
        n, i, j = min(short)
        run.notes.append(f"{n} rows are too few for {len(short)} of {len(run.cells)} cells, such as "
                          f"{run.source.sites[i]} into {run.target.sites[j]}: cca, pwcca or r2 are "
                          "missing, and direct matching is the solution of least norm where the source "
                          "has more features")
