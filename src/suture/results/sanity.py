"""The sanity battery of the paper: a test if every layer is most similar to itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from suture._base import escape_controls
from suture.numbers import Bools, Floats, Measure, get_measure
from suture.results.inference.noise import (
    HITS,
    SIGNIFICANCE_LEVEL,
    Contest,
    choose_test,
    count_beyond_noise,
    find_chance_of_rivals,
)
from suture.results.measured import Measured, take_cells
from suture.results.standing import Standing, find_standing

if TYPE_CHECKING:
    import pandas as pd

SELF_COLUMNS = ("measure", "layers", "violated", "beyond_noise", "marked", "worst_margin",
                "worst_target", "worst_source", "undefined")
PAIR_COLUMNS = ("measure", "layers", "corresponding", "source_layers", "corresponding_by_source",
                "marked", "worst_margin", "worst_target", "worst_source", "undefined")

# Own-layer cells of structural measures are exact only up to the rounding of an eigensolver.
ROUNDING_TOLERANCE = 1e-9
# Divergences of softmax outputs are differences of float32 logarithms.
NATS_TOLERANCE = 1e-6
_Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Verdict:
    """Verdict of the sanity battery on one comparison.

    Attributes:
        table: one row per measure, with columns `SELF_COLUMNS` (a network stitched to itself) or
            `PAIR_COLUMNS` (two networks of one architecture). Empty where the battery does not apply.
        words: one text per row of the table; for an empty table, one text with the reason. Before them comes
            `first`, if there is such a line.
        gap: sentence on the cell where task loss matching exceeds direct matching most; empty if there is
            none. A large gap is the paper's warning: the layer solves the task with a representation unlike
            the target's.
    """

    table: pd.DataFrame
    words: tuple[str, ...]
    gap: str = ""

    @property
    def first(self) -> str:
        """The line to read before all else (`suture.results.standing.Standing`); empty if there is none."""
        return self.words[0] if len(self.words) > max(1, len(self.table)) else ""

    def __repr__(self) -> str:
        """Return the words, one measure a line, and the gap."""
        return "\n".join(map(escape_controls, filter(None, [*self.words, self.gap])))

    def _repr_html_(self) -> str | None:
        from suture.results.notebook import render_verdict, show_in_notebook

        return show_in_notebook(lambda: render_verdict(self))


def run_sanity_battery(measured: Measured) -> Verdict:
    """Run the sanity battery of Balogh and Jelasity (AAAI 2025) on the cells of one comparison.

    For a network stitched to itself, ``violated`` counts the target layers to which another source layer is
    more similar than the layer itself. ``beyond_noise`` counts those for which this is significant on the
    test set, in three steps:

    1. Exact two-sided McNemar tests compare the layer with every more similar one, by hits per example (on
       the label; for agreement, on the target's prediction). The smallest p value is kept.
    2. It is multiplied by the number of other layers (Bonferroni), because the rival was chosen after
       looking.
    3. Holm's procedure runs over the violated layers, p < 0.05.

    For language models, hits are numbers of tokens. Tokens of one text are dependent, so signed-rank tests
    over texts (Wilcoxon 1945) replace McNemar's. The smallest p value of a bootstrap would be too large to
    survive the corrections. ``beyond_noise`` is NaN for measures without results per example.

    For two networks of one architecture, ``corresponding`` counts the target layers, of ``layers``, whose
    most similar source layer is the corresponding one (a tie counts). ``corresponding_by_source`` counts the
    source layers, of ``source_layers``, whose most similar target layer is the corresponding one.

    ``worst_margin`` is the largest amount (in the measure's units; 0 if none) by which a source layer
    (``worst_source``) is more similar to a target layer (``worst_target``) than the own or corresponding one.
    Margins up to 1e-9 (structural measures) or 1e-6 nats (divergences) are rounding. Layers without an own
    value, or without any other, are not counted. ``undefined`` counts the cells without a value.

    ``marked`` counts the layers whose outcome rests on marked cells (`Comparison.marks`), such as cells whose
    training has not converged. ``beyond_noise`` leaves them out, and is NaN where they are all layers; the
    text then makes no claim. Several initialisations are tested by t tests over examples and initialisations.
    """
    import pandas as pd

    standing = find_standing(measured)
    gap, first = _describe_gap(measured, standing), [standing.line] * bool(standing.line)
    if not measured.corresponds:
        return Verdict(pd.DataFrame(columns=list(SELF_COLUMNS)), (*first,
            "The sanity battery does not apply: the sites of the two networks are not the same layers of one "
            "architecture, so none of one corresponds to one of the other.",), gap)
    rows, words = [], []
    judge_measure = _judge_itself if measured.same_network else _judge_pair
    for entry in map(get_measure, measured.measures):
        if entry.judged:
            values = take_cells(measured, entry.name)
            row, sentences = judge_measure(entry, values, measured)
            row |= {"measure": entry.name, "undefined": int(np.isnan(values).sum())}
            if row["undefined"]:
                sentences.append(f"No value: {row['undefined']} of {values.size} cells.")
            rows.append(row)
            words.append(" ".join([f"{entry.label}: {sentences[0]}", *sentences[1:]]))
    columns = SELF_COLUMNS if measured.same_network else PAIR_COLUMNS
    return Verdict(pd.DataFrame(rows, columns=list(columns)), (*first, *words), gap)


def _describe_gap(measured: Measured, standing: Standing) -> str:
    by = standing.criteria.get("dm")
    if by is None or by.smaller or standing.flaw or standing.criteria.get("tlm") is None:
        return ""
    names = [f"{method}.{by.quantity}" for method in ("tlm", "dm")]
    tlm, dm = (take_cells(measured, name) for name in names)
    if not (tlm > dm).any():
        return ""
    i, j = map(int, np.unravel_index(int(np.nanargmax(tlm - dm)), tlm.shape))
    mark = next((m for name in names if (m := str(take_cells(measured, name, "mark")[i, j]))), "")
    return (f"Task loss matching exceeds direct matching most for {measured.sources[i]} into "
            f"{measured.targets[j]}: {by.words} {tlm[i, j]:.3f} against {dm[i, j]:.3f}."
            + (f" That cell is marked ({mark})." if mark else ""))


def is_lost(row: Mapping[Any, Any]) -> bool:
    """Return True if a row of the sanity table says that another layer beats a layer's own counterpart."""
    return not is_open(row) and (
        bool(row["worst_source"])
            or row.get("corresponding_by_source", 0) < row.get("source_layers", 0))


def is_open(row: Mapping[Any, Any]) -> bool:
    """Return True if a row of the sanity table makes no claim: no layer is judged without marked cells."""
    return bool(row["marked"] == row["layers"] + row.get("source_layers", 0))


def _judge_itself(entry: Measure, values: Floats, measured: Measured) -> tuple[_Row, list[str]]:
    marked = take_cells(measured, entry.name, "mark") != ""
    contests = find_contests(measured, entry.name)
    lost = [c for c in contests if c.lost]
    sure = [c for c in lost if not c.marked]
    test = choose_test(entry, values.shape, measured)
    on_marked = sum(c.marked for c in contests)
    open_ = bool(contests) and on_marked == len(contests)
    clear = (float("nan") if test is None or open_
             else float(count_beyond_noise(sure, np.where(marked, np.nan, values), test)))
    row = {"layers": len(contests), "violated": len(lost), "beyond_noise": clear, "marked": on_marked,
           **_find_worst(contests, measured)}
    if not contests:
        return row, ["no target layer has both its own value and that of another layer."]
    if open_:
        return row, [_refuse_claim(entry, f"{len(contests)} target layers")]
    if not lost:
        return row, [f"every target layer is most similar to itself ({len(contests)} of {len(contests)}).",
                     *_describe_marked(contests)]
    sentences = [f"another layer is more similar than the layer itself for {len(lost)} of {len(contests)} "
                 "target layers.", *_describe_marked(lost), _describe_worst(lost, row)]
    if test is not None and sure:
        sentences.append(f"Beyond {test.noise}: {clear:.0f} of {len(sure)} "
                         f"({test.name}, Holm, p < {SIGNIFICANCE_LEVEL}).")
    return row, sentences


def _judge_pair(entry: Measure, values: Floats, measured: Measured) -> tuple[_Row, list[str]]:
    marked = take_cells(measured, entry.name, "mark") != ""
    contests = find_contests(measured, entry.name)
    by_source = _find_contests(entry, values.T, marked.T, measured.targets, measured.sources)
    held, held_by_source = (sum(not c.lost for c in of) for of in (contests, by_source))
    both = [*contests, *by_source]
    row = {"layers": len(contests), "corresponding": held, "source_layers": len(by_source),
           "corresponding_by_source": held_by_source, "marked": sum(c.marked for c in both),
           **_find_worst(contests, measured)}
    if not both:
        return row, ["no layer has both the value of its corresponding layer and that of another one."]
    if all(c.marked for c in both):
        return row, [_refuse_claim(entry, f"{len(contests)} target and {len(by_source)} source layers")]
    sentences = [f"the corresponding source layer is the most similar one for {held} of {len(contests)} "
                 "target layers.",
                 f"The corresponding target layer is the most similar one for {held_by_source} of "
                 f"{len(by_source)} source layers.", *_describe_marked(both)]
    lost = [c for c in contests if c.lost]
    return row, [*sentences, _describe_worst(lost, row)] if lost else sentences


def tabulate_contests(measured: Measured, name: str) -> pd.DataFrame:
    """Tabulate the contest of each target layer by one measure, for corresponding layers.

    Returns:
        A row for each target layer: ``target``, ``rival`` (the most similar other source site), ``margin`` by
        which it is more similar, ``lost`` if that exceeds rounding, ``marked`` if the outcome rests on marked
        cells, and ``p`` of a lost and unmarked contest, times the number of other layers (Bonferroni). `p` is
        NaN for measures without results per example.
    """
    import pandas as pd

    entry, values = get_measure(name), take_cells(measured, name)
    clear = np.where(take_cells(measured, name, "mark") != "", np.nan, values)
    test = choose_test(entry, values.shape, measured)
    rows = [{"target": measured.targets[c.layer], "rival": measured.sources[c.rival], "margin": c.margin,
             "lost": c.lost, "marked": c.marked,
             "p": find_chance_of_rivals(c, clear if entry.larger_is_more_similar else -clear, test)
             if c.lost and not c.marked and test is not None else np.nan}
            for c in find_contests(measured, name)]
    return pd.DataFrame(rows, columns=["target", "rival", "margin", "lost", "marked", "p"])


def _refuse_claim(entry: Measure, layers: str) -> str:
    return f"no claim: the outcome for all {layers} rests on marked cells; see marks({entry.name!r})."


def _describe_marked(contests: Sequence[Contest]) -> list[str]:
    """Return a sentence on the contests that rest on marked cells, if there are any."""
    count = sum(c.marked for c in contests)
    verb = "rests" if count == 1 else "rest"
    return [f"Of these {len(contests)}, {count} {verb} on marked cells."] if count else []


def find_contests(measured: Measured, name: str) -> list[Contest]:
    """Find the contests of the target layers by one measure: with itself, or the source layer of its name."""
    return _find_contests(get_measure(name), take_cells(measured, name),
                          take_cells(measured, name, "mark") != "", measured.sources, measured.targets)


def _find_contests(entry: Measure, values: Floats, marked: Bools, partners: Sequence[str],
                   layers: Sequence[str]) -> list[Contest]:
    """Find one contest per column of `values` (partners, layers) with an own and another value."""
    common = values if entry.larger_is_more_similar else -values
    tolerance = NATS_TOLERANCE if entry.functional else ROUNDING_TOLERANCE
    if entry.name.rpartition(".")[2] in HITS:
        tolerance = 0.0
    found = []
    for j, layer in enumerate(layers):
        own = partners.index(layer) if layer in partners else -1
        others = [i for i in range(len(partners)) if i != own and not np.isnan(common[i, j])]
        if own >= 0 and others and not np.isnan(common[own, j]):
            rival = max(others, key=lambda i: common[i, j])
            margin = float(common[rival, j] - common[own, j])
            lost = margin > tolerance
            above = [i for i in others if common[i, j] - common[own, j] > tolerance]
            doubtful = all(marked[i, j] for i in above) if lost else any(marked[i, j] for i in others)
            found.append(Contest(j, own, rival, margin, lost, len(others), bool(marked[own, j] or doubtful)))
    return found


def _find_worst(contests: list[Contest], measured: Measured) -> _Row:
    worst = max((c for c in contests if c.lost), key=lambda c: c.margin, default=None)
    if worst is None:
        return {"worst_margin": 0.0, "worst_target": "", "worst_source": ""}
    return {"worst_margin": worst.margin, "worst_target": measured.targets[worst.layer],
            "worst_source": measured.sources[worst.rival]}


def _describe_worst(lost: Sequence[Contest], row: _Row) -> str:
    margin = row["worst_margin"]
    on_marked = next(c.marked for c in lost if c.margin == margin)
    amount = f"{margin:.3f}" if margin >= 0.0005 else f"{margin:.1e}"
    return (f"The largest margin is {amount}: {row['worst_source']} into {row['worst_target']}"
            + (" (marked)." if on_marked else "."))
