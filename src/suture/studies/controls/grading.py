"""Grades of altered native representations: do they work, are they natural, what do they hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import InstanceOf, SkipValidation
from torch import Tensor

from suture._base import (
    Progress,
    SutureError,
    checked,
    display_progress,
    make_unknown_error,
    name_callback,
)
from suture.compare import (
    CLASS_EXAMPLES,
    FEWEST_OF_CLASS,
    CompareOptions,
    ExampleRows,
    Setup,
    set_up,
)
from suture.data import Batch, spread_rows
from suture.networks import Network, SiteSpec
from suture.numbers import (
    Estimate,
    InformationalResidual,
    estimate_informational_residual,
    find_class_places,
)
from suture.ood import (
    OOD,
    Outcome,
    Thresholds,
    apply_shift,
    compare_outcomes,
    join_batches,
    list_shifts,
)
from suture.results import NATIVE, SIMILAR, CellEvidence, Criterion, judge_cell
from suture.stitching import Task
from suture.studies.controls.alterations import ALTERATIONS, Alteration, FittingStatistics
from suture.studies.controls.site_rows import PassedExamples
from suture.studies.controls.truths import find_truth

if TYPE_CHECKING:
    import pandas as pd

GROUPINGS: dict[str, Callable[[Outcome], Tensor]] = {"": lambda outcome: outcome.find_classes()[0]}
"""Functions from an outcome to the class of each example, by the end of their columns' names.

A residual is measured within each of them; verdicts use the first.
"""
IDENTITY, SHIFTED, MILD = "identity", "natural shift", 0.5


@dataclass(frozen=True)
class AlteredSite:
    """One altered site: what was changed, and the numbers that its verdict rests on."""

    site: int
    control: str
    strength: float
    detail: str
    works: Estimate
    distance: Estimate
    residuals: dict[str, InformationalResidual]
    native: bool = False

    @property
    def residual(self) -> InformationalResidual:
        """The residual that the verdict rests on."""
        return self.residuals[""]


class _Grouping:
    """Classes of the fitting examples with enough examples, and the place of each near test example's one."""

    def __init__(self, classes: Tensor, near: Tensor) -> None:
        found, counts = torch.unique(classes, return_counts=True)
        self.classes, self.known = classes, found[counts >= FEWEST_OF_CLASS]
        self.places = find_class_places(near, self.known)

    def average(self, rows: Tensor) -> Tensor:
        """Return the class means (K, L, C) of rows of the fitting examples."""
        return torch.stack([rows[self.classes == c].mean(0) for c in self.known.tolist()]) if len(
            self.known) else rows[:0]


@checked
def grade(network: Network, data: Any, test: Any, sites: Annotated[SiteSpec, SkipValidation] = None, *,
          alterations: Sequence[str] | None = None, ood: Annotated[OOD, InstanceOf[OOD]] | None = None,
          seed: int = 0, device: str | torch.device = "cpu", batch_size: int = 256,
          progress: Progress | bool | None = None) -> pd.DataFrame:
    """Alter a network's own representations, and return the verdict of each alteration at each site.

    Each alteration changes the representations of all test examples at one site, and the rest of the network
    runs on them. As a further control, natural inputs are shifted at half the severity that breaks the
    network. Nothing is fitted, so that what is altered is all that is measured.

    >>> suture.controls.grade(network, train, test, sites=["layer2.0"])

    Args:
        network: a network with predictions; it is not changed.
        data: examples that class means are made of, in any form of `suture.compare`.
        test: examples to alter, likewise. They and their passes are held in memory.
        sites: of the network. Default: the repeated blocks.
        alterations: names of `ALTERATIONS`. Default: all that suit a site; "identity" and "natural shift" are
            always there.
        ood: settings of the natural range, and the threshold of what works.
        seed: of all draws.
        device: device of the passes.
        batch_size: examples per batch.
        progress: function called as ``progress(stage, done, total)``. Default: bars on a terminal and in a
            notebook; False for none.

    Returns:
        A row for each site, alteration and strength: relative accuracy (agreement without labels),
        natural distance in units of the outer radius, both informational residuals, each with its 95 %
        interval; p, verdict and reason; `distance`, `inner` and `outer` in units of the native variance;
        `truth`, the right verdicts, and `grade`: "right", "wrong", "unproven" or "no truth defined".

    Raises:
        SutureError: bad input, an unknown alteration or one that suits no site, or a network without
            predictions.
    """
    names = tuple(ALTERATIONS if alterations is None else alterations)
    if unknown := [name for name in names if name not in ALTERATIONS]:
        raise make_unknown_error("alteration", unknown[0], ALTERATIONS)
    with display_progress(name_callback("progress")(progress)) as shown:
        setup = set_up(CompareOptions(
            network, data=data, test=test, sites=sites, methods=["dm"], indices=(), ood=ood or OOD(()),
            seed=seed, device=device, batch_size=batch_size, progress=shown))
        if setup.task is Task.NONE:
            raise SutureError("controls need a network with predictions, got none of classes or tokens; "
                              "write a classifier around it")
        return _Grader(setup, seed).run([ALTERATIONS[name] for name in names], strict=alterations is not None)


class _Grader:
    """The passes of one network over test and fitting examples, and the cells made from them."""

    def __init__(self, setup: Setup, seed: int) -> None:
        self.setup, self.seed = setup, seed
        of = setup.settings.detection
        assert of is not None
        self.thresholds: Thresholds = of.thresholds
        self.paired = ExampleRows(setup)
        self.labelled = self.paired.classes_from != "predictions"
        # In one batch, because a shift's random draws are those of a batch.
        self.test_batches, self.fit_batches = map(join_batches, (list(setup.data.test),
                                                                 setup.data.fit.spread(CLASS_EXAMPLES)))
        self.test = PassedExamples(setup, self.test_batches)
        self.fit = PassedExamples(setup, self.fit_batches, self.labelled)
        self.near = spread_rows(self.test.size, of.range_examples)
        self.groupings = {name: _Grouping(of(self.fit.outcome), of(self.test.outcome)[self.near])
                          for name, of in GROUPINGS.items()}

    def run(self, alterations: Sequence[Alteration], strict: bool) -> pd.DataFrame:
        import pandas as pd

        cells = list[AlteredSite]()
        tell, sites = self.setup.settings.tell_progress, len(self.setup.target.sites)
        for j in range(sites):
            cells += self._alter_site(j, alterations, strict)
            if tell is not None:
                tell("altered sites", j + 1, sites)
        return pd.DataFrame([self._describe(cell) for cell in (*cells, *self._shift())])

    def _alter_site(self, j: int, alterations: Sequence[Alteration], strict: bool) -> Iterator[AlteredSite]:
        mine, others = self.test.read_rows(j), self.fit.read_rows(j)
        classes = self.groupings[""].known
        known = FittingStatistics(others.find_means(classes), classes, others.mean, others.spread)
        native = self._measure_native_means(j)
        same = compare_outcomes(self.test.outcome, self.test.outcome, self.seed)
        yield AlteredSite(j, IDENTITY, math.nan, "", same, *self._measure(
            j, self.test.get_representations(j), native, native), native=True)
        for alteration in alterations:
            for k, strength in enumerate(alteration.strengths):
                try:
                    xs = self.test.split(alteration.apply(mine, strength, known, self.seed), j)
                    theirs = self.fit.split(alteration.apply(others, strength, known, self.seed + 1), j)
                except SutureError:
                    if strict and k == 0:
                        raise
                    break
                works = compare_outcomes(self.test.run_tail(j, xs), self.test.outcome, self.seed)
                yield AlteredSite(j, alteration.name, strength, alteration.of, works,
                                  *self._measure(j, xs, self._measure_means(j, theirs), native))

    def _shift(self) -> Iterator[AlteredSite]:
        """Yield the cells of natural inputs at half the severity that breaks the network, at all sites."""
        first = self.test_batches[0].target
        shifts = list_shifts(first, self.setup.task.of_tokens, self.setup.target.find_text)
        kinds, tell = self.paired.range.kinds, self.setup.settings.tell_progress
        for number, kind in enumerate(kinds):
            def change(batch: Batch, k: int, kind: Any = kind) -> Batch:
                made = apply_shift(shifts[kind.name], kind.name, batch.target, MILD * kind.severity.value,
                                   self.seed, k)
                return Batch(made, made, batch.labels)

            test = PassedExamples(self.setup, [change(b, k) for k, b in enumerate(self.test_batches)])
            fit = PassedExamples(self.setup, [change(b, k) for k, b in enumerate(self.fit_batches)])
            works = compare_outcomes(test.outcome, self.test.outcome, self.seed)
            for j in range(len(self.setup.target.sites)):
                yield AlteredSite(j, SHIFTED, MILD, kind.name, works, *self._measure(
                    j, test.get_representations(j), self._measure_means(j, fit.get_representations(j)),
                    self._measure_native_means(j)))
            if tell is not None:
                tell("natural shifts", number + 1, len(kinds))

    def _measure_native_means(self, j: int) -> dict[str, Tensor]:
        return self._measure_means(j, self.fit.get_representations(j))

    def _measure_means(self, j: int, xs: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return class means (K, L, C) of the few rows that distances are made of."""
        rows = self.fit.pick(j, xs, torch.arange(self.fit.size))
        return {name: of.average(rows) for name, of in self.groupings.items()}

    def _measure(self, j: int, xs: Sequence[Tensor], means: dict[str, Tensor],
                 native_means: dict[str, Tensor]) -> tuple[Estimate, dict[str, InformationalResidual]]:
        stitched, native = self.test.pick(j, xs, self.near), self.paired.search.natives[j]
        return self.paired.search.measure(j, stitched), {
            name: estimate_informational_residual(stitched, native, means[name], native_means[name],
                                                  of.places, self.seed)
            for name, of in self.groupings.items()}

    def _describe(self, cell: AlteredSite) -> dict[str, Any]:
        labelled = self.test.outcome.labels is not None
        by = Criterion("relative_accuracy" if labelled else "agreement", self.thresholds.works,
                       self._find_trivial())
        natural = self.paired.scale(cell.distance, cell.site)
        word, reason = judge_cell(CellEvidence(cell.works, natural, cell.residual.free, cell.residual.p), by)
        if cell.native:
            word, reason = SIMILAR, NATIVE
        site, shape = self.setup.target.sites[cell.site], self.setup.target.shapes[cell.site]
        truth = find_truth(cell.control, cell.strength, shape.kind.value,
                           cell.site == len(self.setup.target.sites) - 1)
        row = {"site": str(site), "kind": shape.kind.value, "control": cell.control,
               "strength": cell.strength, "detail": cell.detail, "verdict": word, "reason": reason,
               "truth": ", ".join(sorted(truth.right)), "grade": truth.grade(word), "trivial": by.trivial,
               "n": self.test.size}
        radii = {"inner": self.paired.range.find_inner(cell.site)[0],
                 "outer": self.paired.range.find_outer(cell.site)[0]}
        for name, e in {by.quantity: cell.works, "natural_distance": natural, "distance": cell.distance,
                        **radii}.items():
            row |= {name: e.value, f"{name}_low": e.low, f"{name}_high": e.high}
        for end, found in cell.residuals.items():
            for name, e in (("informational_residual", found.free), ("strict_residual", found.strict)):
                row |= {f"{name}{end}": e.value, f"{name}{end}_low": e.low, f"{name}{end}_high": e.high}
            row |= {f"p{end}": found.p}
        return row

    def _find_trivial(self) -> float:
        """Return the relative accuracy or agreement of the best constant answer."""
        outcome: Outcome = self.test.outcome
        assert outcome.classes is not None
        wanted = outcome.classes if outcome.labels is None else outcome.labels
        most = int(torch.unique(wanted, return_counts=True)[1].max())
        return most / max(1, int((outcome.classes == wanted).sum()))
