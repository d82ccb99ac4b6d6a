"""Timing of a dry run: how many examples it passes, and what it predicts from them."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

import suture
from suture.compare.rehearsal.timing import LEAST_TRIED, Cost, choose_tried, measure_cost
from tests.support import tiny


@pytest.mark.parametrize("count", [200, 500, 10_000])
def test_a_slow_stage_passes_at_most_a_tenth_of_the_examples(
        count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    clock = iter(range(100))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    measure_cost(seen.append, choose_tried([count, None], 1000), torch.device("cpu"))
    assert sum(seen) <= count / 10


def test_few_examples_bound_a_pass() -> None:
    assert choose_tried([None, None], 1000) <= 8
    assert choose_tried([20, 1000], 1000) == LEAST_TRIED
    assert choose_tried([10_000], 3) == 3


def test_a_prediction_counts_passes_and_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def work(n: int) -> None:
        now[0] += 3.0 + 0.5 * n

    cost = measure_cost(work, 20, torch.device("cpu"))
    assert (cost.each_pass, cost.each_example) == pytest.approx((3.0, 0.5))
    assert cost.predict(100, 30) == pytest.approx(4 * 3.0 + 50.0)
    assert cost.predict(None, 30) is None
    assert Cost(1.0, 0.5).predict(10, 4) == 8


def test_a_dry_run_tells_the_time_of_intervals() -> None:
    given: dict[str, Any] = {"sites": ["block1"], "methods": [], "indices": ["opd"], "device": "cpu"}
    plain, cut = (suture.dry_run(tiny.network(), None, tiny.data()[0], jackknife=b, **given).seconds
                  for b in (0, 20))
    assert "intervals" not in plain
    assert cut["intervals"] is not None
    assert cut["intervals"] > 0
