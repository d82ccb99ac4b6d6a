"""The figure of a validation: no text overlaps, and what was decided can be read without colours."""

from __future__ import annotations

import math
from itertools import product

import suture
from suture.studies.measure_tests.record import TestOutcome
from suture.studies.measure_tests.validation import Validation
from tests.support.drawn_texts import find_faults

MEASURES = ("cka_debiased", "pwcca", "dm.relative_accuracy", "dm.natural_distance")
TESTS = {"self": "share", "depth": "Spearman", "direct matching (precision)": ""}
DECIDED = (True, None, False)


def make() -> Validation:
    return Validation(tuple(
        TestOutcome(test, measure, -0.25 * k if k < 3 else math.nan, 0.1, 0.9, 0.01, 0.9, 5, unit, 0.5,
                    DECIDED[k % 3], "It is so.")
        for k, (measure, (test, unit)) in enumerate(product(MEASURES, TESTS.items()))))


def test_decisions_can_be_told_apart_in_grey() -> None:
    with suture.style("column"):
        figure = make().plot()
    assert find_faults(figure) == []
    shown = [text.get_text() for text in figure.axes[0].texts]
    assert [text[-1] for text in shown[:3]] == ["✓", "5", "✕"]
    words = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert words == ["passed ✓", "not decided", "failed ✕"]
