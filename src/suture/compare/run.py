"""One comparison in progress: the state that its stages share, and the result so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch

from suture._base import SutureError
from suture.compare.result import assemble, compute_target_accuracy, list_standing_notes
from suture.compare.settings import Settings
from suture.data import Batches
from suture.networks import SitedNetwork
from suture.numbers import Estimate, get_measure
from suture.ood import Detection
from suture.representations import Accumulators, Alignment, Cell
from suture.results import Comparison
from suture.stitching import StitchingLayer, Task


@dataclass
class Run:
    """One comparison in progress.

    Stages add rows, arrays and notes. `make_result` returns the result so far.
    """

    source: SitedNetwork
    target: SitedNetwork
    names: tuple[str, str]
    fit: Batches
    test: Batches
    settings: Settings
    micro_batch: int
    key: str
    fingerprints: tuple[str, str]
    whole: Batches
    origin: dict[str, dict[str, Any]] = field(default_factory=dict)
    detection: Detection | None = None
    training_batches: tuple[Batches, Batches | None] | None = None
    accumulators: Accumulators | None = None
    paper_batches: Batches | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    arrays: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    excluded: dict[Cell, str] = field(default_factory=dict)

    @property
    def task(self) -> Task:
        """The task of the target network's output."""
        return Task(self.settings.task)

    @property
    def cells(self) -> list[Cell]:
        """All cells, row by row."""
        return list(product(range(len(self.source.sites)), range(len(self.target.sites))))

    def restore_layer(self, method: str, i: int, j: int) -> StitchingLayer:
        """Return the fitted layer of a cell, from the arrays."""
        weight, bias = (torch.as_tensor(self.arrays[f"{method}.{k}/{i}/{j}"]) for k in ("weight", "bias"))
        return self.make_layer(i, j).set(weight, bias).to(self.settings.device)

    def make_layer(self, i: int, j: int) -> StitchingLayer:
        """Return a layer for a cell, not fitted."""
        return StitchingLayer(Alignment(self.source.shapes[i], self.target.shapes[j],
                                        self.settings.alignment),
                              self.settings.family, relu=self.settings.relu)

    def add_row(self, i: int, j: int, name: str, e: Estimate, n: int) -> None:
        """Add the value of a measure in a cell, from `n` rows or examples."""
        self.rows.append({"source": str(self.source.sites[i]), "target": str(self.target.sites[j]),
                          "measure": name, "value": e.value, "low": e.low, "high": e.high, "n": n,
                          "direction": get_measure(name).direction, "reason": e.reason, "mark": ""})

    def take_over(self, previous: Comparison) -> None:
        """Continue from an earlier result of the same networks, data and settings.

        Raises:
            SutureError: the result belongs to another comparison.
        """
        if previous.meta.get("key") != self.key:
            raise SutureError("the earlier result is of other networks, data or settings; "
                              "choose another output folder, or remove it")
        self.rows = previous.table.to_dict("records")  # type: ignore[assignment]
        self.arrays = dict(previous.arrays)
        self.notes = [n for n in previous.meta["notes"] if n not in self._list_standing_notes()]
        self.done = list(previous.meta["stages"])
        self.excluded = {(int(i), int(j)): why for i, j, why in previous.meta["excluded"]}
        if self.detection is not None:
            self.detection.about = previous.meta.get("ood", {})
        self.counts = {k: previous.meta[k] for k in ("n_fit", "n_test") if previous.meta.get(k) is not None}

    def _list_standing_notes(self) -> list[str]:
        return [*list_standing_notes(self.settings, self.source, self.target),
                *dict.fromkeys(d["note"] for d in self.origin.values() if d["note"])]

    def make_result(self) -> Comparison:
        """Return the comparison so far."""
        meta = {
            "key": self.key, "stages": list(self.done), "settings": self.settings.as_record(),
            "seed": self.settings.seed, "n_fit": self.counts.get("n_fit"),
            "n_test": self.counts.get("n_test"), "target_accuracy": compute_target_accuracy(self.arrays),
            "shapes": {"source": [str(s) for s in self.source.shapes],
                       "target": [str(s) for s in self.target.shapes]},
            "fingerprints": list(self.fingerprints), "device": str(self.settings.device), "micro_batch":
            self.micro_batch, "excluded": [[i, j, why] for (i, j), why in self.excluded.items()],
            "notes": [*self._list_standing_notes(), *self.notes], "data": self.origin,
        }
        if self.detection is not None and self.detection.about:
            meta["ood"] = self.detection.about
        return assemble(self.names, self.source, self.target, self.fingerprints, self.rows, self.arrays, meta)
