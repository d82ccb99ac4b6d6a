"""What all experiments of grids share: their run, their maps and their tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from suture.numbers import Bools, get_measure
from suture.studies.experiments.claims import MOST_MARKED, NetworkMean, Outcome
from suture.studies.experiments.experiment import Experiment, Part
from suture.studies.experiments.grids.tables import CELLS, collect_grids
from suture.studies.experiments.grids.view import Grids
from suture.studies.experiments.record import Found, Record
from suture.studies.spec.commands import run_file

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from suture.results import Heat

ACCURACY = {"tlm": "tlm.relative_accuracy", "dm": "dm.relative_accuracy"}
METHODS = {"tlm": "TLM", "dm": "DM"}
INDICES = ("cka@paper", "pwcca@paper", "opd@paper")


class GridExperiment(Experiment):
    """An experiment that compares every layer with every layer.

    Attributes:
        mapped: measures of its maps, one row of maps each; ``{}`` stands for the method.
        own: True for networks with themselves, False for different ones, None for both.
        kept: tables of its record.
    """

    kept: ClassVar[Sequence[str]] = CELLS
    mapped: ClassVar[Sequence[str]] = ("{}.relative_accuracy",)
    own: ClassVar[bool | None] = None

    def compares(self, part: str) -> bool:
        return True

    def run(self, part: Part) -> Found:
        return collect_grids(run_file(part.spec, part.progress, part.on_result), self.kept)

    def view(self, record: Record, part: str | None = None) -> Grids:
        """Return the grids that the claims are about."""
        return Grids(record, part, self.own)

    def tabulate(self, record: Record) -> Mapping[str, pd.DataFrame]:
        grids = self.view(record)
        return {"Means over cells": tabulate_means(grids, self._list_measures(grids))}

    def draw(self, record: Record) -> Mapping[str, Callable[[], Figure]]:
        grids = self.view(record)
        return {"maps": lambda: self._draw_maps(grids)} if self._list_measures(grids) else {}

    def _list_measures(self, grids: Grids) -> list[str]:
        names = dict.fromkeys(form.format(m) for form in self.mapped for m in METHODS)
        return [name for name in names if grids.has(name)]

    def _draw_maps(self, grids: Grids) -> Figure:
        from suture.results import draw_matrix_grid

        rows = [form for form in self.mapped if any(grids.has(form.format(m)) for m in METHODS)]
        heats = [[draw_heat(grids, name) if (name := form.format(m)).startswith(m) and grids.has(name)
                  else None for form in rows] for m in METHODS]
        kept = [(word, row) for word, row in zip(METHODS.values(), heats, strict=True) if any(row)]
        columns = [get_measure(form.format("dm")).label.removeprefix("DM ") for form in rows]
        found: list[list[Heat | None]] = [list(row) for _, row in kept]
        return draw_matrix_grid(found, rows=[word for word, _ in kept],
                                columns=[name[:1].upper() + name[1:] for name in columns])


def draw_heat(grids: Grids, measure: str) -> Heat:
    """Return the mean of a measure over pairs as a heat map; a star is on cells marked in most of them."""
    from suture.results import Heat

    return Heat(grids.matrix(measure), measure, starred=grids.marked(measure).mean(0) > MOST_MARKED)


def tabulate_means(grids: Grids, measures: Sequence[str]) -> pd.DataFrame:
    """Tabulate means over the cells of corresponding layers, of others, and of late layers into early ones.

    Each mean is over pairs of networks, with Student's 95 % interval.
    """
    import pandas as pd

    places = {"corresponding layers": ~grids.off_diagonal, "other layers": grids.off_diagonal,
              "late into early": grids.late_into_early}
    rows = []
    for name in measures:
        row = {"measure": get_measure(name).label}
        for words, where in places.items():
            found = grids.average(name, where)
            low, high = found.interval
            row[words] = (f"{found.mean:.3f}" + ("" if low != low else f" [{low:.3f}, {high:.3f}]")
                          if where.any() else "–")
        row["marked cells"] = f"{grids.share_marked(name):.0%}"
        rows.append(row)
    return pd.DataFrame(rows)


def judge_late_into_early(grids: Grids, claim: str, headline: int = 0) -> Outcome:
    """Judge that task loss matching puts late layers in place of early ones, and direct matching does not."""
    where = grids.late_into_early
    tlm, dm = (grids.average(ACCURACY[m], where) for m in ("tlm", "dm"))
    gap = grids.subtract(ACCURACY["tlm"], ACCURACY["dm"], where)
    measured = (f"relative accuracy of late layers into early ones: TLM {tlm.format()}, DM {dm.format()}; "
                f"difference {gap.format()}")
    return limit_by_marks(grids, Outcome(claim, measured, gap.is_above(0.0), "", headline), where)


def limit_by_marks(grids: Grids, outcome: Outcome, where: Bools | None = None) -> Outcome:
    """Return an outcome on task loss matching, undecided if most of its cells have not converged."""
    share = grids.share_marked(ACCURACY["tlm"], where)
    if share <= MOST_MARKED:
        return outcome
    return Outcome(outcome.claim, outcome.measured, None,
                   f"{share:.0%} of the TLM cells have not converged, and decide nothing", outcome.headline,
                   outcome.brief)


def explain_mixture(index: str) -> str:
    """Return why an index of the paper's alignment may miss corresponding layers; empty for others."""
    mixed = index in ("pwcca@paper", "opd@paper")
    return "" if not mixed else ("where shapes differ it is taken on pooled maps, else on positions, as in "
                                 "the paper; the two kinds of cells cannot be compared")


def explain_open(held: bool | None, found: NetworkMean) -> str:
    """Return why a mean decides nothing; empty if it does."""
    if held is not None:
        return ""
    return ("the interval contains both answers" if found.interval[0] == found.interval[0] else
            "an interval needs three networks")
