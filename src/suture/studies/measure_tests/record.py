"""What one test says about one measure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class TestOutcome:
    """What one test says about one measure.

    Attributes:
        test: its name, such as "self", "depth" or "specificity".
        measure: its name, as in the column `measure` of a comparison's table.
        effect: the number, in `unit`; nan if missing.
        low, high: its 95 % interval, with the network as the unit where there are several; nan if missing.
        p: of the null that the test names; nan if missing.
        power: chance to find the effect that the test calls relevant; nan if unknown.
        n: number of units: networks, pairs or layers, as `unit_of_n` says.
        unit: of the effect, such as "share", "AUROC" or "Spearman".
        chance: the effect by chance.
        passed: None if it is not decided.
        sentence: one plain sentence with the number, its null and its reservation.
        reason: why something is missing.
        unit_of_n: what `n` counts.
    """

    __test__ = False  # pytest collects classes whose name begins with Test

    test: str
    measure: str
    effect: float
    low: float
    high: float
    p: float
    power: float
    n: int
    unit: str
    chance: float
    passed: bool | None
    sentence: str
    reason: str = ""
    unit_of_n: str = "networks"


def tabulate_outcomes(outcomes: Iterable[TestOutcome]) -> pd.DataFrame:
    """Return one row for each outcome, with its fields as columns."""
    import pandas as pd

    return pd.DataFrame([astuple(o) for o in outcomes], columns=[f.name for f in fields(TestOutcome)])
