"""Marks of cells in which task loss matching has not converged.

Layers near the output converge first. Before the others have, a distant site can look more similar to a site
than that site itself. A mark is about the training objective: with longer training the test score of a marked
cell may rise or fall.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suture.networks import compute_rate_factor
from suture.representations import Cell
from suture.stitching.objective import TaskRecipe
from suture.stitching.training_state import Curves

LEAST_SHARE = 0.01
"""A curve still improves if the last fifth of training brought more than this share of its total fall. An
exponential curve that stops there has 1 % of its fall left."""
LEAST_FALL = 0.002
"""Smallest fall that counts as an improvement, in nats or shares of |T|²."""
TOLERANCE = 0.01
"""Largest difference by which an objective may exceed that of direct matching, in nats or shares of |T|²."""
OWN_LAYER_LEVEL = 0.98
"""Relative accuracy (or agreement) that an own-layer cell must reach. The identity reaches 1."""
_WINDOW = 4


def measure_improvement(curve: Sequence[float], rates: Sequence[float] | None = None) -> float | None:
    """Return the fall of a curve in the last fifth of training, as a share of its total fall.

    Epochs are weighted by their learning rates (any unit, default constant), because a schedule that ends at
    zero flattens every curve. The last fifth is the part with a fifth of the summed rates, and at least four
    epochs.

    Returns:
        A share between 0 and 1, or 1 for a single epoch. None if the fall is not above chance (Kendall's tau,
        one-sided, 5 %), or is at most `LEAST_FALL` or `LEAST_SHARE` of the total fall by the median slope
        (Theil-Sen).
    """
    from scipy import stats

    y = np.asarray(curve, dtype=np.float64)
    if len(y) < 2:
        return 1.0
    rate = np.ones(len(y)) if rates is None else np.asarray(rates, dtype=np.float64)
    rate = rate / rate.sum()
    t = np.cumsum(rate) - rate / 2
    first = min(int((t < 0.8).sum()), max(0, len(y) - _WINDOW))
    t, last = t[first:], y[first:]
    # Fewer than four epochs cannot pass the test against chance, so every fall counts as an improvement.
    if len(last) >= _WINDOW and not stats.kendalltau(t, last, alternative="less").pvalue < 0.05:
        return None
    slope, intercept, *_ = stats.theilslopes(last, t)
    fall, whole = -0.2 * slope, y[0] - (intercept + slope)
    if fall <= max(LEAST_FALL, LEAST_SHARE * whole):
        return None
    return float(min(1.0, fall / whole)) if whole > 0 else 1.0


def compute_epoch_rates(recipe: TaskRecipe) -> list[float]:
    """Return the learning rate in the middle of each epoch, relative to the peak rate."""
    return [compute_rate_factor(recipe.schedule, k + 0.5, recipe.epochs) for k in range(recipe.epochs)]


def find_unconverged(curves: Curves, recipe: TaskRecipe, *, own: Mapping[str, float] | None = None,
                     ends: Mapping[Cell, float] | None = None, matched: Mapping[Cell, float] | None = None,
                     targets: Sequence[str] = ()) -> dict[Cell, str]:
    """Return a mark for each cell that has not converged; failed cells have none.

    A mark lists one or more reasons with their numbers, separated by "; ":

    - one epoch: a single epoch cannot show convergence.
    - still improving (`measure_improvement`): the held-out curve with early stopping, else the training loss.
      A layer that stopped early is not improving.
    - own layer not reached: in self-stitching, the identity solves the own-layer cell. If training stays
      below `OWN_LAYER_LEVEL` there, the other cells of its column cannot be trusted either.
    - above direct matching: direct matching found a layer of the same family with a lower objective.

    Args:
        curves, recipe: of the training.
        own: if both networks are one, the value of each target site's own layer (`collect_own_layers`).
        ends, matched: objectives on the fitting data of the layers of training and of direct matching.
        targets: names of the target sites, needed with `own`.
    """
    rates = compute_epoch_rates(recipe)
    found: dict[Cell, str] = {}
    for key, loss in curves.loss.items():
        cell = key[0], key[1]
        if cell in curves.failed:
            continue
        why = [] if cell in curves.stopped else _explain_improvement(curves.held_out.get(cell, loss), rates)
        reached = own.get(targets[cell[1]], 1.0) if own else 1.0
        if reached < OWN_LAYER_LEVEL:
            why.append(f"own layer not reached: the own-layer cell of this target reaches {reached:.3f} of "
                       "the target network, where the identity gives 1")
        mine, other = (ends or {}).get(cell, math.nan), (matched or {}).get(cell, math.nan)
        if mine > other + TOLERANCE:
            why.append(f"above direct matching: the objective ends at {mine:.4g}, direct matching's layer "
                       f"has {other:.4g}")
        if why:
            found[cell] = "; ".join(why)
    return found


def _explain_improvement(curve: Sequence[float], rates: Sequence[float]) -> list[str]:
    share = measure_improvement(curve, rates[:len(curve)])
    if share is None:
        return []
    return ["one epoch: a single epoch cannot show convergence" if len(curve) < 2 else
            f"still improving: the last fifth of training brought {share:.1%} of the whole fall "
            "of the objective"]


def merge_marks(runs: Sequence[Mapping[Cell, str]]) -> dict[Cell, str]:
    """Return the marks of all cells from those of each initialisation; see `find_unconverged`.

    A cell is marked if any of its initialisations is. The text of the first one stands for all.
    """
    found: dict[Cell, str] = {}
    for cell in dict.fromkeys(cell for marks in runs for cell in marks):
        texts: dict[str, list[str]] = {}
        for cause, _, text in (part.partition(": ") for marks in runs
                               for part in marks.get(cell, "").split("; ") if part):
            texts.setdefault(cause, []).append(text)
        found[cell] = "; ".join(
            f"{cause}: {of[0]}" if of == of[:1] * len(runs) else
            f"{cause}: in {len(of)} of {len(runs)} initialisations, {of[0]}" for cause, of in texts.items())
    return found


def collect_own_layers(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return the relative accuracy (without labels: agreement) of own-layer cells in result rows, by site."""
    found: dict[str, dict[str, float]] = {}
    for r in rows:
        if r["source"] == r["target"] and not r["reason"]:
            found.setdefault(r["measure"], {})[r["target"]] = r["value"]
    return found.get("tlm.agreement", {}) | found.get("tlm.relative_accuracy", {})


def stack_curves(curves: Curves, shape: tuple[int, int], epochs: int,
                 method: str = "tlm") -> dict[str, NDArray[np.float32]]:
    """Return curves as arrays: ``METHOD.loss``, ``METHOD.train_accuracy``, and ``METHOD.held_out`` if any.

    They are (sources, targets, epochs), with nan after a cell has stopped or failed.
    """
    named = {f"{method}.loss": curves.loss, f"{method}.train_accuracy": curves.accuracy}
    if curves.held_out:
        named[f"{method}.held_out"] = curves.held_out
    arrays = {name: np.full((*shape, epochs), np.nan, dtype=np.float32) for name in named}
    for name, of in named.items():
        for cell, values in of.items():
            arrays[name][cell][:len(values)] = values
    return arrays
