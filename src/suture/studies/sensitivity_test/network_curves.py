"""All curves of one network: every measure and the probes, at every rank of every site."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from suture._base import expect
from suture.compare import Setup
from suture.indices import Value
from suture.numbers import Moments, Pair
from suture.studies.probes.call import train_and_test
from suture.studies.probes.principal_components import Basis, choose_ranks
from suture.studies.probes.recipe import ProbeRecipe
from suture.studies.probes.site_pass import SiteExamples, SitePass, check_features
from suture.studies.probes.whole_batches import pass_whole_batches
from suture.studies.sensitivity_test.cut_moments import CutMoments
from suture.studies.sensitivity_test.index_curves import (
    PassedIndices,
    PooledIndices,
    Routes,
    compute_projected,
)
from suture.studies.sensitivity_test.stitched_curves import CurveValue, CutLayers

CURVE_COLUMNS = ("network", "site", "rank", "width", "measure", "value", "low", "high", "n", "reason", "mark")


@dataclass(frozen=True)
class Deletion:
    """What is computed of every network.

    Attributes:
        ranks: "graded", or numbers.
        batchwise: True if representations are cut to the components of each batch.
        recipe: of the probes.
    """

    ranks: str | Sequence[int]
    batchwise: bool
    recipe: ProbeRecipe


@dataclass(frozen=True)
class NetworkCurves:
    """Curves of one network: rows of `CURVE_COLUMNS`, and those of its probes with their notes."""

    rows: list[dict[str, Any]]
    probes: list[dict[str, Any]]
    notes: list[str]


class CurveData:
    """What a pass over the fitting data has collected for all curves of a network."""

    def __init__(self, setup: Setup, deletion: Deletion) -> None:
        settings = setup.settings
        self.setup, self.deletion = setup, deletion
        self.ranks = choose_ranks(deletion.ranks, [s.width for s in setup.source.shapes])
        self.routes = Routes.of(settings.requests, deletion.batchwise)
        self.fits = bool(settings.method_names)
        folds = max(self.routes.folds, settings.folds)
        passed = self._make_passed(None) if deletion.batchwise and (self.routes.passed or self.fits) else None
        run = SitePass(setup, folds=0 if deletion.batchwise else folds, pools=bool(self.routes.pooled),
                       recipe=deletion.recipe, batch_ranks=self.ranks if deletion.batchwise else None,
                       add=None if passed is None else passed.add)
        self.examples: SiteExamples = run.run(setup.data.fit, "moments")
        self.bases = (None if deletion.batchwise else
                      [self.examples.find_basis(j) for j in range(len(self.ranks))])
        if self.routes.passed and not deletion.batchwise:
            passed = self._make_passed(self.bases)
            SitePass(setup, add=passed.add).run(setup.data.fit, "cut representations")
        self.passed = passed

    def _make_passed(self, bases: Sequence[Basis] | None) -> PassedIndices:
        return PassedIndices(self.setup, self.routes.passed, self.ranks, bases,
                             self.fits and self.deletion.batchwise)

    def get_moments(self, j: int) -> CutMoments | None:
        """Return the moments of a site; None if they come from a pass."""
        if self.bases is None:
            return None
        return CutMoments(self.examples.get_sides(j), self.bases[j],
                          getattr(torch, self.setup.settings.precision))

    def get_pairs(self, j: int) -> tuple[list[Pair], list[list[Moments]]]:
        """Return the moments of a site at every rank, and those of their folds."""
        moments = self.get_moments(j)
        if moments is not None:
            return ([moments.get_pair(r) for r in self.ranks[j]],
                    [moments.get_folds(r) for r in self.ranks[j]])
        assert self.passed is not None
        stitch, cells = self.passed.accumulators[j].stitch, range(len(self.ranks[j]))
        return [stitch.get_pair(k, 0) for k in cells], [stitch.get_folds(k, 0) for k in cells]

    def compute_indices(self, j: int) -> list[dict[str, Value]]:
        """Return the indices of a site, rank by rank, in the order of the requests."""
        routes, settings = self.routes, self.setup.settings
        found: list[dict[str, Value]] = [{} for _ in self.ranks[j]]
        if (moments := self.get_moments(j)) is not None:
            for k, rank in enumerate(self.ranks[j]):
                found[k] |= compute_projected(routes.projected, moments, rank)
        if routes.pooled and self.bases is not None:
            kept, labels = self.examples.kept, self.examples.labels
            labels = None if labels is None or labels.ndim != 1 else labels[kept]
            pooled = PooledIndices(routes.pooled, self.examples.pooled[j][kept], labels, self.bases[j],
                                   settings.sample, settings.seed)
            for k, rank in enumerate(self.ranks[j]):
                found[k] |= pooled.compute(rank)
        if routes.passed and self.passed is not None:
            for of, values in zip(found, self.passed.compute(j), strict=True):
                of |= values
        return [{r.name: of[r.name] for r in settings.requests if r.name in of} for of in found]


def measure_network(name: str, setup: Setup, deletion: Deletion) -> NetworkCurves:
    """Compute all curves of a network."""
    _check(setup, deletion)
    setup = pass_whole_batches(setup) if deletion.batchwise else setup
    settings, data = setup.settings, CurveData(setup, deletion)
    probes = train_and_test(setup, deletion.recipe, data.ranks, data.bases, data.examples)
    rows: list[dict[str, Any]] = []
    for j, site in enumerate(map(str, setup.source.sites)):
        n = len(data.examples.kept)
        values = [CurveValue(rank, measure, v.value, v.low, v.high, n, v.reason, v.mark)
                  for rank, of in zip(data.ranks[j], data.compute_indices(j), strict=True)
                  for measure, v in of.items()]
        values += _stitch(setup, data, j)
        rows += [{"network": name, "site": site, "width": data.ranks[j][0], **v._asdict()} for v in values]
        if settings.tell_progress:
            settings.tell_progress("sites", j + 1, len(setup.source.sites))
    probe_rows = probes.table.assign(network=name).astype(object).to_dict("records")
    notes = [*probes.notes, *setup.source.notes, *setup.pieces.notes, *(
        f"the {of} come otherwise in every pass: curves, probes and stitched networks see other examples"
        for of in setup.data.random)]
    return NetworkCurves(rows, probe_rows, notes)  # type: ignore[arg-type]


def _stitch(setup: Setup, data: CurveData, j: int) -> list[CurveValue]:
    """Return the curves of stitching layers at a site."""
    methods = setup.settings.method_names
    if not methods:
        return []
    cut = CutLayers(setup, j, data.ranks[j], None if data.bases is None else data.bases[j])
    layers, failed = cut.match(*data.get_pairs(j))
    found = cut.evaluate("dm", layers, failed) if "dm" in methods else []
    if "tlm" in methods:
        trained, curves = cut.train(layers)
        broken = {(k[0], k[1]): why for k, why in curves.failed.items()}
        found += cut.mark(cut.evaluate("tlm", trained, {**failed, **broken}), curves)
    return found


def _check(setup: Setup, deletion: Deletion) -> None:
    settings = setup.settings
    check_features(deletion.recipe, setup)
    prefixed = any(s.prefix for s in setup.source.shapes)
    expect(not (prefixed and settings.alignment.prefix == "drop"), "prefix tokens that are mapped",
           "prefix='drop'", "write AlignmentRule(prefix='map')")
    expect("tlm" not in settings.method_names or settings.recipe.seeds == 1,
           "one initialisation of task loss matching", f"seeds={settings.recipe.seeds}", "write seeds=1")
    expect(settings.token_rate == 1, "all tokens for sensitivity", f"token_rate={settings.token_rate:g}",
           "leave it out")
