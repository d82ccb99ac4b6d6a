"""The stages of a comparison, in order."""

from __future__ import annotations

from collections.abc import Callable

from suture.compare.evaluation_stage import evaluate_method
from suture.compare.moments_stage import run_moments
from suture.compare.run import Run
from suture.compare.task_loss_stage import match_task_loss


def list_stages(run: Run) -> list[tuple[str, Callable[[], None]]]:
    """List the stages by name and function, in order.

    Direct matching needs no pass for fitting: the moments are enough.
    """
    work: list[tuple[str, Callable[[], None]]] = [("moments", lambda: run_moments(run))]
    if "dm" in run.settings.methods:
        work.append(("dm", lambda: evaluate_method(run, "dm", run.excluded)))
    if "tlm" in run.settings.methods:
        work.append(("tlm", lambda: match_task_loss(run)))
    return work
