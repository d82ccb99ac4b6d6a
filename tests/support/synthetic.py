"""Comparisons that were never computed: plausible numbers for the tests of results, verdict and report."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from suture.indices import DEFAULT
from suture.numbers.intervals import Estimate
from suture.numbers.measures import MEASURES, get_measure
from suture.ood import NaturalRange, ShiftRange
from suture.results.comparison import Comparison
from suture.results.measured import COLUMNS

HOSTILE = ("<script>alert(1)</script>", 'a"b\' onmouseover=x', "{{ 7 * 7 }}", "a,b\nc\rd", "$\\frac$", "nan",
           " ü ")

NEAR = ("natural_distance", "informational_residual", "strict_residual")
NAMES = [name for name, entry in MEASURES.items()
         if (entry.functional or "." in name or name in DEFAULT) and not name.endswith(NEAR)]
"""What a comparison has by default."""


def comparison(sources: int = 4, targets: int = 4, *, same_network: bool = True,
               same_architecture: bool = True, hostile: bool = False, missing: bool = True,
               examples: int = 200, epochs: int = 8, seed: int = 0,
               detectors: tuple[str, ...] = ()) -> Comparison:
    """Every measure on a sources x targets grid, larger near the diagonal; TLM high everywhere.

    With `missing`, the first cell's PWCCA, the second column's CKA and the whole of OPD have a reason instead
    of a value. With `hostile`, names are such as break HTML, CSV and mathtext. With `detectors`, there are
    their scores, and natural distances by which TLM's representations are artefacts and DM's are natural near
    the diagonal; the last target site has no natural range.
    """
    rng = np.random.default_rng(seed)
    names = [f"layer{i // 2 + 1}.{i % 2}" for i in range(max(sources, targets))]
    if hostile:
        names = [*HOSTILE, *names][:len(names)]
    rows, columns = names[:sources], names[:targets]
    near = np.exp(-np.abs(np.subtract.outer(np.arange(sources), np.arange(targets))) / 3)
    target_correct = rng.random(examples) < 0.95
    arrays: dict[str, np.ndarray] = {"target.correct": target_correct}
    for method, chance in (("dm", near), ("tlm", 0.93 + 0.05 * rng.random(near.shape))):
        lucky = rng.random((sources, targets, examples)) < chance[:, :, None]
        arrays[f"{method}.correct"] = lucky & target_correct
        arrays[f"{method}.agree"] = lucky
    for (i, j), _ in np.ndenumerate(near):
        arrays[f"dm.weight/{i}/{j}"] = rng.standard_normal((3, 2)).astype(np.float32)
    arrays["tlm.loss"] = 2.3 * np.exp(-np.arange(epochs) / 3) + 0.05 * rng.random((*near.shape, epochs))
    table = pd.DataFrame(
        [_row(name, s, t, i, j, near, arrays, examples, missing, rng)
         for i, s in enumerate(rows) for j, t in enumerate(columns) for name in NAMES], columns=COLUMNS)
    network = HOSTILE[0] if hostile else "A"
    made = Comparison(network, network if same_network else "B", tuple(rows), tuple(columns), same_network,
                      same_architecture, table, arrays, _meta(hostile, examples))
    return with_scores(made, near, detectors, seed) if detectors else made


def with_scores(made: Comparison, near: np.ndarray, detectors: tuple[str, ...], seed: int) -> Comparison:
    """The comparison with rows, arrays and meta of detectors."""
    rng = np.random.default_rng(seed + 1)
    shape, examples, reached = near.shape, len(made.arrays["target.correct"]), np.ones(near.shape[1])
    reached[-1:] = 0.05
    arrays, rows, quality = dict(made.arrays), [], {}
    for name in detectors:
        native = rng.standard_normal((shape[1], examples))
        outside = {kind: rng.standard_normal((shape[1], 50)) - far * reached[:, None]
                   for kind, far in (("auxiliary", 4), ("unseen", 5))}
        arrays |= {f"{kind}.{name}": scores.astype(np.float32) for kind, scores in outside.items()}
        arrays[f"native.{name}"] = native.astype(np.float32)
        quality[name] = [{kind + side: how(native[j], outside[kind][j]) for kind in outside
                          for side, how in (("", _two_sided), ("_one_sided", _auroc))}
                         for j in range(shape[1])]
        for method, far in (("dm", 8 * (1 - near)), ("tlm", np.full(shape, 4.0))):
            scores = (native[None] - far[:, :, None]
                      + (far[:, :, None] > 0) * rng.standard_normal((*shape, examples)))
            arrays[f"{method}.score_{name}"] = scores.astype(np.float32)
            rows += [[s, t, f"{method}.{what}_{name}", value, max(value - 0.03, 0), min(value + 0.03, 1),
                      examples, get_measure(f"{method}.{what}_{name}").direction, "", ""]
                     for i, s in enumerate(made.sources) for j, t in enumerate(made.targets)
                     for what, value in (("ood", _two_sided(native[j], scores[i, j])),
                                         ("auroc", _auroc(native[j], scores[i, j])), ("ap", 0.7),
                                         ("fpr95", 0.4))]
    arrays |= {f"{method}.residual_p": np.zeros(shape) for method in ("dm", "tlm")}
    rows += [row for method in ("dm", "tlm") for i, s in enumerate(made.sources)
             for j, t in enumerate(made.targets)
             for row in _near_rows(method, s, t, near[i, j], j == shape[1] - 1, examples)]
    about = {"range": _range(shape[1]).as_record(), "classes": "labels",
             "positive": "native representations; larger scores are more in-distribution",
             "thresholds": {"works": 0.8}, "quality": quality,
             "auxiliary": "made from the data: 50 examples of <i>noise</i>", "unseen": "given: 50 examples"}
    return replace(made,
                   table=pd.concat([made.table, pd.DataFrame(rows, columns=COLUMNS)], ignore_index=True),
                   arrays=arrays, meta=made.meta | {"ood": about})


def _near_rows(method: str, source: str, target: str, near: float, last: bool,
               examples: int) -> list[list[Any]]:
    far = 1.3 * (1 - near) if method == "dm" else 3.0
    none = "no natural range: the network works under no shift" if last else ""
    return [[source, target, f"{method}.{name}", np.nan if gone else value, np.nan if gone else 0.9 * value,
             np.nan if gone else 1.1 * value, examples, "smaller", gone, ""]
            for name, value, gone in (("natural_distance", far, none),
                                      ("informational_residual", 0.9 * (1 - near), ""),
                                      ("strict_residual", 2 * (1 - near), ""))]


def _range(sites: int) -> NaturalRange:
    """A natural range in which the network works under no shift at the last site."""
    here, gone = Estimate(0.4, 0.3, 0.5), Estimate(np.nan, reason="the network works under no shift")
    return NaturalRange("shifts/1", 200, 0.8, 32, tuple(
        ShiftRange(name, Estimate(0.5, 0.4, 0.6), breaks, (*[here] * (sites - 1), gone))
        for name, breaks in (("<b>noise</b>", True), ("contrast up", False))))


def _auroc(native: np.ndarray, other: np.ndarray) -> float:
    return float((native[:, None] > other).mean() + (native[:, None] == other).mean() / 2)


def _two_sided(native: np.ndarray, other: np.ndarray) -> float:
    """How far out in the native distribution others lie, 1 at its ends; 0.5 for others like the native
    ones."""
    share = (native[:, None] < other).mean(0) + (native[:, None] == other).mean(0) / 2
    return float(np.abs(2 * share - 1).mean())


def _row(name: str, source: str, target: str, i: int, j: int, near: np.ndarray, arrays: dict[str, np.ndarray],
         examples: int, missing: bool, rng: np.random.Generator) -> list[Any]:
    entry = MEASURES[name]
    method, _, quantity = name.partition(".")
    low = high = float("nan")
    if quantity and not entry.larger_is_more_similar:
        value = float(1.2 - near[i, j]) if method == "dm" else float(1 + 30 * rng.random())
    elif quantity == "r2":
        value = float(near[i, j]) if method == "dm" else float(-30 * rng.random())
    elif quantity:
        outcomes = arrays[f"{method}.{'agree' if quantity == 'agreement' else 'correct'}"][i, j]
        base = float(arrays["target.correct"].mean()) if quantity == "relative_accuracy" else 1.0
        value = float(outcomes.mean()) / base
        low, high = value - 0.02, value + 0.02
    else:
        value = float(near[i, j] * (0.9 + 0.1 * rng.random()))
        value = value if entry.larger_is_more_similar else 2 * (1 - value)
    gone = missing and ((name == "pwcca" and i == j == 0) or (name == "cka" and j == 1) or name == "opd")
    if gone:
        return [source, target, name, float("nan"), float("nan"), float("nan"), examples, entry.direction,
                "the representation is constant & <b>says nothing</b>", ""]
    return [source, target, name, value, low, high, examples, entry.direction, "", ""]


def _meta(hostile: bool, examples: int) -> dict[str, Any]:
    note = "TLM had not converged in 2 of 16 cells."
    if hostile:
        note = "<img src=http://evil.example/x onerror=alert(1)>"
    return {"versions": {"suture": "0.1.0", "torch": "2.4.0"}, "seed": 0, "command": "suture demo --fast",
            "settings": {"view": "pooled", "tlm": {"epochs": 8, "lr": 1e-3}}, "n_fit": 100,
            "n_test": examples,
            "created": "2025-01-01T00:00:00+00:00", "device": "cpu", "notes": [note],
            "stages": ["indices", "dm", "tlm"]}
