"""Negative controls: does a measure put noise, shuffled examples or a random network above a real layer?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from suture.numbers import Bools, Floats, Ints, get_measure
from suture.results import adjust_holm
from suture.studies.measure_tests.battery.layer_tests import missing
from suture.studies.measure_tests.network_statistics import (
    LEVEL,
    average_known,
    bound,
    compare_with_null,
    find_separation_power,
    leave_each_out,
    list_groupings,
)
from suture.studies.measure_tests.population_cells import PopulationCells
from suture.studies.measure_tests.record import TestOutcome

CONTROLS: Mapping[str, str] = {
    "random weights": "layers of the same network with random weights",
    "pure noise": "noise that holds nothing of an example",
    "class noise": "noise around a point for each class that another network predicts",
    "shuffled examples": "layers that see other examples than the target network",
}
"""Negative controls, and what they are. Each stands in the place of a real source network."""


@dataclass(frozen=True, eq=False)
class ControlValues:
    """Values of a control in the place of each network, (K, T, L), in the common form; nan if missing.

    Row k is the control that stands for network k; it has no value at target k.
    """

    kind: str
    values: Floats
    targets: tuple[int, ...]
    reason: str = ""


def check_control(cells: PopulationCells, control: ControlValues, seed: int = 0) -> TestOutcome:
    """Check that corresponding layers of trained networks are nearer than a control in their place.

    The effect is the probability that a real source network has the larger value, mean over layers and target
    networks. p is over all ways to call half of the sources real; a source keeps its values at all layers and
    targets. A layer is fooled if the control is above the real ones there (Holm over layers).
    """
    kind = control.kind
    real = np.stack([cells.corresponding[:, j] for j in control.targets], axis=1)
    both = np.concatenate([real, control.values])
    n = cells.n
    labels = np.zeros((1, 2 * n), bool)
    labels[0, :n] = True
    areas = _measure_areas(both, labels)[0]
    if np.isnan(areas).all():
        return missing(kind, cells, "AUROC", 0.5, control.reason or
                       ("it needs several networks, got 1" if n < 2 else "no layer has values to compare"))
    chosen, whole = list_groupings(2 * n, n, seed)
    drawn = np.zeros((len(chosen), 2 * n), bool)
    np.put_along_axis(drawn, chosen, True, axis=1)
    null = _measure_areas(both, drawn)
    value = float(average_known(areas, None))
    p = compare_with_null(value, average_known(null, 1), whole)
    above = adjust_holm(np.array([compare_with_null(1 - areas[k], 1 - null[:, k], whole)
                                  for k in range(cells.depth)]))
    fooled = [cells.layers[k] for k in range(cells.depth) if areas[k] < 0.5 and above[k] <= LEVEL]

    def without(kept: Ints) -> float:
        first = np.arange(2 * len(kept))[None] < len(kept)
        return float(average_known(_measure_areas(both[np.concatenate([kept, kept + n])], first), 1)[0])

    low, high, reason = bound(value, leave_each_out(n, without), cells.depth)
    judged = n if len(control.targets) > 1 else n - 1  # one target has no value with itself
    power = find_separation_power(judged, judged)
    beaten = [cells.layers[k] for k in range(cells.depth) if areas[k] <= 0.5]
    passed = False if fooled else True if p <= LEVEL and not beaten else None
    words = (f"fooled at {', '.join(fooled)}" if fooled else
             f"not above it at {', '.join(beaten)}" if beaten else "above it at every layer")
    return TestOutcome(kind, cells.measure, value, low, high, p, power, n, "AUROC", 0.5, passed,
                       f"{cells.label}: a trained network is nearer than {kind} with "
                       f"probability {value:.2f} (chance 0.50, p = {p:.2g} over labels of {2 * n} sources); "
                       f"{words}.", reason)


def _measure_areas(values: Floats, real: Bools) -> Floats:
    """Return the AUROC of real sources, (D, L), mean over targets, for labels (D, S) of values (S, T, L)."""
    from scipy.stats import rankdata

    known = ~np.isnan(values)
    ranks = np.where(known, rankdata(np.where(known, values, np.inf), axis=0), 0)
    share = real.astype(float)
    flat_ranks, flat_known = (of.reshape(len(values), -1) for of in (ranks, known.astype(float)))
    m, total = share @ flat_known, flat_known.sum(0)
    pairs = m * (total - m)
    sums = share @ flat_ranks - m * (m + 1) / 2
    areas = np.where(pairs > 0, sums / np.where(pairs > 0, pairs, 1), np.nan)
    areas = areas.reshape(len(real), *values.shape[1:])
    return average_known(areas, 1)


def find_mistaken_direction(cells: PopulationCells, noise: ControlValues | None) -> str:
    """Say that a measure scores a layer itself below noise, or below other layers; empty if it does not.

    Then it is a distance that was given as a similarity, or the other way round.
    """
    own = np.diagonal(cells.own, axis1=1, axis2=2)
    if np.isnan(own).all():
        return ""
    if noise is not None and not np.isnan(noise.values).all():
        other, words = float(average_known(noise.values, None)), "noise"
    else:
        apart = cells.own[:, ~np.eye(cells.depth, dtype=bool)]
        if cells.depth < 2 or np.isnan(apart).all() or (
                np.nanmean(own, axis=1) >= np.nanmin(apart, axis=1)).any():
            return ""
        other, words = float(average_known(apart, None)), "all other layers"
    mean = float(average_known(own, None))
    if mean >= other:
        return ""
    larger = get_measure(cells.measure).larger_is_more_similar
    return (f"it scores a layer itself below {words} ({mean:.3g} against {other:.3g}); is it a "
            f"{'distance' if larger else 'similarity'}? Write larger_is_more_similar={not larger}")
