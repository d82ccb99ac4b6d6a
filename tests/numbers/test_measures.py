"""Measures and their variants."""

from __future__ import annotations

import pytest

from suture import SutureError
from suture.numbers import measures


def test_measures_know_variants_and_their_order() -> None:
    entry = measures.get_measure("svcca:0.9@pool")
    assert (entry.name, entry.label) == ("svcca:0.9@pool", "SVCCA [0.9, pool]")
    assert (entry.low, entry.high, entry.direction) == (0, 1, "larger")
    assert measures.get_measure("opd@paper").direction == "smaller"
    for wrong in ("kca@pool", "cka@pol", "dm.accuracy@pool", "dm.accuracy:3", "cka@", "cka:", "@pool"):
        with pytest.raises(SutureError, match="unknown measure"):
            measures.get_measure(wrong)
    given = ["opd@flatten", "cka@paper", "cka@flatten", "opd@pool", "svcca:0.8", "svcca", "cka@pool", "cka",
             "nothing", "dm.kl"]
    assert measures.sort_measures(given) == ["dm.kl", "cka", "svcca:0.8", "svcca", "cka@pool", "opd@pool",
                                             "cka@flatten", "opd@flatten", "cka@paper"]
