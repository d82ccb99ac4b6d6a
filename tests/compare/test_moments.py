"""Direct matching in a comparison: a cell without a map."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import suture
from suture.compare import moments
from suture.stitching import direct_match
from tests.support import tiny


def test_a_cell_whose_map_is_not_found_is_missing_with_the_reason_also_after_resuming(
        monkeypatch: pytest.MonkeyPatch) -> None:
    def picky(pair: Any, *args: Any) -> Any:
        if pair.moments.sxy.shape == (3, 4):
            raise suture.SutureError("no map was found; take another family")
        return direct_match(pair, *args)

    monkeypatch.setattr(moments, "direct_match", picky)
    kept: list[suture.Comparison] = []
    options: dict[str, Any] = {"tlm": tiny.RECIPE, "indices": (), "device": "cpu"}
    whole = suture.compare(tiny.network(), None, *tiny.data(), on_stage=kept.append, **options)
    resumed = suture.compare(tiny.network(), None, *tiny.data(), previous=kept[0], **options)
    for result in (whole, resumed):
        reasons = result.table.set_index(["source", "target", "measure"])["reason"]
        for measure in ("dm.accuracy", "tlm.residual"):
            assert reasons["block1", "block2", measure] == "no map was found; take another family"
            assert reasons["block2", "block1", measure] == ""
    assert whole.table.equals(resumed.table)
    assert whole.arrays.keys() == resumed.arrays.keys()
    assert all(np.array_equal(whole.arrays[k], resumed.arrays[k], equal_nan=True) for k in whole.arrays)
