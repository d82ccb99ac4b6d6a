"""The sanity battery of the paper: a test if every layer is most similar to itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from suture._base import SutureError
from suture.numbers import RECORDS, Floats, Measure, get_measure, mcnemar
from suture.results.measured import Measured
from suture.results.standing import Standing, find_standing

if TYPE_CHECKING:
    import pandas as pd

SELF_COLUMNS = ("measure", "layers", "violated", "beyond_noise", "worst_margin", "worst_target",
                "worst_source", "undefined")
PAIR_COLUMNS = ("measure", "layers", "corresponding", "source_layers", "corresponding_by_source",
                "worst_margin", "worst_target", "worst_source", "undefined")

SIGNIFICANCE_LEVEL = 0.05
# Own-layer cells of structural measures are exact only up to the rounding of an eigensolver.
ROUNDING_TOLERANCE = 1e-9
# Divergences of softmax outputs are differences of float32 logarithms.
NATS_TOLERANCE = 1e-6
_HITS = {quantity: arrays[0] for quantity, arrays in RECORDS.items() if arrays[0] in ("correct", "agree")}
"""Quantities that count hits, with the array of the hits."""
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


@dataclass(frozen=True)
class _Contest:
    """Contest of a layer's own (or corresponding) partner with the most similar other one, the rival.

    Positions are along the axes of the matrix; `margin` is by how much the rival is more similar, `lost` says
    that this exceeds rounding, and `others` counts the other partners with a value.
    """

    layer: int
    own: int
    rival: int
    margin: float
    lost: bool
    others: int


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
    """
    import pandas as pd

    standing = find_standing(measured)
    gap, first = _describe_gap(measured, standing), [standing.line] * bool(standing.line)
    if not measured.corresponds:
        return Verdict(pd.DataFrame(columns=list(SELF_COLUMNS)), (*first,
            "The sanity battery does not apply: the networks differ in architecture, so no layer of one "
            "corresponds to a layer of the other.",), gap)
    rows, words = [], []
    judge_measure = _judge_itself if measured.same_network else _judge_pair
    for entry in map(get_measure, measured.measures):
        if entry.judged:
            values = measured.matrix(entry.name).to_numpy()
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
    tlm, dm = (measured.matrix(f"{method}.{by.quantity}").to_numpy() for method in ("tlm", "dm"))
    if not (tlm > dm).any():
        return ""
    i, j = map(int, np.unravel_index(int(np.nanargmax(tlm - dm)), tlm.shape))
    return (f"Task loss matching exceeds direct matching most for {measured.sources[i]} into "
            f"{measured.targets[j]}: {by.words} {tlm[i, j]:.3f} against {dm[i, j]:.3f}.")


def is_lost(row: Mapping[Any, Any]) -> bool:
    """Return True if a row of the sanity table says that another layer beats a layer's own counterpart."""
    return (bool(row["worst_source"])
            or row.get("corresponding_by_source", 0) < row.get("source_layers", 0))


def is_open(row: Mapping[Any, Any]) -> bool:
    """Return True if there was nothing to judge, in a row of the battery's table."""
    return not row["layers"] and not row.get("source_layers", 0)


def _judge_itself(entry: Measure, values: Floats, measured: Measured) -> tuple[_Row, list[str]]:
    contests = _find_contests(entry, values, measured.sources, measured.targets)
    lost = [c for c in contests if c.lost]
    examples = _find_outcomes(entry, values.shape, measured.arrays)
    clear = float("nan") if examples is None else float(_count_beyond_noise(lost, values, examples))
    row = {"layers": len(contests), "violated": len(lost), "beyond_noise": clear,
           **_find_worst(contests, measured)}
    if not contests:
        return row, ["no target layer has both its own value and that of another layer."]
    if not lost:
        return row, [f"every target layer is most similar to itself ({len(contests)} of {len(contests)})."]
    sentences = [f"another layer is more similar than the layer itself for {len(lost)} of {len(contests)} "
                 "target layers.", _describe_worst(row)]
    if examples is not None:
        test = "McNemar" if examples.dtype == np.bool_ else "Wilcoxon over texts"
        sentences.append(f"Beyond test-set noise: {clear:.0f} of {len(lost)} "
                         f"({test}, Holm, p < {SIGNIFICANCE_LEVEL}).")
    return row, sentences


def _judge_pair(entry: Measure, values: Floats, measured: Measured) -> tuple[_Row, list[str]]:
    contests = _find_contests(entry, values, measured.sources, measured.targets)
    by_source = _find_contests(entry, values.T, measured.targets, measured.sources)
    held, held_by_source = (sum(not c.lost for c in of) for of in (contests, by_source))
    row = {"layers": len(contests), "corresponding": held, "source_layers": len(by_source),
           "corresponding_by_source": held_by_source, **_find_worst(contests, measured)}
    if not contests and not by_source:
        return row, ["no layer has both the value of its corresponding layer and that of another one."]
    sentences = [f"the corresponding source layer is the most similar one for {held} of {len(contests)} "
                 "target layers.",
                 f"The corresponding target layer is the most similar one for {held_by_source} of "
                 f"{len(by_source)} source layers."]
    return row, [*sentences, _describe_worst(row)] if row["worst_source"] else sentences


def _find_contests(entry: Measure, values: Floats, partners: Sequence[str],
                   layers: Sequence[str]) -> list[_Contest]:
    """Find one contest per column of `values` (partners, layers) with an own and another value."""
    common = values if entry.larger_is_more_similar else -values
    tolerance = NATS_TOLERANCE if entry.functional else ROUNDING_TOLERANCE
    if entry.name.rpartition(".")[2] in _HITS:
        tolerance = 0.0
    found = []
    for j, layer in enumerate(layers):
        own = partners.index(layer) if layer in partners else -1
        others = [i for i in range(len(partners)) if i != own and not np.isnan(common[i, j])]
        if own >= 0 and others and not np.isnan(common[own, j]):
            rival = max(others, key=lambda i: common[i, j])
            margin = float(common[rival, j] - common[own, j])
            found.append(_Contest(j, own, rival, margin, margin > tolerance, len(others)))
    return found


def _find_worst(contests: list[_Contest], measured: Measured) -> _Row:
    worst = max((c for c in contests if c.lost), key=lambda c: c.margin, default=None)
    if worst is None:
        return {"worst_margin": 0.0, "worst_target": "", "worst_source": ""}
    return {"worst_margin": worst.margin, "worst_target": measured.targets[worst.layer],
            "worst_source": measured.sources[worst.rival]}


def _describe_worst(row: _Row) -> str:
    margin = row["worst_margin"]
    amount = f"{margin:.3f}" if margin >= 0.0005 else f"{margin:.1e}"
    return f"The largest margin is {amount}: {row['worst_source']} into {row['worst_target']}."


def _find_outcomes(entry: Measure, shape: tuple[int, ...],
                   arrays: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any] | None:
    """Return per-example outcomes (sources, targets, examples) of a functional measure, or None."""
    method, _, quantity = entry.name.partition(".")
    name = f"{method}.{_HITS.get(quantity, '')}"
    if not entry.functional or name not in arrays:
        return None
    outcomes = arrays[name]
    if outcomes.ndim != 3 or outcomes.shape[:2] != shape:
        raise SutureError(f"expected array {name!r} of shape (sources, targets, examples) = "
                          f"({shape[0]}, {shape[1]}, N), got {outcomes.shape}")
    return outcomes


def _compute_p_value(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """Compute the p value of equal (N,) outcomes in two cells: hits, or numbers of tokens."""
    from scipy import stats

    if one.dtype == np.bool_:
        return mcnemar(one, other)
    return float(stats.wilcoxon(one, other).pvalue) if (one != other).any() else 1.0


def _count_beyond_noise(lost: list[_Contest], values: Floats, outcomes: npt.NDArray[Any]) -> int:
    """Count the lost contests that survive Holm's (1979) procedure; larger `values` are more similar."""
    chances = []
    for contest in lost:
        own, column = outcomes[contest.own, contest.layer], values[:, contest.layer]
        smallest = min(_compute_p_value(own, outcomes[i, contest.layer]) for i in range(len(column))
                       if column[i] > column[contest.own])
        chances.append(min(1.0, smallest * contest.others))
    for done, chance in enumerate(sorted(chances)):
        if not chance * (len(chances) - done) < SIGNIFICANCE_LEVEL:
            return done
    return len(chances)
