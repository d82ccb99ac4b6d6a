"""One comparison in progress: its stages in order, each from records to findings."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

from suture.compare.array_names import unpack_maps
from suture.compare.evaluation import describe_evaluation, evaluate
from suture.compare.moments import collect, compute_published, describe_moments, match
from suture.compare.records import Findings, Fitted, read_findings
from suture.compare.result import assemble, list_standing_notes
from suture.compare.setup import Setup
from suture.compare.task_loss import describe_training, find_marks, mark_rows, train
from suture.representations import Accumulators
from suture.results import Comparison


class Run:
    """One comparison in progress; the finished stages of an earlier result `previous` are not run again."""

    def __init__(self, setup: Setup, previous: Comparison | None = None) -> None:
        self.setup = setup
        self.found = (Findings() if previous is None
                      else read_findings(previous, setup, list_standing_notes(setup)))

    def list_stages(self) -> list[str]:
        """List the unfinished stages in order."""
        return [s for s in ("moments", *self.setup.settings.method_names) if s not in self.found.stages]

    def run_stage(self, stage: str) -> None:
        """Run one stage and add its findings."""
        new = {"moments": self._run_moments, "dm": self._run_direct_matching,
               "tlm": self._run_task_loss_matching}[stage]()
        self.found = self.found.add(replace(new, stages=[stage]))

    @cached_property
    def accumulators(self) -> Accumulators:
        """The accumulators after the pass over the data, which a continued run repeats only if needed."""
        return collect(self.setup)

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
        return self._evaluate("dm", self.matched)

    def _run_task_loss_matching(self) -> Findings:
        trained = train(self.setup, self.matched)
        tested = self._evaluate("tlm", trained.fitted)
        marks = find_marks(self.setup, trained, tested)
        return describe_training(self.setup, trained, marks).add(mark_rows(self.setup, tested, marks))

    def _evaluate(self, method: str, fitted: Fitted) -> Findings:
        accumulators = None if self.setup.detection is None else self.accumulators
        return describe_evaluation(self.setup, evaluate(self.setup, method, fitted), self.found.arrays,
                                   accumulators)

    def make_result(self) -> Comparison:
        return assemble(self.setup, self.found)
