"""The result of a sensitivity test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from suture._base import checked
from suture.results import require_matplotlib
from suture.studies.measure_tests.record import TestOutcome, tabulate_outcomes
from suture.studies.sensitivity_test.detection import tabulate_detection
from suture.studies.sensitivity_test.outcomes import list_outcomes
from suture.studies.sensitivity_test.rank_correlations import tabulate_correlations
from suture.studies.sensitivity_test.seed_spread import tabulate_spread

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from suture.studies.network_study.result import Study


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """What measures say when representations are cut to their first principal components.

    Attributes:
        curves: each measure of the cut against the whole representation: a row for each network, site, rank
            and measure.
        probes: the functional truth: `Probes.table` of each network.
        study: the comparisons of different networks, for the distances between seeds; None for one network.
        failures: reasons of networks that have no curves.
        notes: sentences for the reader.
    """

    curves: pd.DataFrame
    probes: pd.DataFrame
    study: Study | None
    failures: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @property
    def networks(self) -> list[str]:
        """Names of the networks with curves."""
        return list(self.curves["network"].unique())

    @property
    def measures(self) -> list[str]:
        """Names of the measures."""
        return list(self.curves["measure"].unique())

    @cached_property
    def spread(self) -> pd.DataFrame:
        """Distances between seeds at every site: see `tabulate_spread`."""
        return tabulate_spread(self.study, list(self.curves["site"].unique()), self.measures)

    @cached_property
    def detection(self) -> pd.DataFrame:
        """Smallest deletions that measures and probes notice: see `tabulate_detection`."""
        return tabulate_detection(self.curves, self.probes, self.spread)

    @cached_property
    def correlations(self) -> pd.DataFrame:
        """Rank correlations with the change of the probe: see `tabulate_correlations`."""
        return tabulate_correlations(self.curves, self.probes)

    @cached_property
    def outcomes(self) -> Sequence[TestOutcome]:
        """What the test says about each measure, over networks."""
        return list_outcomes(self.detection, self.correlations)

    @cached_property
    def table(self) -> pd.DataFrame:
        """The outcomes as a table, one row each."""
        return tabulate_outcomes(self.outcomes)

    @checked
    def plot(self, measures: Sequence[str] | None = None) -> Figure:
        """Draw the curves of measures, with the distances between seeds, above those of the probes.

        Args:
            measures: default all.

        Raises:
            SutureError: no such measure.
        """
        require_matplotlib("a plot")
        from suture.studies.sensitivity_test.figures import draw_curves

        return draw_curves(self, measures)

    def __repr__(self) -> str:
        return f"Sensitivity({len(self.networks)} networks, {len(self.measures)} measures)"

