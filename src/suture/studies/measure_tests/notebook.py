"""What a notebook shows of a validation: what each measure passes and fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

from suture.results import render_card, render_table

if TYPE_CHECKING:
    from suture.studies.measure_tests.validation import Validation

_SIGNS = {True: "✓", False: "✗", None: ""}


def render_validation_card(made: Validation) -> str:
    """Render the findings of a validation and its warnings, and a table of measures and tests."""
    known = {(o.test, o.measure): _SIGNS[o.passed] for o in made.outcomes}
    rows = [(test, *(known.get((test, measure), "") for measure in made.measures)) for test in made.tests]
    return render_card(repr(made), [*made.findings, *made.warnings],
                       [render_table(["test (✓ passed, ✗ failed)", *made.measures], rows)])
