"""E9: linear probes of all blocks at every rank."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from suture.studies.experiments.claims import DIFFERENCE, NetworkMean, Outcome
from suture.studies.experiments.experiment import Experiment, Part
from suture.studies.experiments.grids.base import explain_open
from suture.studies.experiments.measures.rank_figures import Line, draw_ranks
from suture.studies.experiments.measures.rank_sensitivity import group_curves
from suture.studies.experiments.measures.trained_part import RankOptions, read_experiment, train_part
from suture.studies.experiments.record import Found, Record
from suture.studies.sensitivity_test.call import sensitivity

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_COLOURS = ("#332288", "#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677", "#aa3377", "0.4")


class RankedProbes(Experiment):
    """Linear probes of representations cut to their first principal components."""

    name, title = "E9", "Linear probes by rank"
    question = "How many principal components hold what a linear classifier reads off a layer?"

    def run(self, part: Part) -> Found:
        import pandas as pd

        given, table = train_part(part), read_experiment(part, RankOptions)
        # One call for each network, without measures: then there are no distances between seeds to compute.
        made = {name: sensitivity({name: source}, given.data, given.test, ranks=table.ranks,
                                  probe=table.probe, sites=given.sites, indices=(), methods=(),
                                  batch_size=given.batch_size, device=given.device, seed=given.seed,
                                  allow_bypass=True, progress=given.progress,
                                  folder=part.spec.folder / self.name)
                for name, source in given.networks.items()}
        probes = pd.concat([found.probes for found in made.values()], ignore_index=True)
        notes = dict.fromkeys(note for found in made.values() for note in found.notes)
        return Found({"probes": probes}, {"n_test": int(probes["n"].max()), "notes": list(notes)})

    def judge_claims(self, record: Record) -> Sequence[Outcome]:
        return [] if record.read("probes").empty else [judge_depth(record), judge_components(record)]

    def tabulate(self, record: Record) -> Mapping[str, pd.DataFrame]:
        return {} if record.read("probes").empty else {"Probes by site": tabulate_sites(record)}

    def draw(self, record: Record) -> Mapping[str, Callable[[], Figure]]:
        if record.read("probes").empty:
            return {}
        return {"ranks": lambda: draw_ranks({"accuracy of the probes": _list_lines(record)})}

    def describe(self, record: Record) -> Sequence[str]:
        notes = [note for about in record.about.get("parts", {}).values() for note in about.get("notes", ())]
        return [f"Note: {note}." for note in dict.fromkeys(notes)]


def read_accuracies(record: Record) -> dict[str, list[float]]:
    """Return the accuracies of the probes of the whole width by network, from the first site to the last."""
    found: dict[str, list[float]] = {}
    for (_, network, _), of in group_curves(record.read("probes")):
        found.setdefault(network, []).append(float(of["accuracy"][of["rank"] == of["width"]].iloc[0]))
    return found


def read_needed(record: Record) -> dict[str, dict[str, float]]:
    """Return by network and site the share of the width below which the probe changes.

    It is the smallest rank from which on the probe is as good as that of the whole width (exact McNemar,
    Holm, 5 %).
    """
    found: dict[str, dict[str, float]] = {}
    for (_, network, site), of in group_curves(record.read("probes")):
        changed = of.loc[of["p_holm"] < 0.05, "rank"]
        largest = float(changed.max()) if len(changed) else 0.0
        enough = of.loc[of["rank"] > largest, "rank"]
        found.setdefault(network, {})[site] = float(enough.min()) / float(of["width"].iloc[0])
    return found


def judge_depth(record: Record) -> Outcome:
    """Judge that later layers can be read better by a linear probe."""
    from scipy import stats

    found = read_accuracies(record)
    gain = NetworkMean.of([of[-1] - of[0] for of in found.values()], limits=DIFFERENCE)
    order = NetworkMean.of([float(stats.spearmanr(range(len(of)), of).statistic) if len(set(of)) > 1
                            else math.nan for of in found.values()], limits=DIFFERENCE)
    held = gain.is_above(0.0)
    return Outcome("Linear probes read more off later layers.",
                   f"accuracy of the last less that of the first site {gain.format(3)}; rank correlation "
                   f"with depth {order.format()}", held, explain_open(held, gain))


def judge_components(record: Record) -> Outcome:
    """Judge that early layers need a larger share of their principal components than late ones."""
    found = [list(of.values()) for of in read_needed(record).values()]
    first, last = (NetworkMean.of([of[k] for of in found], limits=(0.0, 1.0)) for k in (0, -1))
    gap = NetworkMean.of([of[0] - of[-1] for of in found], limits=DIFFERENCE)
    held = gap.is_above(0.0)
    return Outcome("Early layers need most of their principal components, and late ones few.",
                   f"smallest share of the width that a probe reads as well as the whole: first site "
                   f"{first.format()}, last {last.format()}; difference {gap.format()}", held,
                   explain_open(held, gap))


def tabulate_sites(record: Record) -> pd.DataFrame:
    """Tabulate accuracy at the whole width and the share of components needed, means over networks."""
    import pandas as pd

    needed, rows = read_needed(record), []
    table = record.read("probes")
    for site in table["site"].drop_duplicates():
        of = table[(table["site"] == site) & (table["rank"] == table["width"])]
        rows.append({"site": site, "width": int(of["width"].iloc[0]),
                     "accuracy": NetworkMean.of(of["accuracy"], limits=(0.0, 1.0)).format(3),
                     "accuracy on the fitting data": f"{of['train_accuracy'].mean():.3f}",
                     "share of components needed": NetworkMean.of(
                         [by_site[site] for by_site in needed.values() if site in by_site],
                         limits=(0.0, 1.0)).format()})
    return pd.DataFrame(rows)


def _list_lines(record: Record) -> list[Line]:
    table, lines = record.read("probes"), []
    for k, site in enumerate(table["site"].drop_duplicates()):
        of = table[table["site"] == site].groupby("rank")["accuracy"]
        lines.append(Line.of(str(site), {int(rank): list(values) for rank, values in of},
                             _COLOURS[k % len(_COLOURS)]))
    return lines
