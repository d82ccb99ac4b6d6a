"""Thresholds of verdicts check themselves; raw auxiliary examples are prepared like the data."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

import suture
from suture import OOD, ImagePreprocessing, Prepared, SutureError, Thresholds
from tests.support import tiny
from tests.support.pictures import made_of, pictures


@pytest.mark.parametrize(("name", "value"), [
    ("works", 0), ("works", 1.01), ("works", float("nan")), ("works", "0.8"), ("works", True),
    ("works", None)])
def test_bad_thresholds_are_refused(name, value):
    with pytest.raises(SutureError, match=f"{name}: expected .*got") as caught:
        Thresholds(**{name: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "value"), [("works", 1), ("works", 0.01)])
def test_good_thresholds_are_taken(name, value):
    assert getattr(Thresholds(**{name: value}), name) == value


def test_raw_auxiliary_examples_are_prepared_like_the_data():
    data, raw = made_of(pictures(24)), made_of(pictures(30, seed=1))
    how = ImagePreprocessing(size=(8, 8), mean=(0.5,), std=(0.25,))
    network = tiny.seeded(lambda: tiny.Tiny(3))
    raw_result, made = (
        suture.compare(network, data=Prepared(data, how), methods=["dm"], indices=[],
                       ood=OOD("mahalanobis", auxiliary=given, range_examples=8))
        for given in (raw, Prepared(raw, how)))
    assert raw_result.meta["ood"]["auxiliary"] == "given: 30 examples of made, 15 of them held out"
    pd.testing.assert_frame_equal(raw_result.table, made.table)
    assert raw_result.meta["ood"]["quality"] == made.meta["ood"]["quality"]


@pytest.mark.parametrize("data", [None, (torch.zeros(2, 1), torch.zeros(2))])
def test_auxiliary_examples_beside_other_data_stay_raw(data):
    ood = OOD(auxiliary=made_of(pictures(3)))
    assert ood.prepare_like(data) is ood
