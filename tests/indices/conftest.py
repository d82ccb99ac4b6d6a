"""Measures of a test's own are forgotten after it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from suture.numbers import measures


@pytest.fixture(autouse=True)
def _forget_own_measures() -> Iterator[None]:
    before = dict(measures.MEASURES)
    yield
    measures.MEASURES.clear()
    measures.MEASURES.update(before)
