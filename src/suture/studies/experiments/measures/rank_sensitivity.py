"""E7: what measures notice when a representation loses its last principal components."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from suture.numbers import get_measure
from suture.studies.experiments.claims import DIFFERENCE, NetworkMean, Outcome
from suture.studies.experiments.experiment import Experiment, Part
from suture.studies.experiments.grids.base import ACCURACY, explain_open
from suture.studies.experiments.measures.rank_figures import Line, draw_ranks
from suture.studies.experiments.measures.trained_part import RankOptions, read_experiment, train_part
from suture.studies.experiments.record import Found, Record
from suture.studies.network_study.options import StudyOptions
from suture.studies.sensitivity_test.call import SensitivityOptions, sensitivity
from suture.studies.sensitivity_test.seed_spread import LEVELS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

CKA = ("cka@flatten", "cka")
"""CKA as in the paper, on flattened maps; on stitched positions where a record does not have it."""
Curve = tuple[str, str, str]
"""Part, network and site."""
_SHOWN = ("relative_accuracy", "agreement", "residual")
"""Measures of stitching in the table."""
_COLOURS = {"probe": "0.3", "dm.relative_accuracy": "#4477aa", "tlm.relative_accuracy": "#ee6677"}


class RankSensitivity(Experiment):
    """Representations cut to their first principal components."""

    name, title = "E7", "Sensitivity by rank"
    question = "Which measures notice that a representation loses what a linear probe reads off it?"

    def run(self, part: Part) -> Found:
        given, table = train_part(part), read_experiment(part, RankOptions)
        shared = {f.name for f in fields(SensitivityOptions)} & {f.name for f in fields(StudyOptions)}
        found = sensitivity(**{name: getattr(given, name) for name in shared - {"folder"}},
                            ranks=table.ranks, probe=table.probe,
                            folder=part.spec.folder / self.name / (part.name or "all"))
        tables = {"curves": found.curves, "probes": found.probes, "spread": found.spread,
                  "detection": found.detection, "correlations": found.correlations,
                  "outcomes": found.table}
        return Found(tables, {"networks": found.networks, "failures": dict(found.failures),
                              "pairs": 0 if found.study is None else len(found.study.pairs),
                              "n_test": int(found.probes["n"].max()), "notes": list(found.notes),
                              "settings": given.as_key()})

    def judge_claims(self, record: Record) -> Sequence[Outcome]:
        if record.read("curves").empty:
            return []
        found = [judge_noticing(record, name) for name in ("dm.relative_accuracy", "dm.residual")]
        if has_measure(record, ACCURACY["tlm"]):
            found.append(judge_kept_accuracy(record))
        return found

    def tabulate(self, record: Record) -> Mapping[str, pd.DataFrame]:
        return {} if record.read("curves").empty else {
            "Deletions that change the probe and who notices": tabulate_noticing(record),
                "Accuracies by rank relative to the whole": tabulate_accuracies(record)}

    def draw(self, record: Record) -> Mapping[str, Callable[[], Figure]]:
        return {} if record.read("curves").empty else {"ranks": lambda: draw_ranks(list_panels(record))}


def has_measure(record: Record, measure: str) -> bool:
    """Return True if a record has curves of a measure."""
    return bool((record.read("curves")["measure"] == measure).any())


def collect_noticed(record: Record, measure: str) -> dict[Curve, float]:
    """Return for each curve the share of the deletions that change the probe which a measure notices.

    It notices one where the cut representation is farther from the whole one than the median of the same
    layer of other networks. Curves whose probe never changes, and those where other networks are as near
    as the layer itself, are left out.
    """
    detection = record.read("detection")
    kept = detection[(detection["threshold"] == LEVELS[0]) & (detection["measure"] == measure)
                     & detection["noticed"].notna()]
    ranks = {key: set(of["rank"]) for key, of in group_curves(record.read("probes"))}
    found = {}
    for row in list_rows(kept):
        key: Curve = (read_part(row.part), str(row.network), str(row.site))
        lost = [r for r in ranks[key] if r <= float(row.probe_rank)]
        least = 0.0 if row.rank != row.rank else float(row.rank)
        found[key] = sum(r <= least for r in lost) / len(lost)
    return found


def group_curves(table: pd.DataFrame) -> Iterable[tuple[Curve, pd.DataFrame]]:
    """Yield the rows of each network and site of each part."""
    for key, of in table.groupby([table["part"].map(read_part), "network", "site"], sort=False):
        yield (str(key[0]), str(key[1]), str(key[2])), of


def list_rows(table: pd.DataFrame) -> list[Any]:
    """Return the rows of a table, whose columns are attributes."""
    return list(table.itertuples())


def read_part(given: Any) -> str:
    """Return the name of a part as it was before it was written: "" is missing in a file."""
    return "" if given != given else str(given)


def average_curves(found: Mapping[Curve, float], limits: tuple[float, float] = (-math.inf, math.inf)
                   ) -> NetworkMean:
    """Return the mean over networks of the mean over each one's curves."""
    return NetworkMean.of([sum(of) / len(of) for of in _list_by_network(found)], limits=limits)


def average_shares(found: Mapping[Curve, float]) -> NetworkMean:
    """Return the mean over networks of a share of each one's curves."""
    by_network = _list_by_network(found)
    return NetworkMean.of_shares([sum(of) / len(of) for of in by_network],
                                 max((len(of) for of in by_network), default=1))


def _list_by_network(found: Mapping[Curve, float]) -> list[list[float]]:
    """Return the known values of the curves of each network."""
    by_network: dict[str, list[float]] = {}
    for (_, network, _), value in found.items():
        if not math.isnan(value):
            by_network.setdefault(network, []).append(value)
    return list(by_network.values())


def judge_noticing(record: Record, measure: str) -> Outcome:
    """Judge that direct matching notices deletions that CKA does not."""
    index = next((name for name in CKA if has_measure(record, name)), CKA[-1])
    one, other = (collect_noticed(record, name) for name in (measure, index))
    both = [key for key in one if key in other]
    gap = average_curves({key: one[key] - other[key] for key in both}, DIFFERENCE)
    mine, theirs = (average_shares({key: of[key] for key in both}) for of in (one, other))
    label, held = get_measure(measure).label, gap.is_above(0.0)
    why = explain_open(held, gap) if both else (
        "no curve: the probe never changes, or other seeds are as near as the layer itself")
    return Outcome(f"{label} notices deletions of principal components that CKA does not.",
                   f"of the deletions that change the probe, {label} notices {mine.format()}, "
                   f"{get_measure(index).label} {theirs.format()}; difference {gap.format()}; "
                   f"{len(both)} of {len(list(group_curves(record.read('probes'))))} curves", held, why)


def collect_relative(record: Record, measure: str) -> dict[tuple[Curve, int], float]:
    """Return the relative accuracy of each curve and rank; that of the probe for "probe". No marked cells."""
    if measure == "probe":
        return {(key, int(row.rank)): float(row.accuracy) / float(of["accuracy"][of["rank"] ==
                                                                    of["width"]].iloc[0])
                for key, of in group_curves(record.read("probes")) for row in list_rows(of)}
    table = record.read("curves")
    kept = table[(table["measure"] == measure) & (table["mark"].isna() | (table["mark"] == ""))]
    return {(key, int(row.rank)): float(row.value) for key, of in group_curves(kept)
            for row in list_rows(of)}


def list_lost(record: Record) -> set[tuple[Curve, int]]:
    """Return the curves and ranks where the probe has changed (exact McNemar, Holm, 5 %)."""
    return {(key, int(row.rank)) for key, of in group_curves(record.read("probes"))
            for row in list_rows(of) if float(row.p_holm) < 0.05 and row.change < 0}


def judge_kept_accuracy(record: Record) -> Outcome:
    """Judge that task loss matching keeps an accuracy that a probe can no longer read."""
    probe, tlm, dm = (collect_relative(record, name) for name in ("probe", *ACCURACY.values()))
    lost = [at for at in list_lost(record) if at in tlm]

    def average(of: Mapping[tuple[Curve, int], float], less: Mapping[tuple[Curve, int], float] | None = None
                ) -> NetworkMean:
        by_curve: dict[Curve, list[float]] = {}
        for at in lost:
            if at in of:
                by_curve.setdefault(at[0], []).append(of[at] - (0.0 if less is None else less[at]))
        return average_curves({key: sum(v) / len(v) for key, v in by_curve.items()})

    gap, direct = average(tlm, probe), average(dm, probe)
    held = gap.is_above(0.0)
    return Outcome(
        "Task loss matching does not notice deletions: it keeps an accuracy that a linear probe can no "
        "longer read.",
        f"where deletions cost the probe accuracy, relative accuracy of the probe {average(probe).format()}, "
        f"TLM {average(tlm).format()}, DM {average(dm).format()}; TLM less probe {gap.format()}, DM less "
        f"probe {direct.format()}; {len(lost)} converged cells", held,
        explain_open(held, gap) if lost else "no deletion changes the probe where TLM has converged")


def tabulate_noticing(record: Record) -> pd.DataFrame:
    """Tabulate for each measure the share of deletions it notices, and its correlation with the probe."""
    import pandas as pd

    correlations, rows = record.read("correlations"), []
    for name in record.read("curves")["measure"].drop_duplicates():
        if "." in name and name.partition(".")[2] not in _SHOWN:
            continue
        of = correlations[correlations["measure"] == name]
        found = average_shares(collect_noticed(record, name))
        spearman = average_curves({key: float(rows_of["spearman"].mean())
                                   for key, rows_of in group_curves(of)}, DIFFERENCE)
        rows.append({"measure": get_measure(name).label, "noticed": found.format(),
                     "curves": len(collect_noticed(record, name)),
                     "Spearman with the probe": spearman.format()})
    return pd.DataFrame(rows)


def tabulate_accuracies(record: Record) -> pd.DataFrame:
    """Tabulate the relative accuracies of probes and stitched networks at each rank, means over networks."""
    import pandas as pd

    shown = {"probe": "probe", **{name: get_measure(name).label for name in ACCURACY.values()
                                  if has_measure(record, name)}}
    found = {name: collect_relative(record, name) for name in shown}
    rows: dict[tuple[str, str, int], dict[str, list[float]]] = {}
    for name, of in found.items():
        for ((part, _, site), rank), value in of.items():
            rows.setdefault((part, site, rank), {}).setdefault(name, []).append(value)
    return pd.DataFrame([{"part": part or "all", "site": site, "rank": rank} | {
        label: _format_mean(of.get(name, [])) for name, label in shown.items()}
        for (part, site, rank), of in rows.items()])


def _format_mean(values: Sequence[float]) -> str:
    known = [v for v in values if not math.isnan(v)]
    return f"{sum(known) / len(known):.2f} (n = {len(known)})" if known else "–"


def list_panels(record: Record) -> dict[str, list[Line]]:
    """Return the lines of each site: relative accuracies, and CKA of the cut with the whole."""
    names = ["probe", *(name for name in (*ACCURACY.values(), *CKA[:1]) if has_measure(record, name))]
    colours = {**_COLOURS, CKA[0]: "#ccbb44"}
    panels: dict[str, list[Line]] = {}
    for name in names:
        points: dict[str, dict[int, list[float]]] = {}
        for ((_, _, site), rank), value in collect_relative(record, name).items():
            points.setdefault(site, {}).setdefault(rank, []).append(value)
        label = "probe" if name == "probe" else get_measure(name).label
        for site, of in points.items():
            panels.setdefault(site, []).append(Line.of(label, of, colours[name]))
    return panels
