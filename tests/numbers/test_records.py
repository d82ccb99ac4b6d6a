"""The record of a cell: what its value is a ratio of."""

from __future__ import annotations

import numpy as np
import pytest

from suture import numbers as scores
from suture._base.errors import SutureError
from suture.numbers import records


def test_texts_that_repeat_one_token_have_intervals_of_texts() -> None:
    """Tokens of a text hit or miss together: an interval over tokens would be four times too narrow."""
    tokens, hits = np.full(50, 16), np.repeat([16.0, 0.0], 25).astype(np.float32)
    arrays = {"dm.correct": hits[None, None], "target.tokens": tokens}
    record = scores.build_record(arrays, "dm.accuracy", 0, 0)
    e = scores.estimate_ratios(record.top[None], record.bottom)[0]
    one = scores.estimate_proportion(hits > 0)
    assert (e.value, e.high - e.low) == (0.5, pytest.approx(one.high - one.low, rel=0.15))


def test_records_are_the_arrays_of_their_cell() -> None:
    rng = np.random.default_rng(9)
    arrays = {f"dm.{k}": rng.random((2, 3, 6)) for k in ("kl", "ce", "error", "output_gap")}
    arrays |= {f"dm.{k}": rng.random((2, 3, 6)) < 0.5 for k in ("correct", "agree")}
    arrays |= {"target.correct": np.array([1, 1, 0, 1, 0, 1], bool), "target.ce": rng.random(6),
               "target.scale": rng.random((3, 6)), "target.spread": rng.random((3, 6)),
               "target.output_scale": rng.random(6), "target.output_spread": rng.random(6),
               "target.batches": np.array([4, 2])}
    i, j = 1, 2
    error, scale, spread = arrays["dm.error"][i, j], arrays["target.scale"][j], arrays["target.spread"][j]
    wanted = {
        "accuracy": arrays["dm.correct"][i, j].mean(), "agreement": arrays["dm.agree"][i, j].mean(),
        "relative_accuracy": arrays["dm.correct"][i, j].sum() / 4, "kl": arrays["dm.kl"][i, j].mean(),
        "ce_gap": arrays["dm.ce"][i, j].mean() - arrays["target.ce"].mean(),
        "relative_perplexity": np.exp(arrays["dm.ce"][i, j].mean() - arrays["target.ce"].mean()),
        "residual": error.sum() / scale.sum(),
        "residual_batches": (error[:4].sum() / scale[:4].sum() + error[4:].sum() / scale[4:].sum()) / 2,
        "r2": 1 - error.sum() / spread.sum(),
        "output_r2": 1 - arrays["dm.output_gap"][i, j].sum() / arrays["target.output_spread"].sum(),
        "output_error": np.sqrt(arrays["dm.output_gap"][i, j].sum() / arrays["target.output_scale"].sum())}
    assert set(wanted) == set(records.RECORDS)
    for quantity, value in wanted.items():
        assert records.build_record(arrays, f"dm.{quantity}", i, j).value == pytest.approx(value, rel=1e-12)
    for index in ("cka", "r2"):
        with pytest.raises(SutureError, match=f"per-example record '{index}'.*structural indices"):
            records.build_record(arrays, index, 0, 0)
    with pytest.raises(SutureError, match=r"expected the per-example array 'tlm.kl' for 'tlm.kl'"):
        records.build_record(arrays, "tlm.kl", 0, 0)
