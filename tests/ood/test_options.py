"""Thresholds of verdicts check themselves."""

from __future__ import annotations

import pytest

from suture import SutureError, Thresholds


@pytest.mark.parametrize(("name", "value"), [
    ("works", 0), ("works", 1.01), ("works", float("nan")), ("works", "0.8"), ("works", True),
    ("works", None), ("out", 0.5), ("out", 1.5), ("out", float("inf")), ("quality", 0.49), ("quality", 2)])
def test_bad_thresholds_are_refused(name, value):
    with pytest.raises(SutureError, match=f"{name}: expected .*got") as caught:
        Thresholds(**{name: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "value"), [("works", 1), ("works", 0.01), ("out", 1.0), ("out", 0.51),
                                             ("quality", 0.5), ("quality", 1)])
def test_good_thresholds_are_taken(name, value):
    assert getattr(Thresholds(**{name: value}), name) == value
