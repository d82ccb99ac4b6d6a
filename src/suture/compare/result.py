"""The assembly of a comparison's result: its table in order, its metadata, and its standing notes."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suture.compare.provenance import collect_versions
from suture.compare.settings import Settings
from suture.networks import SitedNetwork
from suture.numbers import get_base_name, get_measure, sort_measures
from suture.results import COLUMNS, Comparison
from suture.stitching import Task


def list_standing_notes(settings: Settings, source: SitedNetwork, target: SitedNetwork) -> list[str]:
    """Return the notes that depend on the settings and networks alone, not on results."""
    notes = []
    if not settings.held_out and settings.methods:
        notes.append("no test data were given: stitched networks are evaluated on the data "
                     "they were fitted to")
    if settings.methods and Task(settings.task).of_tokens:
        notes.append(f"the task is {settings.task}: what is predicted is counted in tokens, and intervals "
                     "are over whole texts")
    bypassed = [str(i.site) for s in (source, target) for i in s.infos if i.bypass]
    if bypassed:
        notes.append(f"bypassed sites ({', '.join(dict.fromkeys(bypassed))}): their stitched networks still "
                     "see the target's own activations on another path")
    return notes


def compute_target_accuracy(arrays: Mapping[str, NDArray[Any]]) -> float | None:
    """Return the accuracy of the target network over the test examples, or over their scored tokens."""
    hits = arrays.get("target.correct")
    if hits is None:
        return None
    tokens = arrays.get("target.tokens")
    return float(hits.mean()) if tokens is None else float(hits.sum(dtype=np.float64) / tokens.sum())


def assemble(names: tuple[str, str], source: SitedNetwork, target: SitedNetwork,
             fingerprints: tuple[str, str],
             rows: Sequence[Mapping[str, Any]], arrays: Mapping[str, NDArray[Any]],
             meta: Mapping[str, Any]) -> Comparison:
    """Return the comparison.

    Args:
        names: of source and target in tables.
        source, target: the networks with their sites; the same object for self-stitching.
        fingerprints: of the two networks.
        rows: of the table, in any order of measures.
        arrays, meta: of the comparison; versions, time and command are added.
    """
    import pandas as pd

    table = pd.DataFrame(rows, columns=COLUMNS)
    order = {name: k for k, name in enumerate(sort_measures(table["measure"]))}
    table = table.sort_values("measure", key=lambda c: c.map(order), kind="stable", ignore_index=True)
    same = fingerprints[0] == fingerprints[1] and source is target
    alike = source.sites == target.sites and source.shapes == target.shapes
    origin = {"versions": collect_versions(), "created": datetime.now(UTC).isoformat(timespec="seconds"),
              "command": " ".join(sys.argv)}
    own = [m for m in map(get_measure, dict.fromkeys(get_base_name(name) for name in order)) if m.own]
    if own:
        kept = [{"name": m.name, "label": m.label, "about": m.about, "low": m.low, "high": m.high,
                 "larger": m.larger_is_more_similar} for m in own]
        meta = {**meta, "own_measures": kept}
    return Comparison(*names, tuple(map(str, source.sites)), tuple(map(str, target.sites)), same, alike,
                      table, dict(arrays), {**meta, **origin})
