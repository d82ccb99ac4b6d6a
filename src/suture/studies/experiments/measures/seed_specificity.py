"""E8: is a layer nearer to itself in another network than to other layers?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from suture.numbers import auroc, get_measure
from suture.studies.experiments.claims import DIFFERENCE, FEWEST, NetworkMean, Outcome, decide_for_each
from suture.studies.experiments.experiment import Part
from suture.studies.experiments.grids.base import (
    ACCURACY,
    INDICES,
    GridExperiment,
    explain_mixture,
    explain_open,
    limit_by_marks,
)
from suture.studies.experiments.grids.tables import collect_grids
from suture.studies.experiments.grids.view import LEVEL, Grids
from suture.studies.experiments.record import Found, Record
from suture.studies.measure_tests.battery.layer_tests import BY_TARGET
from suture.studies.measure_tests.battery.specificity import GAPS, SPECIFICITY
from suture.studies.measure_tests.call import validate
from suture.studies.spec.commands import run_file

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

MEASURES = (*INDICES, ACCURACY["dm"], "dm.residual", ACCURACY["tlm"])
_TESTS = {BY_TARGET: "the corresponding layer is nearest", SPECIFICITY: "specificity (AUROC)",
          GAPS: "layer gaps within the spread of seeds"}


class SeedSpecificity(GridExperiment):
    """Distances between seeds against distances between layers."""

    name, title = "E8", "Specificity over seeds"
    question = "Is the same layer of another seed nearer than other layers are?"
    own = False

    def run(self, part: Part) -> Found:
        study = run_file(part.spec, part.progress, part.on_result)
        found, names = collect_grids(study), [name for name in MEASURES if name in study.measures]
        tested = validate(study, measures=names, controls=()).table
        return Found({**found.tables, "outcomes": tested}, found.about)

    def judge_claims(self, record: Record) -> Sequence[Outcome]:
        grids = self.view(record)
        names = [name for name in MEASURES if grids.has(name)]
        found = [judge_specificity(grids, record, name) for name in names if name != ACCURACY["tlm"]]
        if all(grids.has(name) for name in ACCURACY.values()):
            found.append(judge_separation(grids))
        return found

    def tabulate(self, record: Record) -> Mapping[str, pd.DataFrame]:
        return {"Tests of the measures over networks": tabulate_tests(record)}

    def draw(self, record: Record) -> Mapping[str, Callable[[], Figure]]:
        return {}


def list_separations(grids: Grids, measure: str) -> list[float]:
    """Return the AUROC of corresponding layers among all layers, for each pair of networks."""
    entry, apart, found = get_measure(measure), grids.off_diagonal, []
    for values in grids.values(measure):
        common = values if entry.larger_is_more_similar else -values
        own, rest = common[~apart], common[apart]
        own, rest = own[~np.isnan(own)], rest[~np.isnan(rest)]
        found.append(auroc(own, rest) if len(own) and len(rest) else math.nan)
    return found


def judge_specificity(grids: Grids, record: Record, measure: str) -> Outcome:
    """Judge that the same layer of another seed is nearer than other layers."""
    found = grids.summarise_shares(list_separations(grids, measure), len(grids.sites[1]))
    label = get_measure(measure).label
    held = found.is_above(0.5)
    if held is None and grids.networks >= FEWEST:
        held = decide_for_each([None if value == 0.5 else value > 0.5 for value in found.each])
    outcomes = record.read("outcomes")
    of = outcomes[(outcomes["measure"] == measure) & (outcomes["test"] == SPECIFICITY)]
    known = len(of) > 0 and not math.isnan(float(of["p"].iloc[0]))
    chance = float(of["p"].iloc[0]) if known else math.nan
    p = f"; p = {chance:.2g} over orders of the layers" if known else ""
    doubtful = held is True and chance > LEVEL
    return Outcome(f"{label}: the same layer of another seed is nearer than other layers.",
                   f"probability that it is {found.format(unit='pairs')}, chance 0.50{p}",
                   None if doubtful else held,
                   "no pair of networks has a value" if math.isnan(found.mean) else
                   "orders of the layers drawn at random do as well too often" if doubtful else
                   explain_open(held, found) if held is not False else explain_mixture(measure))


def judge_separation(grids: Grids) -> Outcome:
    """Judge that task loss matching tells corresponding layers from others worse than direct matching."""
    by_method = {m: list_separations(grids, ACCURACY[m]) for m in ("tlm", "dm")}
    tlm, dm = (grids.summarise_shares(of, len(grids.sites[1])) for of in by_method.values())
    gap = NetworkMean.of([a - b for a, b in zip(by_method["dm"], by_method["tlm"], strict=True)],
                         grids.networks, DIFFERENCE)
    held = gap.is_above(0.0)
    return limit_by_marks(grids, Outcome(
        "By task loss matching, the same layer of another seed stands out less than by direct matching.",
        f"probability that it is nearer than another layer: DM {dm.format(unit='pairs')}, TLM "
        f"{tlm.format(unit='pairs')}; difference {gap.format(unit='pairs')}", held, explain_open(held, gap)))


def tabulate_tests(record: Record) -> pd.DataFrame:
    """Tabulate what `suture.validate` says of each measure: effect, interval over networks, decision."""
    import pandas as pd

    outcomes, rows = record.read("outcomes"), []
    for name in outcomes["measure"].drop_duplicates() if len(outcomes) else ():
        row = {"measure": get_measure(name).label}
        for test, words in _TESTS.items():
            of = outcomes[(outcomes["measure"] == name) & (outcomes["test"] == test)]
            row[words] = _format_outcome(of.iloc[0]) if len(of) else "–"
        rows.append(row)
    return pd.DataFrame(rows)


def _format_outcome(row: Any) -> str:
    if row["effect"] != row["effect"]:
        return "–"
    known = "" if row["low"] != row["low"] else f" [{row['low']:.2f}, {row['high']:.2f}]"
    word = {"True": "passed", "False": "failed"}.get(str(row["passed"]), "open")
    return f"{row['effect']:.2f}{known}, {word}"
