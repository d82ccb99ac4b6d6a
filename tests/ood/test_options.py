"""Thresholds of verdicts check themselves."""

from __future__ import annotations

import pytest

from suture import SutureError, Thresholds


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
