"""Are networks that were made alike nearer to each other? Tests 3 to 5 of ReSi."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from suture.numbers import Floats
from suture.studies.measure_tests.battery.layer_tests import missing
from suture.studies.measure_tests.battery.rank_correlations import separate_pairs
from suture.studies.measure_tests.network_statistics import DRAWS, LEVEL, compare_with_null
from suture.studies.measure_tests.population_cells import PopulationCells
from suture.studies.measure_tests.record import TestOutcome
from suture.studies.network_study.group_contrast import count_groupings
from suture.studies.network_study.inference import NetworkPairs


def check_groups(cells: PopulationCells, labels: Sequence[object], by: str, seed: int = 0
                 ) -> tuple[TestOutcome, TestOutcome]:
    """Check that networks of one group are nearer to each other than to others: AUROC and average precision.

    Source: Klabunde et al. 2024, tests 3 (random labels), 4 (shortcut) and 5 (augmentation). Pairs of one
    group are the positive ones. Networks are resampled and permuted, never pairs.

    Args:
        labels: group of each network, (N,).
    """
    import pandas as pd

    pairs = NetworkPairs.of(pd.DataFrame(cells.corresponding[..., -1]))
    groups = np.unique([str(label) for label in labels], return_inverse=True)[1]
    same = (groups[pairs.a] == groups[pairs.b]).astype(float)
    chances = 0.5, float(same.mean()) if len(same) else math.nan
    names = tuple(zip((by, f"{by} (precision)"), ("AUROC", "average precision"), chances, strict=True))
    if not 0 < same.sum() < len(same):
        why = f"it needs pairs within and across groups of {by!r}"
        return tuple(missing(test, cells, unit, chance, why)
                     for test, unit, chance in names)  # type: ignore[return-value]
    rng = np.random.default_rng(seed)
    used = np.union1d(pairs.a, pairs.b)
    moved = np.tile(groups, (DRAWS, 1))
    moved[:, used] = rng.permuted(moved[:, used], axis=1)
    whole = np.ones((1, len(same)))
    null = separate_pairs(pairs.similarity, (moved[:, pairs.a] == moved[:, pairs.b]).astype(float),
                          np.broadcast_to(whole, (DRAWS, len(same))))
    found = separate_pairs(pairs.similarity, same[None], whole)
    least = max(1 / DRAWS, 1 / count_groupings(groups[used]))
    return tuple(_describe(cells, name, float(found[k][0]), null[k], pairs, same, k, least, seed)
                 for k, name in enumerate(names))  # type: ignore[return-value]


def _describe(cells: PopulationCells, name: tuple[str, str, float], value: float, null: Floats,
              pairs: NetworkPairs, same: Floats, number: int, least: float, seed: int) -> TestOutcome:
    test, unit, chance = name
    p = compare_with_null(value, null)
    low, high = pairs.bootstrap(
        lambda weights: float(separate_pairs(pairs.similarity, same[None], weights[None])[number][0]), seed)
    power = 0.0 if least > LEVEL else math.nan
    return TestOutcome(test, cells.measure, value, low, high, p, power, pairs.used, unit, chance,
                       True if p <= LEVEL else None,
                       f"{cells.label}: pairs of one group are found by similarity at {cells.layers[-1]} "
                       "with "
                       f"{unit} {value:.2f} (chance {chance:.2f}, p = {p:.2g} over permutations of "
                       f"{pairs.used} "
                       "networks).",
                       f"with so few networks p cannot fall below {least:.2g}" if least > LEVEL else
                       "too few networks for an interval" if math.isnan(low) else "")
