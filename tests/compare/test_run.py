"""Finished stages are kept, and the same call goes on; a dry run without a command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import suture
from suture.results import Comparison
from tests.support import tiny
from tests.support.interruptions import assert_same_numbers, interrupting
from tests.support.tiny import RECIPE, data, network, other


def test_an_interruption_keeps_the_finished_stages_and_the_same_call_goes_on(tmp_path: Path) -> None:
    def run(**more: Any) -> Comparison:
        # Without test data, so that there is a note that every result has and a resumed one must not have
        # twice.
        return suture.compare(network(), other(), data()[0], tlm=RECIPE, device="cpu", **more)

    def save(c: Comparison) -> None:
        c.save(tmp_path / "out")

    with pytest.raises(KeyboardInterrupt):
        run(progress=interrupting, on_stage=save)
    kept = suture.load(tmp_path / "out")
    assert kept.meta["stages"] == ["moments", "dm"]
    assert not kept.matrix("dm.accuracy").isna().any(axis=None)
    seen: list[str] = []
    resumed = run(previous=kept, on_stage=save, progress=lambda stage, done, total: seen.append(stage))
    # The moments pass comes again for the detectors, which are not kept.
    taken = resumed.meta["notes"][0]
    assert taken.startswith("taken over: moments, dm (computed 2")
    assert set(seen) == {"checking the data", taken, "moments", "task loss matching", "evaluating tlm"}
    uninterrupted = run()
    assert uninterrupted.meta["notes"]
    assert_same_numbers(resumed, uninterrupted)
    assert_same_numbers(suture.load(tmp_path / "out"), uninterrupted)


def test_a_dry_run_tells_sites_memory_and_time() -> None:
    data = (tiny.images(60), tiny.labels(60))
    found = suture.dry_run(tiny.network(), tiny.other(), data, methods=["dm", "tlm"],
                           tlm=suture.TaskRecipe(epochs=7), ood=None, device="cpu", names=("a", "b"))
    assert [str(i.site) for i in found.source] == ["block1", "block2"]
    assert found.examples == (60, 60)
    assert found.state > 8 * (3 + 4) ** 2
    assert set(found.seconds) == {"moments", "dm", "tlm"}
    assert all(s is not None and s > 0 for s in found.seconds.values())
    unknown = suture.dry_run(tiny.network(), None, tiny.batches(*data), methods=["dm"],
                             ood=None, device="cpu")
    assert unknown.examples == (None, None)
    assert set(unknown.seconds.values()) == {None}
    with pytest.raises(suture.SutureError, match="folds"):
        suture.dry_run(tiny.network(), None, data, folds=3)


def test_a_dry_run_prepares_what_it_crops_again() -> None:
    raw = (tiny.images(), tiny.labels())
    data = suture.Prepared(raw, lambda x: x, tiny.twice_as_large)
    given: dict[str, Any] = {"methods": ["tlm"], "tlm": suture.TaskRecipe(epochs=1, crop=1), "ood": None}
    assert suture.dry_run(tiny.network(), tiny.other(), data, examples=5, **given).seconds["tlm"] is not None
