"""E5: fronts of networks of one task with tails of networks of another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from suture.studies.experiments.claims import Outcome
from suture.studies.experiments.grids.base import ACCURACY, GridExperiment, explain_open, limit_by_marks
from suture.studies.experiments.record import Record


class CrossTask(GridExperiment):
    """Networks of two tasks, in both directions."""

    name, title = "E5", "Across tasks"
    question = "Do networks look alike that were trained for different tasks?"
    mapped = ("{}.relative_accuracy", "{}.natural_distance")
    own = False

    def judge_claims(self, record: Record) -> Sequence[Outcome]:
        grids = self.view(record)
        every = np.ones_like(grids.off_diagonal)
        tlm, dm = (grids.average(ACCURACY[m], every) for m in ("tlm", "dm"))
        gap = grids.subtract(ACCURACY["tlm"], ACCURACY["dm"], every)
        held = gap.is_above(0.0)
        return [limit_by_marks(grids, Outcome(
            "Across tasks, task loss matching finds networks alike, and direct matching less so.",
            f"relative accuracy over all cells: TLM {tlm.format(unit='pairs')}, DM "
            f"{dm.format(unit='pairs')}; difference {gap.format(unit='pairs')}",
            held, explain_open(held, gap)))]
