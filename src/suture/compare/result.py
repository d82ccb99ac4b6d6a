"""The result of a comparison: its assembly, and what is taken over from an earlier one."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from suture._base import Progress, SutureError, format_times, get_time, log_event
from suture.compare.key import (
    OTHER_ROUNDING,
    ROUNDING,
    collect_versions,
    explain_difference,
    explain_outputs,
    shorten_key,
)
from suture.compare.records import LOGGED, Findings, SharedSetup
from suture.compare.scoring.chance import CHANCE, describe_counts
from suture.compare.setup import Setup
from suture.data import Batches, SeenData, join_memory_notes
from suture.numbers import Arrays, get_base_name, get_measure, sort_measures
from suture.results import COLUMNS, Comparison, describe_flaw


def list_standing_notes(setup: Setup, chance: Mapping[str, Any]) -> list[str]:
    """Return the notes that follow from settings, networks, data and the target network's predictions."""
    notes, settings = list(filter(None, [describe_flaw(chance), setup.warning])), setup.settings
    if not setup.data.held_out and settings.method_names:
        notes.append("no test data were given: stitched networks are evaluated on the data "
                     "they were fitted to")
    if settings.method_names and setup.task.of_tokens:
        notes.append(f"the task is {settings.task}: what is predicted is counted in tokens, and intervals "
                     "are over whole texts")
    notes += () if setup.scored is None else setup.scored.notes
    context = dict.fromkeys(c for i in setup.target.infos for c in i.context)
    if context and settings.method_names:
        notes.append(f"stitched networks still read the target's own {', '.join(context)}, which sees other "
                     "inputs than the sites")
    notes += dict.fromkeys([*setup.source.notes, *setup.target.notes, *setup.pieces.notes])
    bypassed = [str(i.site) for s in (setup.source, setup.target) for i in s.infos if i.bypass]
    if bypassed:
        notes.append(f"bypassed sites ({', '.join(dict.fromkeys(bypassed))}): their stitched networks still "
                     "see the target's own activations on another path")
    notes += [f"the {name} come otherwise in every pass (augmentation, or another order): a repeated run "
              "takes this result over only if it finds the same examples" for name in setup.data.random]
    return [*notes, *dict.fromkeys(d["note"] for d in setup.data.about.values() if d["note"])]


def assemble(setup: Setup, found: Findings) -> Comparison:
    """Return the comparison so far."""
    chance = describe_counts(found.counts, setup.task.of_tokens)
    return build_comparison(setup, found, list_standing_notes(setup, chance),
                            list_special(setup, found, chance), setup.self_stitching)


def list_special(setup: Setup, found: Findings, chance: Mapping[str, Any]) -> dict[str, Any]:
    """Return the meta that only comparisons of networks have."""
    settings = setup.settings
    meta: dict[str, Any] = {
        "settings": settings.as_record(setup.data.held_out), "n_test": found.counts.get("n_test"),
        "target_accuracy": _compute_target_accuracy(found.arrays), "fingerprints": list(setup.fingerprints),
        "micro_batch": setup.micro_batch, "excluded": [[i, j, why] for (i, j), why in found.failed.items()],
        "data": {name: dict(about) for name, about in setup.data.about.items()},
    }
    if setup.scored is not None:
        readout = setup.scored.readout
        why = {"why": setup.scored.why} if setup.scored.why else {}
        meta["output"] = {"choice": readout.path, "kind": readout.kind.value, **why}
    meta |= {name: value for name, value in (("chance", chance), ("warning", setup.warning)) if value}
    if found.ood:
        meta["ood"] = dict(found.ood)
    return meta


def describe_command() -> str:
    """Return the command that runs, as a shell reads it; empty where none does, as in a notebook."""
    program, *arguments = sys.argv or [""]
    name = Path(program).stem
    if program in ("", "-c", "-m") or name in ("ipykernel_launcher", "ipython"):
        return ""
    start = ["suture"] if name == "suture" else ["python", program] if program.endswith(".py") else [program]
    return shlex.join([*start, *arguments])


def build_comparison(setup: SharedSetup, found: Findings, standing: Iterable[str], special: Mapping[str, Any],
                     same: bool) -> Comparison:
    """Return the comparison of networks or arrays, with the meta that both have and what is `special`.

    `same` says that the two sides are one.
    """
    import pandas as pd

    source, target, settings = setup.source, setup.target, setup.settings
    table = pd.DataFrame(found.rows, columns=COLUMNS)
    order = {name: k for k, name in enumerate(sort_measures(table["measure"]))}
    table = table.sort_values("measure", key=lambda c: c.map(order), kind="stable", ignore_index=True)
    key = {**setup.key, "seen": dict(found.seen)}
    meta: dict[str, Any] = {
        "key": shorten_key(key), "made_from": key, "stages": list(found.stages),
        "computed": dict(found.computed), "seed": settings.seed, "n_fit": found.counts.get("n_fit"),
        "shapes": {"source": [str(s) for s in source.shapes], "target": [str(s) for s in target.shapes]},
        "device": str(settings.torch_device),
        "notes": join_memory_notes([*found.reuse, *standing, *found.notes]),
        "versions": collect_versions(), "created": get_time(), "command": describe_command(), **special}
    if found.nulls:
        meta["nulls"] = dict(found.nulls)
    own = [m for m in map(get_measure, dict.fromkeys(get_base_name(name) for name in order)) if m.own]
    if own:
        meta["own_measures"] = [{"name": m.name, "label": m.label, "about": m.about, "low": m.low,
                                 "high": m.high, "larger": m.larger_is_more_similar} for m in own]
    alike = same or (source.sites == target.sites and source.shapes == target.shapes)
    return Comparison(*setup.names, tuple(map(str, source.sites)), tuple(map(str, target.sites)), same, alike,
                      table, dict(found.arrays), meta)


def _compute_target_accuracy(arrays: Arrays) -> float | None:
    """Return the target network's accuracy over the test examples, or over their scored tokens."""
    hits, tokens = arrays.get("target.correct"), arrays.get("target.tokens")
    if hits is None:
        return None
    return float(hits.sum(dtype=np.float64) / (len(hits) if tokens is None else tokens.sum()))


_STARTS = "taken over: ", "not taken over: "
"""Beginnings of the notes of this file, which a result that is taken over again loses."""


def take_over(previous: Comparison, setup: SharedSetup, standing: Iterable[str]) -> Findings:
    """Return the findings of an earlier result of the same comparison, with a note that says so.

    Data are read once more, to see that they are those of the earlier result. Findings on data that come
    otherwise in every pass are left out, with another note. The progress function is told the note.

    Args:
        standing: notes that follow from the setup alone, which the new result has anyway.

    Raises:
        SutureError: the earlier result is of another comparison; it names what differs.
    """
    found, progress = _find_again(previous, setup, standing), setup.settings.tell_progress
    for note in found.reuse:
        log_event(note, of=LOGGED)
        if progress is not None:
            progress(note, 1, 1)
    return found


def _find_again(previous: Comparison, setup: SharedSetup, standing: Iterable[str]) -> Findings:
    meta, stages = previous.meta, ", ".join(previous.meta.get("stages", []))
    old: Any = meta.get("made_from")
    _refuse(explain_difference(old, setup.key))
    if not stages:
        return Findings()
    changing = _check_data(old.get("seen", {}), setup.data.watched, setup.settings.tell_progress)
    if changing:
        return Findings(reuse=[f"{_STARTS[1]}{stages}: the {changing} come otherwise in every pass, so an "
                               "earlier result of them cannot be checked"])
    _refuse(explain_outputs(old["outputs"], setup.key["outputs"], _choose_rounding(meta, setup)))
    computed, rows, leave = meta["computed"], previous.table.to_dict("records"), {*standing}
    chance = meta.get("chance") or {}
    notes = [n for n in meta["notes"] if n not in leave and not n.startswith(_STARTS)]
    return Findings(rows, previous.arrays, notes,  # type: ignore[arg-type]
                    {k: meta[k] for k in ("n_fit", "n_test") if meta.get(k) is not None}
                    | {k: chance[k] for k in CHANCE if k in chance},
                    {(int(i), int(j)): why for i, j, why in meta["excluded"]}, meta.get("ood", {}),
                    meta["stages"], computed, old["seen"], meta.get("nulls", {}),
                    [f"{_STARTS[0]}{stages} (computed {format_times(computed.values())})"])


def _refuse(difference: str) -> None:
    if difference:
        raise SutureError(f"the earlier result is of other networks, data or settings ({difference}); choose "
                          "another output folder, or remove it")


def _check_data(known: Mapping[str, Any], now: Mapping[str, Batches], progress: Progress | None) -> str:
    """Read data again and compare with what was seen; return the name of data that change by themselves."""
    for name, record in known.items():
        if name not in now:
            raise SutureError(f"the earlier result used {name}, and none are given now; choose another "
                              "output folder, or remove it")
        old, data = SeenData(**record), now[name]
        new = _read_again(data, progress)
        difference = old.explain_difference(new)
        if not difference:
            continue
        again = _read_again(data, progress)
        if again.any_order != new.any_order:
            return data.name
        shuffled = again.inputs != new.inputs and old.batches == new.batches
        _refuse("" if shuffled and old.any_order == new.any_order else f"{data.name}: {difference}")
    return ""


def _read_again(data: Batches, progress: Progress | None) -> SeenData:
    for k, _ in enumerate(data):
        if progress:
            progress(f"checking the {data.name}", k + 1, data.count_batches())
    assert data.seen is not None
    return data.seen


def _choose_rounding(meta: Mapping[str, Any], setup: SharedSetup) -> float:
    """Return how much outputs may differ; kernels of accelerators are chosen anew and round coarsely."""
    alike = meta.get("device") == str(setup.settings.torch_device) == "cpu"
    return ROUNDING if alike and setup.settings.forward == "float32" else OTHER_ROUNDING
