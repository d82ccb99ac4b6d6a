"""Comparisons that were never computed: plausible numbers for the tests of results, verdict and report."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from suture.measures import MEASURES
from suture.results import COLUMNS, Comparison

HOSTILE = ("<script>alert(1)</script>", 'a"b\' onmouseover=x', "{{ 7 * 7 }}", "a,b\nc\rd", "$\\frac$", "nan",
           " ü ")


def comparison(sources: int = 4, targets: int = 4, *, same_network: bool = True,
               same_architecture: bool = True, hostile: bool = False, missing: bool = True,
               examples: int = 200, epochs: int = 8, seed: int = 0) -> Comparison:
    """Every measure on a sources x targets grid, larger near the diagonal; TLM high everywhere.

    With `missing`, the first cell's PWCCA, the second column's CKA and the whole of OPD have a reason instead
    of a value. With `hostile`, names are such as break HTML, CSV and mathtext.
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
         for i, s in enumerate(rows) for j, t in enumerate(columns) for name in MEASURES], columns=COLUMNS[:-1])
    network = HOSTILE[0] if hostile else "A"
    return Comparison(network, network if same_network else "B", tuple(rows), tuple(columns), same_network,
                      same_architecture, table, arrays, _meta(hostile, examples))


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
                "the representation is constant & <b>says nothing</b>"]
    return [source, target, name, value, low, high, examples, entry.direction, ""]


def _meta(hostile: bool, examples: int) -> dict[str, Any]:
    note = "TLM had not converged in 2 of 16 cells."
    if hostile:
        note = "<img src=http://evil.example/x onerror=alert(1)>"
    return {"versions": {"suture": "0.1.0", "torch": "2.4.0"}, "seed": 0, "command": "suture demo --fast",
            "settings": {"view": "pooled", "tlm": {"epochs": 8, "lr": 1e-3}}, "n_fit": 100,
            "n_test": examples,
            "created": "2025-01-01T00:00:00+00:00", "device": "cpu", "notes": [note],
            "stages": ["indices", "dm", "tlm"]}
