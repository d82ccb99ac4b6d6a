"""The result of a comparison put together: its table in order, its meta, the notes that hold from the start."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from suture.compare.provenance import versions
from suture.compare.settings import Plan
from suture.networks.sites import SitedNetwork
from suture.numbers.measures import base_of, in_order, measure
from suture.results.comparison import COLUMNS, Comparison
from suture.stitching.outputs import Task


def standing_notes(plan: Plan, source: SitedNetwork, target: SitedNetwork) -> list[str]:
    """What a reader has to know of a comparison, whatever comes out of it."""
    notes = []
    if not plan.held_out and plan.methods:
        notes.append("no test data were given: stitched networks are evaluated on the data they were fitted to")
    if plan.methods and Task(plan.task).of_tokens:
        notes.append(f"the task is {plan.task}: what is predicted is counted in tokens, and intervals are over whole "
                     "texts")
    bypassed = [str(i.site) for s in (source, target) for i in s.infos if i.bypass]
    if bypassed:
        notes.append(f"bypassed sites ({', '.join(dict.fromkeys(bypassed))}): their stitched networks still see "
                     "the target's own activations on another path")
    return notes


def target_accuracy(arrays: Mapping[str, NDArray[Any]]) -> float | None:
    """Share of the test examples, or of their tokens that count, that the target network gets right."""
    hits = arrays.get("target.correct")
    if hits is None:
        return None
    tokens = arrays.get("target.tokens")
    return float(hits.mean()) if tokens is None else float(hits.sum(dtype=np.float64) / tokens.sum())


def assemble(names: tuple[str, str], source: SitedNetwork, target: SitedNetwork, prints: tuple[str, str],
             rows: Sequence[Mapping[str, Any]], arrays: Mapping[str, NDArray[Any]],
             meta: Mapping[str, Any]) -> Comparison:
    """The comparison.

    Args:
        names: of source and target, as tables call them.
        source, target: the networks with their sites; the same object for self-stitching.
        prints: their fingerprints.
        rows: of the table, in any order of measures.
        arrays, meta: of the comparison; versions, time and command are added.
    """
    table = pd.DataFrame(rows, columns=COLUMNS)
    order = {name: k for k, name in enumerate(in_order(table["measure"]))}
    table = table.sort_values("measure", key=lambda c: c.map(order), kind="stable", ignore_index=True)
    same = prints[0] == prints[1] and source is target
    alike = source.sites == target.sites and source.shapes == target.shapes
    origin = {"versions": versions(), "created": datetime.now(UTC).isoformat(timespec="seconds"),
              "command": " ".join(sys.argv)}
    own = [m for m in map(measure, dict.fromkeys(base_of(name) for name in order)) if m.own]
    if own:
        kept = [{"name": m.name, "label": m.label, "about": m.about, "low": m.low, "high": m.high,
                 "larger": m.larger_is_more_similar} for m in own]
        meta = {**meta, "own_measures": kept}
    return Comparison(*names, tuple(map(str, source.sites)), tuple(map(str, target.sites)), same, alike, table,
                      dict(arrays), {**meta, **origin})
