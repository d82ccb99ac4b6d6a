"""Finished pairs as steps of a run of Weights & Biases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from suture._base import import_optional
from suture.studies.following.finished_pair import FinishedPair
from suture.studies.following.mlflow import describe_pair, measure_pair
from suture.studies.network_study.layers import Reduce


@dataclass
class WandB:
    """A callback of a study that logs to one run of Weights & Biases (extra ``wandb``).

    Each pair is a step with the names and words of both networks and one number for each measure. The run
    begins with the first pair and ends with the study.

    Attributes:
        project, name, mode, folder: of the run, as for `wandb.init`; mode "offline" sends nothing.
        measures: default all.
        reduce: one number for all cells of a pair, as for `Study.matrix`.
    """

    project: str = "suture"
    name: str | None = None
    mode: str | None = None
    folder: str | None = None
    measures: Sequence[str] | None = None
    reduce: Reduce = "diagonal"
    _run: Any = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        import_optional("wandb", "wandb", "suture.studies.WandB")

    def __call__(self, finished: FinishedPair) -> None:
        if self._run is None:
            client = import_optional("wandb", "wandb", "suture.studies.WandB")
            self._run = client.init(project=self.project, name=self.name, mode=self.mode, dir=self.folder)
        made = finished.comparison
        measured = {"failure": finished.reason} if made is None else measure_pair(made, self.measures,
                                                                                  self.reduce)
        self._run.log({**describe_pair(finished), **measured, "seconds": finished.seconds})

    def close(self) -> None:
        """End the run."""
        if self._run is not None:
            self._run.finish()
            self._run = None
