"""Has task loss matching converged? What the curves say, and two yardsticks: the own-layer cell and direct
matching.

A half-trained grid looks like a finding: layers near the output need little and get there first, so that
distant layers seem more similar to a layer than the layer itself. Cells that have not converged are therefore
marked.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suture.networks import compute_rate_factor
from suture.representations import Cell
from suture.stitching.recipe import TaskRecipe
from suture.stitching.trainer import Curves

LEAST_SHARE = 0.01
"""A layer is still improving where the last fifth of training brought more than this share of the whole fall.
An exponential that stops there has 1 % of its fall before it."""
LEAST_FALL = 0.002
"""Falls below this, in nats or shares of |T|², are no improvement, whatever their share."""
TOLERANCE = 0.01
"""By how much, in nats or shares of |T|², an objective must end above direct matching's."""
OWN_LAYER_LEVEL = 0.98
"""Relative accuracy (or agreement) that an own-layer cell, where the identity gives 1, has to reach."""
_WINDOW = 4


def measure_improvement(curve: Sequence[float], rates: Sequence[float] | None = None) -> float | None:
    """By which share of its whole fall a curve fell over the last fifth of training, if it is still
    improving.

    Looked at are the last fifth of the epochs, at least four. Their order has to be more of a fall than
    chance makes of noise (Kendall's tau, one-sided, 5 %), and what the median slope (Theil-Sen) brings in a
    fifth of training has to be more than `LEAST_SHARE` of the fall from the first epoch to the end, and than
    `LEAST_FALL`. Epochs are counted by their learning rate: a schedule that ends at zero stops every curve
    from falling, so that its last fifth is the one in which the rate adds up to a fifth of the whole.

    Args:
        curve: an objective for each epoch, smaller is better.
        rates: relative learning rate of each epoch. Default: constant.

    Returns:
        The share, between 0 and 1; None where the curve is flat, noise, or rising; 1 for a single epoch,
        which shows nothing.
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
    # Fewer than four epochs are never more than chance: there every fall counts.
    if len(last) >= _WINDOW and not stats.kendalltau(t, last, alternative="less").pvalue < 0.05:
        return None
    slope, intercept, *_ = stats.theilslopes(last, t)
    fall, whole = -0.2 * slope, y[0] - (intercept + slope)
    if fall <= max(LEAST_FALL, LEAST_SHARE * whole):
        return None
    return float(min(1.0, fall / whole)) if whole > 0 else 1.0


def compute_epoch_rates(recipe: TaskRecipe) -> list[float]:
    """The learning rate in the middle of each epoch, relative to its peak."""
    return [compute_rate_factor(recipe.schedule, k + 0.5, recipe.epochs) for k in range(recipe.epochs)]


def find_unconverged(curves: Curves, recipe: TaskRecipe, *, own: Mapping[str, float] | None = None,
          ends: Mapping[Cell, float] | None = None, matched: Mapping[Cell, float] | None = None,
          targets: Sequence[str] = ()) -> dict[Cell, str]:
    """Why cells have not converged; those that have, and those that failed, are left out.

    A mark is one or several of these, separated by "; ", each with its numbers behind ": ":

    - one epoch: nothing shows that a second one would not help.
    - still improving (`measure_improvement`): by the held-out curve where there is early stopping, else by
      the training loss. A layer that stopped early is not.
    - own layer not reached: in self-stitching the identity solves the own-layer cell of a target site; where
      training does not find it (`OWN_LAYER_LEVEL`), the other cells of that column are no more trustworthy.
    - above direct matching: the layer of direct matching lies in the family that was trained over, and is
      better.

    Args:
        curves: of the training.
        recipe: of the training.
        own: in self-stitching, what the own-layer cell of each target site reaches, by name
            (`collect_own_layers`).
        ends: objective of the trained layers on the fitting data.
        matched: of direct matching's, of the same family, on the same data.
        targets: names of the target sites, where `own` is given.
    """
    rates = compute_epoch_rates(recipe)
    found: dict[Cell, str] = {}
    for cell, loss in curves.loss.items():
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
    if len(curve) < 2:
        return ["one epoch: a single epoch cannot show convergence"]
    share = measure_improvement(curve, rates[:len(curve)])
    if share is None:
        return []
    return [f"still improving: the last fifth of training brought {share:.1%} of the whole fall "
            "of the objective"]


def collect_own_layers(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """What the own-layer cells of self-stitching reach, by site: relative accuracy, or agreement without
    labels.

    Args:
        rows: of a result table.
    """
    found: dict[str, dict[str, float]] = {}
    for r in rows:
        if r["source"] == r["target"] and not r["reason"]:
            found.setdefault(r["measure"], {})[r["target"]] = r["value"]
    return found.get("tlm.agreement", {}) | found.get("tlm.relative_accuracy", {})


def mark_rows(rows: Iterable[dict[str, Any]], sources: Sequence[str], targets: Sequence[str],
              found: Mapping[Cell, str]) -> None:
    """Set the mark of all that task loss matching measured in a cell (`find_unconverged`), in a result
    table's rows."""
    named = {(sources[i], targets[j]): mark for (i, j), mark in found.items()}
    for r in rows:
        if r["measure"].startswith("tlm."):
            r["mark"] = named.get((r["source"], r["target"]), "")


def stack_curves(curves: Curves, shape: tuple[int, int], epochs: int) -> dict[str, NDArray[np.float32]]:
    """The curves as arrays (sources, targets, epochs), nan after the end of a cell that stopped or failed.

    Returns:
        ``tlm.loss``, ``tlm.train_accuracy`` and, with early stopping, ``tlm.held_out``.
    """
    named = {"loss": curves.loss, "train_accuracy": curves.accuracy, "held_out": curves.held_out}
    arrays = {}
    for name, of in named.items():
        if name == "held_out" and not of:
            continue
        array = np.full((*shape, epochs), np.nan, dtype=np.float32)
        for (i, j), values in of.items():
            array[i, j, :len(values)] = values
        arrays[f"tlm.{name}"] = array
    return arrays
