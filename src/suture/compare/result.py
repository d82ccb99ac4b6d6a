"""The result of a comparison: assembled from the findings of its stages, and read back to go on."""

from __future__ import annotations

import platform
import sys
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch

from suture._base import SutureError
from suture.compare.records import Findings
from suture.compare.setup import Setup
from suture.numbers import Arrays, get_base_name, get_measure, sort_measures
from suture.results import COLUMNS, Comparison


def read_findings(previous: Comparison, setup: Setup) -> Findings:
    """Return the findings of an earlier result of the same comparison."""
    meta, standing = previous.meta, _list_standing_notes(setup)
    if meta.get("key") != setup.key:
        raise SutureError("the earlier result is of other networks, data or settings; choose another output "
                          "folder, or remove it")
    rows: Any = previous.table.to_dict("records")
    return Findings(rows, previous.arrays, [n for n in meta["notes"] if n not in standing],
                    {k: meta[k] for k in ("n_fit", "n_test") if meta.get(k) is not None},
                    {(int(i), int(j)): why for i, j, why in meta["excluded"]}, meta.get("ood", {}),
                    meta["stages"])


def _list_standing_notes(setup: Setup) -> list[str]:
    """Return the notes that follow from settings, networks and data alone."""
    notes, settings = [], setup.settings
    if not setup.data.held_out and settings.method_names:
        notes.append("no test data were given: stitched networks are evaluated on the data "
                     "they were fitted to")
    if settings.method_names and setup.task.of_tokens:
        notes.append(f"the task is {settings.task}: what is predicted is counted in tokens, and intervals "
                     "are over whole texts")
    context = dict.fromkeys(c for i in setup.target.infos for c in i.context)
    if context and settings.method_names:
        notes.append(f"stitched networks still read the target's own {', '.join(context)}, which sees other "
                     "inputs than the sites")
    notes += dict.fromkeys([*setup.source.notes, *setup.target.notes])
    bypassed = [str(i.site) for s in (setup.source, setup.target) for i in s.infos if i.bypass]
    if bypassed:
        notes.append(f"bypassed sites ({', '.join(dict.fromkeys(bypassed))}): their stitched networks still "
                     "see the target's own activations on another path")
    return [*notes, *dict.fromkeys(d["note"] for d in setup.data.about.values() if d["note"])]


def assemble(setup: Setup, found: Findings) -> Comparison:
    """Return the comparison so far."""
    import pandas as pd

    source, target, settings = setup.source, setup.target, setup.settings
    table = pd.DataFrame(found.rows, columns=COLUMNS)
    order = {name: k for k, name in enumerate(sort_measures(table["measure"]))}
    table = table.sort_values("measure", key=lambda c: c.map(order), kind="stable", ignore_index=True)
    meta = {
        "key": setup.key, "stages": list(found.stages), "settings": settings.as_record(setup.data.held_out),
        "seed": settings.seed, "n_fit": found.counts.get("n_fit"), "n_test": found.counts.get("n_test"),
        "target_accuracy": _compute_target_accuracy(found.arrays),
        "shapes": {"source": [str(s) for s in source.shapes], "target": [str(s) for s in target.shapes]},
        "fingerprints": list(setup.fingerprints), "device": str(settings.torch_device),
        "micro_batch": setup.micro_batch, "excluded": [[i, j, why] for (i, j), why in found.failed.items()],
        "notes": [*dict.fromkeys([*_list_standing_notes(setup), *found.notes])],
        "data": {name: dict(about) for name, about in setup.data.about.items()},
        "versions": _collect_versions(), "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(sys.argv),
    }
    if found.ood:
        meta["ood"] = dict(found.ood)
    own = [m for m in map(get_measure, dict.fromkeys(get_base_name(name) for name in order)) if m.own]
    if own:
        meta["own_measures"] = [{"name": m.name, "label": m.label, "about": m.about, "low": m.low,
                                 "high": m.high, "larger": m.larger_is_more_similar} for m in own]
    same = setup.fingerprints[0] == setup.fingerprints[1] and source is target
    alike = source.sites == target.sites and source.shapes == target.shapes
    return Comparison(*setup.names, tuple(map(str, source.sites)), tuple(map(str, target.sites)), same, alike,
                      table, dict(found.arrays), meta)


def _collect_versions() -> dict[str, str]:
    """Return the versions of the software that computes."""
    from importlib.metadata import version

    return {"suture": version("suture"), "python": platform.python_version(), "torch": torch.__version__,
            "numpy": np.__version__, "machine": platform.machine()}


def _compute_target_accuracy(arrays: Arrays) -> float | None:
    """Return the target network's accuracy over the test examples, or over their scored tokens."""
    hits, tokens = arrays.get("target.correct"), arrays.get("target.tokens")
    if hits is None:
        return None
    return float(hits.sum(dtype=np.float64) / (len(hits) if tokens is None else tokens.sum()))
