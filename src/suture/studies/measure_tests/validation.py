"""The result of the tests of measures: a table of measures and tests, its figure, its page, its files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from suture._base import FilePath, SutureError, checked, expect, make_unknown_error, replace_file
from suture.numbers import get_measure
from suture.results import adjust_holm, format_people_csv, require_matplotlib, show_in_notebook
from suture.studies.measure_tests.battery.control_tests import CONTROLS
from suture.studies.measure_tests.network_statistics import ENOUGH_POWER, LEVEL
from suture.studies.measure_tests.record import TestOutcome, tabulate_outcomes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FILE, TABLE, PAGE = "validation.json", "validation.csv", "validation.html"
_KIND = "suture validation"


@dataclass(frozen=True, eq=False)
class Validation:
    """What tests say about measures.

    Attributes:
        outcomes: of each test and measure. `passed` holds after Holm's adjustment over measures.
        networks, layers: of the population.
        warnings: what the reader must know first, such as tests without power.
        meta: settings, versions, notes.
    """

    outcomes: tuple[TestOutcome, ...]
    networks: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def make(cls, outcomes: Iterable[TestOutcome], networks: Sequence[str] = (), layers: Sequence[str] = (),
             warnings: Sequence[str] = (), meta: Mapping[str, Any] | None = None) -> Validation:
        """Make a validation: p-values of one test are adjusted over its measures, weak tests are named."""
        adjusted = tuple(adjust_outcomes(outcomes))
        every = dict.fromkeys([*warnings, *_warn_of_weakness(adjusted)])
        return cls(adjusted, tuple(networks), tuple(layers), tuple(every), dict(meta or {}))

    def add(self, outcomes: Iterable[TestOutcome], warnings: Sequence[str] = ()) -> Validation:
        """Return the same with further outcomes, such as those of other tests."""
        more = tuple(outcomes)
        taken = {(o.test, o.measure) for o in more}
        kept = [o for o in self.outcomes if (o.test, o.measure) not in taken]
        return Validation.make([*kept, *more], self.networks, self.layers, [*self.warnings, *warnings],
                               self.meta)

    def __repr__(self) -> str:
        return (f"Validation({len(self.measures)} measures, {len(self.tests)} tests, "
                f"{len(self.networks)} networks)")

    def _repr_html_(self) -> str | None:
        from suture.studies.measure_tests.notebook import render_validation_card

        return show_in_notebook(lambda: render_validation_card(self))

    @property
    def measures(self) -> tuple[str, ...]:
        """The measures that were tested."""
        return tuple(dict.fromkeys(o.measure for o in self.outcomes))

    @property
    def tests(self) -> tuple[str, ...]:
        """The tests, in order."""
        return tuple(dict.fromkeys(o.test for o in self.outcomes))

    @property
    def findings(self) -> tuple[str, ...]:
        """One sentence for each measure: which tests it passes and fails, and how many are not decided."""
        return tuple(self._describe(measure) for measure in self.measures)

    def _describe(self, measure: str) -> str:
        found: dict[bool | None, list[str]] = {True: [], False: [], None: []}
        for o in self.outcomes:
            if o.measure == measure:
                found[o.passed].append(o.test)
        passed, failed = (f"{len(found[k])} tests ({', '.join(found[k])})" if found[k] else "no test"
                          for k in (True, False))
        return (f"{get_measure(measure).label} passes {passed} and fails {failed}; "
                f"{len(found[None])} are not decided.")

    @property
    def table(self) -> pd.DataFrame:
        """One row for each test and measure: fields of `TestOutcome`, and `p_holm` over the measures."""
        table = tabulate_outcomes(self.outcomes)
        table.insert(list(table.columns).index("p") + 1, "p_holm", _adjust(self.outcomes))
        return table

    @checked
    def matrix(self, what: str = "effect") -> pd.DataFrame:
        """Return one column of `table` as a matrix: measures x tests.

        With ``"passed"`` there is a last column `fooled by`: the negative controls that a measure puts above
        a real layer.

        Raises:
            SutureError: no such column.
        """
        table = self.table
        if what not in table.columns:
            raise make_unknown_error("column", what, map(str, table.columns))
        found = table.set_index(["measure", "test"])[what].unstack()  # noqa: PD010, which takes means
        found = found.reindex(index=list(self.measures), columns=list(self.tests))
        if what == "passed":
            found["fooled by"] = [", ".join(self.list_fooling(name)) for name in self.measures]
        return found

    def list_fooling(self, measure: str) -> tuple[str, ...]:
        """Return the negative controls that a measure puts above a real layer, beyond chance."""
        return tuple(o.test for o in self.outcomes
                     if o.measure == measure and o.test in CONTROLS and o.passed is False)

    def list_outcomes(self, test: str) -> tuple[TestOutcome, ...]:
        """Return the outcomes of a test, and of others whose name begins with it, such as its precision."""
        return tuple(o for o in self.outcomes if o.test == test or o.test.startswith(f"{test} ("))

    def outcome(self, measure: str, test: str) -> TestOutcome:
        """Return what one test says about one measure.

        Raises:
            SutureError: there is none.
        """
        found = {(o.measure, o.test): o for o in self.outcomes}
        if (measure, test) not in found:
            raise make_unknown_error("measure and test", f"{measure}, {test}", map(", ".join, found))
        return found[measure, test]

    def plot(self) -> Figure:
        """Draw measures x tests: the effect in each cell, coloured by what was decided."""
        require_matplotlib("a plot")
        from suture.studies.measure_tests.page import draw_validation

        return draw_validation(self)

    @checked
    def report(self, path: FilePath) -> Path:
        """Write a self-contained HTML page, which begins with the warnings; it needs no other file."""
        require_matplotlib("a report")
        from suture.results import write_text
        from suture.studies.measure_tests.page import render_validation

        return write_text(render_validation(self), Path(path))

    @checked
    def save(self, folder: FilePath) -> Path:
        """Write ``validation.json``, which `load` reads, and the table as ``validation.csv``."""
        place = Path(folder)
        content = {"kind": _KIND, "outcomes": [asdict(o) for o in self.outcomes], "networks": self.networks,
                   "layers": self.layers, "warnings": self.warnings, "meta": self.meta}
        place.mkdir(parents=True, exist_ok=True)
        replace_file(place / TABLE, format_people_csv(self.table.assign(
            passed=["" if o.passed is None else str(o.passed) for o in self.outcomes])))
        replace_file(place / FILE, json.dumps(content, indent=1).encode())
        return place

    @classmethod
    @checked
    def load(cls, folder: FilePath) -> Validation:
        """Load what `save` wrote.

        Raises:
            SutureError: the folder holds no validation.
        """
        path = Path(folder) / FILE
        try:
            content = json.loads(path.read_bytes())
            expect(content["kind"] == _KIND, "a file of suture.validate", str(path))
            return cls(tuple(TestOutcome(**o) for o in content["outcomes"]), tuple(content["networks"]),
                       tuple(content["layers"]), tuple(content["warnings"]), content["meta"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SutureError(f"expected a validation in {str(folder)!r}: {error}") from error


def _adjust(outcomes: Sequence[TestOutcome]) -> np.ndarray:
    """Return p-values adjusted over the measures of each test (Holm)."""
    adjusted = np.full(len(outcomes), np.nan)
    for test in dict.fromkeys(o.test for o in outcomes):
        rows = [k for k, o in enumerate(outcomes) if o.test == test]
        adjusted[rows] = adjust_holm(np.array([outcomes[k].p for k in rows]))
    return adjusted


def adjust_outcomes(outcomes: Iterable[TestOutcome]) -> Iterable[TestOutcome]:
    """Yield outcomes whose decision holds after adjusting p over the measures of a test."""
    listed = tuple(outcomes)
    for outcome, p in zip(listed, _adjust(listed).tolist(), strict=True):
        by_p = outcome.passed is True or (outcome.passed is False and outcome.effect < outcome.chance)
        lost = by_p and outcome.p <= LEVEL < p
        yield replace(outcome, passed=None, reason=outcome.reason or (
            f"p = {p:.2g} after adjusting for {sum(o.test == outcome.test for o in listed)} measures")
        ) if lost else outcome


def _warn_of_weakness(outcomes: Sequence[TestOutcome]) -> Iterable[str]:
    """Yield a sentence that names the tests which would hardly find what they look for, if there are any."""
    weak = dict[str, float]()
    for o in outcomes:
        if o.power < ENOUGH_POWER:
            weak[o.test] = min(o.power, weak.get(o.test, 1.0))
    if weak:
        yield (f"Too weak to show that an effect is absent, by their power below {ENOUGH_POWER:g}: "
               + ", ".join(f"{test} {math.floor(100 * power) / 100:.2f}" for test, power in weak.items())
               + ".")
