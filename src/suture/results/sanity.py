"""The sanity battery of the paper: it tests if every layer is most similar to itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from suture._base import SutureError
from suture.numbers import Floats, Measure, get_measure, mcnemar, sort_measures

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
_OUTCOME_ARRAYS = {"accuracy": "correct", "relative_accuracy": "correct", "agreement": "agree"}


@dataclass(frozen=True, eq=False)
class Verdict:
    """Verdict of the sanity battery on one comparison.

    Attributes:
        table: one row per measure, columns `SELF_COLUMNS` (a network stitched to itself) or `PAIR_COLUMNS`
            (two networks of one architecture); empty when the battery does not apply.
        words: one quotable sentence per row of the table; for an empty table one sentence with the reason.
        gap: sentence about the cell in which task loss matching exceeds direct matching most; empty without
            both methods, or without such a cell. A large gap is the paper's warning: the task is solved with
            a representation that is not the target's.
    """

    table: pd.DataFrame
    words: tuple[str, ...]
    gap: str = ""


@dataclass(frozen=True)
class _Contest:
    """Contest between a layer's own (corresponding) partner and the best other one.

    Its numbers are positions along the axes of the matrix.
    """

    layer: int
    own: int
    rival: int
    margin: float
    """Amount by which the rival looks more similar than the own partner; negative when it does not."""
    others: int

    def is_lost(self, entry: Measure) -> bool:
        return self.margin > _get_tolerance(entry)


def _get_tolerance(entry: Measure) -> float:
    if entry.name.rpartition(".")[2] in _OUTCOME_ARRAYS:
        return 0.0
    return NATS_TOLERANCE if entry.functional else ROUNDING_TOLERANCE


def run_sanity_battery(table: pd.DataFrame, sources: Sequence[str], targets: Sequence[str], *,
                       same_network: bool,
                       same_architecture: bool, arrays: Mapping[str, npt.NDArray[Any]]) -> Verdict:
    """Run the sanity battery of Balogh and Jelasity (AAAI 2025) on the cells of one comparison.

    A network stitched to itself (`same_network`): a target layer is *violated* when some other source layer
    is strictly more similar to it than the layer itself. ``violated`` counts these layers. ``beyond_noise``
    counts those that the test set can tell from chance, by three steps:

    1. Exact two-sided McNemar tests compare the correctness of the stitched networks (for agreement, their
    agreement with the target). Each layer gets the smallest p value among the layers that look more similar.
    2. That p value is multiplied by the number of other layers (Bonferroni), because the rival was chosen
    after looking.
    3. Holm's procedure runs over the violated layers, p < 0.05.

    For language models, per-example results are numbers of tokens. Signed-rank tests over texts (Wilcoxon
    1945) then replace McNemar's. Tokens of a text are no independent draws, and the smallest p value of a
    bootstrap is too large to survive the corrections. ``beyond_noise`` is NaN where per-example results are
    missing, and where there is nothing to count: structural measures, KL, cross-entropy gap
    (`Comparison.difference` tests those in pairs).

    Two networks of one architecture: ``corresponding`` counts the target layers to which the corresponding
    source layer is the most similar one (a tie counts), of ``layers``. ``corresponding_by_source`` counts the
    source layers to which the corresponding target layer is, of ``source_layers``.

    In both cases ``worst_margin`` is the largest amount (native units, 0 when none) by which another source
    layer (``worst_source``) is more similar to a target layer (``worst_target``) than the own or
    corresponding one. Layers without an own value, or without any other, are left out of the counts.
    ``undefined`` is the number of cells that have no value. Structural measures have a tolerance of 1e-9,
    divergences one of 1e-6 nats, counts none.

    Args:
        table: columns ``source, target, measure, value`` at least, one row per cell and measure.
        sources, targets: site names; layers with the same name correspond.
        same_network: the source network is the target network.
        same_architecture: site names of the two networks mean the same layer.
        arrays: may hold ``"<method>.correct"`` and ``"<method>.agree"``, bool or numbers of tokens, of shape
            (sources, targets, examples).

    Raises:
        SutureError: a per-example array has another shape.
    """
    gap = _describe_gap(table, sources, targets)
    if not (same_network or same_architecture):
        return Verdict(_make_frame([], SELF_COLUMNS), (
            "The sanity battery does not apply: the networks differ in architecture, so no layer of one "
            "corresponds to a layer of the other.",), gap)
    columns = SELF_COLUMNS if same_network else PAIR_COLUMNS
    row, say = (_make_self_row, _describe_self) if same_network else (_make_pair_row, _describe_pair)
    present = set(table["measure"])
    rows, words = [], []
    for name in sort_measures(present):
        entry = get_measure(name)
        if not entry.judged:
            continue
        values = _collect_values(table, name, sources, targets)
        record = row(entry, values, sources, targets, arrays)
        rows.append(record)
        words.append(
            f"{entry.label}: {say(record)}{_describe_missing(int(record['undefined']), values.size)}.")
    return Verdict(_make_frame(rows, columns), tuple(words), gap)


def _describe_gap(table: pd.DataFrame, sources: Sequence[str], targets: Sequence[str]) -> str:
    tlm, dm = (_collect_values(table, f"{m}.relative_accuracy", sources, targets) for m in ("tlm", "dm"))
    if not (tlm > dm).any():
        return ""
    i, j = map(int, np.unravel_index(int(np.nanargmax(tlm - dm)), tlm.shape))
    return (f"Task loss matching exceeds direct matching most for {sources[i]} into {targets[j]}: relative "
            f"accuracy {tlm[i, j]:.3f} against {dm[i, j]:.3f}.")


def _make_frame(rows: list[dict[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows, columns=list(columns))


def _collect_values(table: pd.DataFrame, name: str, sources: Sequence[str], targets: Sequence[str]) -> Floats:
    """Collect native values (sources, targets), NaN where a cell has none."""
    import pandas as pd

    cells = table[table["measure"] == name].set_index(["source", "target"])["value"]
    cells = cells.reindex(pd.MultiIndex.from_product([sources, targets]))
    return cells.to_numpy(dtype=np.float64).reshape(len(sources), len(targets))


def _orient_values(entry: Measure, values: Floats) -> Floats:
    return values if entry.larger_is_more_similar else -values


def _find_contests(common: Floats, partners: Sequence[str], layers: Sequence[str]) -> list[_Contest]:
    """Find one contest per column of `common` (partners, layers) with an own value and some other value."""
    found = []
    for j, layer in enumerate(layers):
        if layer not in partners:
            continue
        own = partners.index(layer)
        others = [i for i in range(len(partners)) if i != own and not np.isnan(common[i, j])]
        if np.isnan(common[own, j]) or not others:
            continue
        rival = max(others, key=lambda i: common[i, j])
        found.append(_Contest(j, own, rival, float(common[rival, j] - common[own, j]), len(others)))
    return found


def _find_worst(entry: Measure, contests: list[_Contest], sources: Sequence[str],
                targets: Sequence[str]) -> dict[str, Any]:
    lost = [c for c in contests if c.is_lost(entry)]
    if not lost:
        return {"worst_margin": 0.0, "worst_target": "", "worst_source": ""}
    worst = max(lost, key=lambda c: c.margin)
    return {"worst_margin": worst.margin, "worst_target": targets[worst.layer],
            "worst_source": sources[worst.rival]}


def _make_self_row(entry: Measure, values: Floats, sources: Sequence[str], targets: Sequence[str],
                   arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
    contests = _find_contests(_orient_values(entry, values), sources, targets)
    lost = [c for c in contests if c.is_lost(entry)]
    examples = _find_outcomes(entry, values.shape, arrays)
    clear = float("nan") if examples is None else float(_count_beyond_noise(lost, values, examples))
    test = "McNemar" if examples is None or examples.dtype == np.bool_ else "Wilcoxon over texts"
    return {"measure": entry.name, "layers": len(contests), "violated": len(lost), "beyond_noise": clear,
            "test": test,
            **_find_worst(entry, contests, sources, targets), "undefined": int(np.isnan(values).sum())}


def _make_pair_row(entry: Measure, values: Floats, sources: Sequence[str], targets: Sequence[str],
                   arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
    common = _orient_values(entry, values)
    contests, by_source = _find_contests(common, sources, targets), _find_contests(common.T, targets, sources)
    return {"measure": entry.name,
            "layers": len(contests), "corresponding": sum(not c.is_lost(entry) for c in contests),
            "source_layers": len(by_source),
            "corresponding_by_source": sum(not c.is_lost(entry) for c in by_source),
            **_find_worst(entry, contests, sources, targets), "undefined": int(np.isnan(values).sum())}


def _find_outcomes(entry: Measure, shape: tuple[int, ...],
                   arrays: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any] | None:
    """Return per-example outcomes (sources, targets, examples) of a functional measure, or None."""
    method, _, quantity = entry.name.partition(".")
    name = f"{method}.{_OUTCOME_ARRAYS.get(quantity, '')}"
    if not entry.functional or name not in arrays:
        return None
    outcomes = arrays[name]
    if outcomes.ndim != 3 or outcomes.shape[:2] != shape:
        raise SutureError(f"expected array {name!r} of shape (sources, targets, examples) = "
                          f"({shape[0]}, {shape[1]}, N), got {outcomes.shape}")
    return outcomes


def _compute_p_value(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """Compute the p value of no difference between (N,) outcomes of two cells: hits, or numbers of tokens."""
    from scipy import stats

    if one.dtype == np.bool_:
        return mcnemar(one, other)
    return float(stats.wilcoxon(one, other).pvalue) if (one != other).any() else 1.0


def _count_beyond_noise(lost: list[_Contest], values: Floats, outcomes: npt.NDArray[Any]) -> int:
    """Count lost contests that the examples can tell from chance; larger `values` are more similar."""
    chances = []
    for contest in lost:
        own = outcomes[contest.own, contest.layer]
        column = values[:, contest.layer]
        smallest = min(_compute_p_value(own, outcomes[i, contest.layer]) for i in range(len(column))
                       if column[i] > column[contest.own])
        chances.append(min(1.0, smallest * contest.others))
    return _holm(chances)


def _holm(chances: list[float]) -> int:
    """Count the hypotheses that Holm's (1979) step-down procedure rejects at `SIGNIFICANCE_LEVEL`."""
    for done, chance in enumerate(sorted(chances)):
        if not chance * (len(chances) - done) < SIGNIFICANCE_LEVEL:
            return done
    return len(chances)


def _format_count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _describe_worst(row: dict[str, Any]) -> str:
    margin = float(row["worst_margin"])
    amount = f"{margin:.3f}" if margin >= 0.0005 else f"{margin:.1e}"
    return f"{amount}: {row['worst_source']} into {row['worst_target']}"


def _describe_missing(undefined: int, cells: int) -> str:
    if not undefined:
        return ""
    return f"; {undefined} of {_format_count(cells, 'cell')} {'has' if undefined == 1 else 'have'} no value"


def _describe_self(row: dict[str, Any]) -> str:
    layers, violated = int(row["layers"]), int(row["violated"])
    if not layers:
        return "nothing to judge, no target layer has its own value and that of another layer"
    if not violated:
        return f"no layer looks more similar to a layer than itself ({_format_count(layers, 'layer')})"
    text = (f"for {violated} of {_format_count(layers, 'target layer')} another layer looks more similar "
            f"than the layer itself (by up to {_describe_worst(row)})")
    if np.isnan(row["beyond_noise"]):
        return text
    clear = int(row["beyond_noise"])
    who = f"{clear or 'none'} of these {'are' if clear > 1 else 'is'}"
    if violated == 1:
        who = f"this is{'' if clear else ' not'}"
    return f"{text}; {who} beyond test-set noise ({row['test']}, Holm, p < {SIGNIFICANCE_LEVEL})"


def _describe_pair(row: dict[str, Any]) -> str:
    layers, by_source = int(row["layers"]), int(row["source_layers"])
    if not layers and not by_source:
        return "nothing to judge, no layer has its corresponding value and that of another layer"
    text = (f"for {row['corresponding']} of {_format_count(layers, 'target layer')} the corresponding source "
            f"layer is the most similar one, and for {row['corresponding_by_source']} of "
            f"{_format_count(by_source, 'source layer')} the corresponding target layer is")
    if not row["worst_source"]:
        return text
    return f"{text} (another source layer looks more similar by up to {_describe_worst(row)})"
