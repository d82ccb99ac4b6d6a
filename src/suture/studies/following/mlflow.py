"""Finished pairs as runs of MLflow."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from suture._base import import_optional
from suture.results import Comparison
from suture.studies.following.finished_pair import FinishedPair
from suture.studies.network_study.layers import Reduce, reduce_layers

_KEY = "suture.key"


def measure_pair(made: Comparison, measures: Sequence[str] | None, reduce: Reduce) -> dict[str, float]:
    """Return one number for each measure of a comparison, without those that are missing."""
    found = {name: reduce_layers(made, name, reduce).value for name in measures or made.measures}
    return {name: value for name, value in found.items() if not np.isnan(value)}


@dataclass(frozen=True)
class MLflow:
    """A callback of a study that logs each pair as a run of MLflow (extra ``mlflow``).

    >>> suture.study(..., on_result=suture.studies.MLflow("seeds", "http://127.0.0.1:5000"))

    A run has the names and words of both networks as parameters, one number for each measure as metrics,
    and the key of its result as tag ``suture.key``: a pair that has a finished run with this key gets no
    other, so that a study that goes on logs nothing twice. A pair that failed is a failed run. The extra is
    the client, for a server; databases such as ``sqlite:///mlflow.db`` need the whole package ``mlflow``.

    Attributes:
        experiment: its name; made if it is missing.
        tracking_uri: of the server, database or folder. Default: MLflow's own.
        measures: default all.
        reduce: one number for all cells of a pair, as for `Study.matrix`.
    """

    experiment: str = "suture"
    tracking_uri: str | None = None
    measures: Sequence[str] | None = None
    reduce: Reduce = "diagonal"

    def __post_init__(self) -> None:
        import_optional("mlflow", "mlflow", "suture.studies.MLflow")

    @cached_property
    def _client(self) -> Any:
        return import_optional("mlflow.tracking", "mlflow", "suture.studies.MLflow").MlflowClient(
            tracking_uri=self.tracking_uri)

    @cached_property
    def _experiment(self) -> str:
        found = self._client.get_experiment_by_name(self.experiment)
        return str(self._client.create_experiment(self.experiment) if found is None else found.experiment_id)

    def __call__(self, finished: FinishedPair) -> None:
        from mlflow.entities import Metric, Param, RunTag

        query = f"tags.`{_KEY}` = '{finished.key}' and attributes.status = 'FINISHED'"
        words = {_clean(name): str(value) for name, value in describe_pair(finished).items()}
        # A network that is given under two names has one key, and pairs of its own.
        names = {side: words[side] for side in ("source", "target")}
        if any(names.items() <= run.data.params.items()
               for run in self._client.search_runs([self._experiment], query)):
            return
        now = round(1000 * time.time())
        run = self._client.create_run(self._experiment, start_time=now - round(1000 * finished.seconds),
                                      run_name=f"{finished.source} into {finished.target}")
        metrics = ({} if finished.comparison is None else
                   measure_pair(finished.comparison, self.measures, self.reduce))
        tags = {_KEY: finished.key, **({"suture.failure": finished.reason[:5000]} if finished.reason else {})}
        self._client.log_batch(
            run.info.run_id, [Metric(_clean(name), value, now, 0) for name, value in
                              {**metrics, "seconds": finished.seconds}.items()],
            [Param(name, value) for name, value in words.items()],
            [RunTag(name, value) for name, value in tags.items()])
        self._client.set_terminated(run.info.run_id, "FAILED" if finished.reason else "FINISHED", now)


def _clean(name: str) -> str:
    """Return a name with the characters that MLflow allows."""
    return re.sub(r"[^A-Za-z0-9_.: /-]", "_", name)


def describe_pair(finished: FinishedPair) -> Mapping[str, Any]:
    """Return names and words of both networks."""
    sides = zip(("source", "target"), (finished.source, finished.target), finished.about, strict=True)
    return {key: value for side, name, words in sides
            for key, value in {side: name, **{f"{side}.{word}": value for word, value in words.items()}
                               }.items()}
