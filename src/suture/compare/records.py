"""Records that pass between the stages of a comparison: fitted maps, and findings for the result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from numpy.typing import NDArray
from torch import Tensor

from suture._base import SutureError
from suture.compare.setup import Setup
from suture.numbers import Estimate, get_measure
from suture.representations import Cell
from suture.results import Comparison
from suture.stitching import StitchingLayer


class FittedMap(NamedTuple):
    """Affine map of one cell, weight (q, p) and bias (q,), in the precision it was solved in."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Fitted:
    """Maps of one method by cell, and the reason for each cell without one."""

    maps: Mapping[Cell, FittedMap]
    failed: Mapping[Cell, str]

    def make_layers(self, setup: Setup) -> dict[Cell, StitchingLayer]:
        """Return the stitching layers with these maps, on the device."""
        return {c: setup.make_layer(c).set(*m).to(setup.settings.torch_device) for c, m in self.maps.items()}


class ScoreRow(NamedTuple):
    """Value of a measure in one cell, from `n` rows or examples; `mark` says why it cannot be trusted."""

    i: int
    j: int
    measure: str
    value: Estimate
    n: int
    mark: str = ""


@dataclass(frozen=True)
class Findings:
    """Findings of the finished stages.

    Attributes:
        rows: rows of the table, as saved.
        arrays: arrays, as saved (`suture.compare.array_names`).
        notes: sentences for the reader.
        counts: ``n_fit``, ``n_test`` and ``n_paper`` examples.
        failed: cells without a stitched network, with the reason.
        ood: conventions and quality of the detectors.
        stages: names of the finished stages.
    """

    rows: Sequence[Mapping[str, Any]] = ()
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[Cell, str] = field(default_factory=dict)
    ood: Mapping[str, Any] = field(default_factory=dict)
    stages: Sequence[str] = ()

    def add(self, new: Findings) -> Findings:
        """Return these findings with the new ones; a new value replaces an old one of the same name."""
        return Findings([*self.rows, *new.rows], {**self.arrays, **new.arrays}, [*self.notes, *new.notes],
                        {**self.counts, **new.counts}, {**self.failed, **new.failed},
                        {**self.ood, **new.ood}, [*self.stages, *new.stages])


def read_findings(previous: Comparison, setup: Setup, standing_notes: Iterable[str]) -> Findings:
    """Return the findings of an earlier result; `standing_notes` are notes that do not come from a stage."""
    meta, standing = previous.meta, list(standing_notes)
    if meta.get("key") != setup.key:
        raise SutureError("the earlier result is of other networks, data or settings; choose another output "
                          "folder, or remove it")
    rows: Any = previous.table.to_dict("records")
    return Findings(rows, previous.arrays, [n for n in meta["notes"] if n not in standing],
                    {k: meta[k] for k in ("n_fit", "n_test") if meta.get(k) is not None},
                    {(int(i), int(j)): why for i, j, why in meta["excluded"]}, meta.get("ood", {}),
                    meta["stages"])


def write_rows(setup: Setup, rows: Iterable[ScoreRow]) -> list[dict[str, Any]]:
    sources, targets = ([str(s) for s in n.sites] for n in (setup.source, setup.target))
    return [{"source": sources[r.i], "target": targets[r.j], "measure": r.measure, "value": r.value.value,
             "low": r.value.low, "high": r.value.high, "n": r.n,
             "direction": get_measure(r.measure).direction, "reason": r.value.reason, "mark": r.mark}
            for r in rows]
