"""What is taken over from an earlier result, after checks that it is of the same comparison."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from suture._base import Progress, SutureError, format_times
from suture.compare.chance import CHANCE
from suture.compare.key import OTHER_ROUNDING, ROUNDING, explain_difference, explain_outputs
from suture.compare.records import Findings
from suture.compare.setup import Setup
from suture.data import Batches, SeenData
from suture.results import Comparison

_STARTS = "taken over: ", "not taken over: "
"""Beginnings of the notes of this file, which a result that is taken over again loses."""


def take_over(previous: Comparison, setup: Setup, standing: Iterable[str]) -> Findings:
    """Return the findings of an earlier result of the same comparison, with a note that says so.

    Data are read once more, to see that they are those of the earlier result. Findings on data that come
    otherwise in every pass are left out, with another note.

    Args:
        standing: notes that follow from the setup alone, which the new result has anyway.

    Raises:
        SutureError: the earlier result is of another comparison; it names what differs.
    """
    meta, stages = previous.meta, ", ".join(previous.meta.get("stages", []))
    old: Any = meta.get("made_from")
    _refuse(explain_difference(old, setup.key))
    if not stages:
        return Findings()
    changing = _check_data(old.get("seen", {}), setup.data.watched, setup.settings.progress)
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
                    meta["stages"], computed, old["seen"],
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


def _choose_rounding(meta: Mapping[str, Any], setup: Setup) -> float:
    """Return how much outputs may differ; kernels of accelerators are chosen anew and round coarsely."""
    alike = meta.get("device") == str(setup.settings.torch_device) == "cpu"
    return ROUNDING if alike and setup.settings.forward == "float32" else OTHER_ROUNDING
