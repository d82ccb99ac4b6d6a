"""The stage of moments: one pass over the data, then structural indices and direct matching of all cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from suture._base import SutureError
from suture.compare.array_names import pack_cells, pack_maps, pack_statistics
from suture.compare.collect import TokenShare, collect_moments, compute_paper_indices, fit_detectors
from suture.compare.records import Findings, Fitted, FittedMap, ScoreRow, write_rows
from suture.compare.setup import Setup
from suture.indices import FOLDS, Value
from suture.numbers import Estimate
from suture.representations import Accumulators, Cell
from suture.stitching import DirectMatch, direct_match


@dataclass(frozen=True)
class Matched:
    """Direct matching of all cells: the fitted maps, and their solutions."""

    fitted: Fitted
    solutions: Mapping[Cell, DirectMatch]


def collect(setup: Setup) -> Accumulators:
    """Run the pass over the data that fills the accumulators and fits the detectors."""
    settings, data, detection = setup.settings, setup.data, setup.detection
    accumulators = setup.make_accumulators()
    fitter = None if detection is None else detection.make_fitter()
    share = TokenShare(settings.token_rate, settings.seed) if settings.token_rate < 1 else None
    collect_moments(setup.source, setup.target, data.fit, accumulators, device=settings.torch_device,
                    micro_batch=setup.micro_batch, fitter=fitter if data.fit is data.whole else None,
                    progress=settings.progress, share=share)
    if detection is not None and fitter is not None:
        if data.fit is not data.whole and fitter.needed:
            fit_detectors(setup.target, data.whole, fitter, settings.torch_device, setup.micro_batch)
        detection.finish(fitter, data.whole, settings.progress)
    return accumulators


def match(setup: Setup, accumulators: Accumulators) -> Matched:
    """Solve direct matching in every cell whose widths allow the family."""
    settings, failed = setup.settings, dict(setup.unfit)
    solutions: dict[Cell, DirectMatch] = {}
    maps: dict[Cell, FittedMap] = {}
    for i, j in setup.cells if settings.method_names else ():
        if (i, j) in failed:
            continue
        folds = accumulators.stitch.get_folds(i, j, FOLDS) if settings.folds > 1 else None
        try:
            found = direct_match(accumulators.stitch.get_pair(i, j), settings.affine_family, folds)
        except SutureError as e:  # a sparse map did not converge
            failed[i, j] = str(e)
            continue
        solutions[i, j], maps[i, j] = found, FittedMap(found.weight, found.bias)
    return Matched(Fitted(maps, failed), solutions)


def compute_published(setup: Setup) -> tuple[dict[Cell, dict[str, Value]], dict[str, int]]:
    """Compute the indices of the alignment ``paper``, and count its examples.

    This pass comes first, because it may fail on data that the long pass accepts.
    """
    if setup.data.paper is None:
        return {}, {}
    settings = setup.settings
    found, n = compute_paper_indices(
        setup.source, setup.target, setup.data.paper, settings.accumulator_settings,
        device=settings.torch_device, micro_batch=setup.micro_batch, progress=settings.progress)
    return found, {"n_paper": n}


def describe_moments(setup: Setup, accumulators: Accumulators, matched: Matched,
                     published: Mapping[Cell, Mapping[str, Value]], counts: Mapping[str, int]) -> Findings:
    """Return the findings: indices, direct matching, spectra of the sites, notes."""
    settings, rows = setup.settings, []
    values = accumulators.compute_all_values(setup.cells, settings.progress) if settings.requests else {}
    for i, j in setup.cells:
        n = accumulators.count_rows(i, j)
        for name, v in (values.get((i, j), {}) | dict(published.get((i, j), {}))).items():
            rows.append(ScoreRow(i, j, name, Estimate(v.value, v.low, v.high, v.reason),
                                 n.get(name, counts.get("n_paper", 0))))
    arrays = pack_maps("dm", matched.fitted)
    for name in ("rank", "condition", "residual") if matched.solutions else ():
        of = {c: float(getattr(m, name)) for c, m in matched.solutions.items()}
        arrays |= pack_cells("dm.fit_residual" if name == "residual" else f"dm.{name}", of, setup.shape)
    for side, network in (("source", setup.source), ("target", setup.target)):
        for k in range(len(network.sites)) if settings.requests and accumulators.has_stitch else ():
            arrays |= pack_statistics(side, k, accumulators.compute_statistics(side, k))
    notes = _note_rows(setup, accumulators) if accumulators.has_stitch else []
    if setup.detection is not None:
        arrays |= setup.detection.stack_auxiliary_scores()
        notes += setup.detection.notes
    return Findings(write_rows(setup, rows), arrays, notes, {"n_fit": accumulators.examples, **counts},
                    matched.fitted.failed)


def _note_rows(setup: Setup, accumulators: Accumulators) -> list[str]:
    constant, short = {}, []
    for i, j in setup.cells:
        pair = accumulators.stitch.get_pair(i, j)
        if pair.x.rank + pair.y.rank >= pair.moments.n:
            short.append((pair.moments.n, i, j))
        if pair.x.rank == 0:
            constant[i] = str(setup.source.sites[i])
    notes = []
    if constant:
        notes.append(f"constant representation at {', '.join(constant.values())}: similarities are missing "
                     "there, and direct matching predicts the target's mean")
    if short:
        n, i, j = min(short)
        notes.append(f"{n} rows are too few for {len(short)} of {len(setup.cells)} cells, such as "
                     f"{setup.source.sites[i]} into {setup.target.sites[j]}: cca, pwcca or r2 are missing, "
                     "and direct matching is the solution of least norm where the source has more features")
    return notes
