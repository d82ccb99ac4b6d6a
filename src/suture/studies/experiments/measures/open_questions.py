"""E11: what the paper leaves open: length, start and seeds of training, and a source of the class alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from suture._base import derive_seed
from suture.numbers import Floats
from suture.results import SIMILAR, UNPROVEN
from suture.studies.experiments.claims import DIFFERENCE, NetworkMean, Outcome, decide_for_each
from suture.studies.experiments.experiment import Part
from suture.studies.experiments.grids.base import (
    ACCURACY,
    METHODS,
    GridExperiment,
    draw_heat,
    explain_open,
)
from suture.studies.experiments.grids.detection import WORKS
from suture.studies.experiments.grids.tables import CELLS, collect_grids
from suture.studies.experiments.grids.view import Contests, Grids, sum_contests
from suture.studies.experiments.measures.trained_part import list_sites, train_part
from suture.studies.experiments.record import Found, Record
from suture.studies.measure_tests.control_studies import build_noise, read_inputs
from suture.studies.network_study.call import arrange, run_study
from suture.studies.network_study.options import StudyOptions
from suture.studies.network_study.result import Study

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

CONTROL = "control"
"""Part whose source networks hold nothing but the class."""
WORDS = {"": "random start", "dm": "from direct matching", "identity": "from the identity",
         "short": "random start, short"}
_NOISE = "class noise"


class OpenQuestions(GridExperiment):
    """Own layers by the length, the start and the seeds of task loss matching, and class noise."""

    kept = (*CELLS, "verdicts")
    name, title = "E11", "What the paper leaves open"
    question = ("Does \"another layer is more similar than the layer itself\" depend on the training of the "
                "stitching layer, and is a source similar that holds nothing but the class?")
    own = True

    def compares(self, part: str) -> bool:
        return part != CONTROL

    def run(self, part: Part) -> Found:
        return collect_grids(run_control(part), self.kept) if part.name == CONTROL else super().run(part)

    def judge_claims(self, record: Record) -> Sequence[Outcome]:
        parts = list_grid_parts(record)
        found = []
        if {"", "short"} <= parts.keys():
            found.append(judge_fewer(parts, "short", "", "A short training of the stitching layer makes "
                                     "other layers look more similar than the layer itself more often."))
        found += [judge_fewer(parts, "", other, f"Task loss matching that starts {WORDS[other]} finds "
                              "other layers more similar less often than from a random start.")
                  for other in ("dm", "identity") if {"", other} <= parts.keys()]
        control = Grids(record, CONTROL)
        if control.pairs:
            found += [judge_class_noise(control, method) for method in ("tlm", "dm")]
            found.append(judge_verdicts(record))
        return found

    def tabulate(self, record: Record) -> Mapping[str, pd.DataFrame]:
        found = {"Layers that lose to another layer, by training": tabulate_contests(list_grid_parts(record))}
        control = Grids(record, CONTROL)
        return {**found, "A source that holds nothing but the class": tabulate_control(control)} if (
            control.pairs) else found

    def draw(self, record: Record) -> Mapping[str, Callable[[], Figure]]:
        parts = list_grid_parts(record)
        return {"maps": lambda: _draw_parts(parts)} if parts else {}


def run_control(part: Part) -> Study:
    """Stitch class noise of each network into the network itself, at each of its sites."""
    given = train_part(part)
    return run_study(make_control(given, list_sites(given), str(part.spec.folder / "E11-control")))


def make_control(given: StudyOptions, sites: Sequence[str], folder: str) -> StudyOptions:
    """Return the arguments of the study in which class noise stands in the place of each source network."""
    work = arrange(given)[0]
    members = work.members
    make = partial(build_noise, _NOISE, inputs=read_inputs(work, next(iter(members))), sites=list(sites))
    first = make(next(iter(members.values())), seed=0, data=given.data)[0]
    noise = {f"{_NOISE} {name}": partial(make, member, seed=derive_seed(given.seed, name), data=given.data)
             for name, member in members.items()}
    networks: dict[str, Any] = {**given.networks, **noise}
    # All noise goes into one output, so that each site has others beside it.
    return replace(given, networks=networks, pairs=[(f"{_NOISE} {name}", name) for name in members],
                   sites=first.sites, target_sites=list(sites), allow_bypass=True, about=None, folder=folder,
                   indices=())


def list_grid_parts(record: Record) -> dict[str, Grids]:
    """Return the grids of networks with themselves by part, without the control."""
    found = {name: Grids(record, name, True) for name in WORDS}
    return {name: grids for name, grids in found.items() if grids.pairs}


def judge_fewer(parts: Mapping[str, Grids], more: str, less: str, claim: str) -> Outcome:
    """Judge that own layers lose more often in one part than in another, over the same networks."""
    shares = {name: _list_lost(parts[name]) for name in (more, less)}
    both = [network for network in shares[more] if network in shares[less]]
    gap = NetworkMean.of([shares[more][n] - shares[less][n] for n in both], limits=DIFFERENCE)
    held = gap.is_above(0.0)
    heard = "; ".join(f"{WORDS[name]}: {_describe(parts[name])}" for name in (more, less))
    return Outcome(claim, f"{heard}; difference of the shares {gap.format()}", held, explain_open(held, gap))


def _list_lost(grids: Grids) -> dict[str, float]:
    found = grids.judge_contests(ACCURACY["tlm"])
    return {pair[1]: c.lost / c.layers for pair, c in zip(grids.pairs, found, strict=True) if c.layers}


def _describe(grids: Grids) -> str:
    total: Contests = sum_contests(grids.judge_contests(ACCURACY["tlm"]))
    marked = f", {total.marked} of {total.layers} not converged" if total.marked else ""
    return f"{total.lost} of {total.layers} layers lose, {total.beyond} beyond noise{marked}"


def tabulate_contests(parts: Mapping[str, Grids]) -> pd.DataFrame:
    """Tabulate how many layers lose to another layer in each part."""
    import pandas as pd

    rows = []
    for name, grids in parts.items():
        total = sum_contests(grids.judge_contests(ACCURACY["tlm"]))
        own = grids.average(ACCURACY["tlm"], ~grids.off_diagonal)
        rows.append({"training": WORDS[name], "layers": total.layers, "lose": total.lost,
                     "beyond noise": total.beyond, "not converged": total.marked,
                     "relative accuracy of own layers": own.format(3)})
    return pd.DataFrame(rows)


def read_corresponding(grids: Grids, measure: str) -> Floats:
    """Return the values of a measure of the control at each target site, (pairs, sites)."""
    return np.diagonal(grids.values(measure), axis1=1, axis2=2)


def judge_class_noise(grids: Grids, method: str) -> Outcome:
    """Judge whether a stitched network solves the task from a source that holds only the class."""
    found = NetworkMean.of(read_corresponding(grids, ACCURACY[method]).mean(1), grids.networks)
    above, tlm = found.is_above(WORKS), method == "tlm"
    held = above if tlm or above is None else not above
    word = {"tlm": "Task loss matching", "dm": "Direct matching"}[method]
    return Outcome(f"{word} {'solves' if tlm else 'does not solve'} the task from a source that holds "
                   "nothing but the class.",
                   f"relative accuracy over sites {found.format()}; it works from {WORKS} on", held,
                   explain_open(held, found))


def judge_verdicts(record: Record) -> Outcome:
    """Judge that the verdicts of cells call no source similar that holds nothing but the class."""
    table = record.read("verdicts")
    of = table[(table["part"] == CONTROL)] if len(table) else table
    words = [list(rows["word"]) for _, rows in of.groupby("target_network")] if len(of) else []
    counts = Counter(word for by_network in words for word in by_network)
    heard = ", ".join(f"{n} {word}" for word, n in counts.most_common())
    shares = NetworkMean.of_shares([by_network.count(SIMILAR) / len(by_network) for by_network in words],
                                   max(map(len, words), default=1))
    held = decide_for_each([None if set(by_network) <= {UNPROVEN} else SIMILAR not in by_network
                            for by_network in words])
    return Outcome("The verdicts of cells do not call a source similar that holds nothing but the class.",
                   f"{heard or 'no verdicts'}; similar {shares.format()}", held,
                   "" if held is not None else "networks differ, are fewer than three, or nothing is proven")


def tabulate_control(grids: Grids) -> pd.DataFrame:
    """Tabulate the control site by site: accuracies, natural distances and informational residuals."""
    import pandas as pd

    rows = []
    for k, site in enumerate(grids.sites[1]):
        row = {"site": site}
        for method, word in METHODS.items():
            for quantity in ("relative_accuracy", "natural_distance", "informational_residual"):
                if grids.has(name := f"{method}.{quantity}"):
                    found = NetworkMean.of(read_corresponding(grids, name)[:, k], grids.networks)
                    row[f"{word} {quantity.replace('_', ' ')}"] = f"{found.mean:.2f}"
        rows.append(row)
    return pd.DataFrame(rows)


def _draw_parts(parts: Mapping[str, Grids]) -> Figure:
    from suture.results import draw_matrix_grid

    return draw_matrix_grid([[draw_heat(grids, ACCURACY["tlm"]) for grids in parts.values()]],
                            columns=[WORDS[name] for name in parts])
