"""E1 and E4: networks stitched to themselves, with and without a resize between blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from suture.studies.experiments.claims import Outcome, decide_for_each
from suture.studies.experiments.grids.base import ACCURACY, METHODS, GridExperiment, judge_late_into_early
from suture.studies.experiments.grids.view import Grids, sum_contests
from suture.studies.experiments.record import Record


class SelfStitching(GridExperiment):
    """Networks stitched to themselves."""

    name, title = "E1", "Self-stitching"
    question = "Is any layer of a network more similar to a layer than the layer itself?"
    mapped = ("{}.relative_accuracy", "{}.natural_distance")
    own = True

    def judge_claims(self, record: Record) -> Sequence[Outcome]:
        grids = self.view(record)
        found = [judge_violations(grids, method) for method in ("tlm", "dm") if grids.has(ACCURACY[method])]
        if all(grids.has(name) for name in ACCURACY.values()):
            found.append(judge_late_into_early(
                grids, "Task loss matching solves the task with late layers in the place of early ones, and "
                       "direct matching does not."))
        return found


class EqualSize(SelfStitching):
    """Networks whose blocks all have one size, so that nothing is resized."""

    name, title = "E4", "Self-stitching without resizing"
    question = "Is it the resizing between layers of unequal size?"

    def judge_claims(self, record: Record) -> Sequence[Outcome]:
        grids = self.view(record)
        return [*(judge_violations(grids, method) for method in ("tlm", "dm")),
                judge_late_into_early(grids, "It is not the resizing: where all blocks have one size, task "
                                             "loss matching solves the task with late layers in the place "
                                             "of early ones, and direct matching does not.")]


_STARTS = {"random": "at random", "dm": "from direct matching", "identity": "from the identity"}


def _describe_start(record: Record) -> str:
    """Describe where the stitching layers start."""
    first: Mapping[str, Any] = next(iter((record.about.get("parts") or {}).values()), {})
    start = ((first.get("settings") or {}).get("tlm") or {}).get("init", "")
    return f"; layers start {_STARTS[start]}" if start in _STARTS else ""


def judge_violations(grids: Grids, method: str) -> Outcome:
    """Judge how often another layer is more similar to a layer than the layer itself."""
    found = grids.judge_contests(ACCURACY[method])
    total, n = sum_contests(found), len(found)
    each = [c.violated for c in found]
    marked = (f"; {total.marked} of {total.layers} rest on cells that have not converged" if total.marked
              else "")
    measured = (f"another layer is more similar for {total.lost} of {total.layers} layers of {n} networks, "
                f"beyond test-set noise for {total.beyond} (in {sum(v is True for v in each)} of {n} "
                f"networks){marked}")
    brief = f"{METHODS[method]} {total.beyond} of {total.layers} own layers beaten beyond noise"
    if method == "tlm":
        measured += _describe_start(grids.record)
        why = {True: "", False: "once trained, own layers reach what others reach; what is left lies within "
                                "test-set noise",
               None: "networks differ, or own layers have not converged: half-trained grids show it for the "
                     "wrong reason (docs/convergence.md)"}
        held = decide_for_each(each)
        claim = "With task loss matching, some layers are more similar to a layer than the layer itself."
        return Outcome(claim, measured, held, why[held], 1, brief)
    held = decide_for_each([None if v is None else not v for v in each])
    return Outcome("With direct matching, every layer is most similar to itself.", measured, held,
                   "" if held is not None else "networks differ, or there are fewer than three", 1, brief)
