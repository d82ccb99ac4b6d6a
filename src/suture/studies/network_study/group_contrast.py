"""How similar networks of one group are, against networks of different groups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from suture._base import expect
from suture.numbers import Bools, Floats, Ints
from suture.studies.network_study.inference import DRAWS, NetworkPairs

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class GroupContrast:
    """How similar networks of one group are to each other, against networks of different groups.

    Attributes:
        by: what the groups are of.
        measure: what the values are.
        same, different: mean over pairs within a group, and across groups.
        low, high: 95 % interval of same - different, a bootstrap over networks; nan with too few.
        p: share of permutations of the networks with a difference as far from 0.
        least_p: the smallest p that so many networks allow.
        networks: number of networks.
        pairs: numbers of pairs within a group, and across groups.
    """

    by: str
    measure: str
    same: float
    different: float
    low: float
    high: float
    p: float
    least_p: float
    networks: int
    pairs: tuple[int, int]

    @property
    def difference(self) -> float:
        """same - different."""
        return self.same - self.different


def contrast_groups(matrix: pd.DataFrame, labels: Sequence[object], by: str, measure: str, seed: int
                    ) -> GroupContrast:
    """Contrast pairs of equal and unequal labels; networks whose label is None or NaN are left out."""
    known = np.array([label is not None and label == label for label in labels], dtype=bool)
    groups = np.unique([str(label) for label in labels], return_inverse=True)[1]
    pairs = NetworkPairs.of(matrix)
    pairs = pairs.select(known[pairs.a] & known[pairs.b])
    used = np.union1d(pairs.a, pairs.b)
    equal = groups[pairs.a] == groups[pairs.b]
    expect(bool(equal.any() and not equal.all()), f"pairs within and across groups of {by!r}",
           f"{int(equal.sum())} within and {int((~equal).sum())} across")

    def contrast(weights: Floats, equal: Bools = equal) -> float:
        shares = weights * equal, weights * ~equal
        if not (shares[0].any() and shares[1].any()):
            return math.nan
        return float(np.subtract(*(share @ pairs.similarity / share.sum() for share in shares)))

    whole = np.ones(len(equal))
    found, rng, beyond = contrast(whole), np.random.default_rng(seed), 1
    for _ in range(DRAWS - 1):
        moved = groups.copy()
        moved[used] = groups[rng.permutation(used)]
        beyond += abs(contrast(whole, moved[pairs.a] == moved[pairs.b])) >= abs(found) - 1e-12
    low, high = pairs.bootstrap(contrast, seed)
    return GroupContrast(by, measure, float(pairs.similarity[equal].mean()),
                         float(pairs.similarity[~equal].mean()), low, high, beyond / DRAWS,
                         max(1 / DRAWS, 1 / count_groupings(groups[used])), len(used),
                         (int(equal.sum()), int((~equal).sum())))


def count_groupings(groups: Ints) -> int:
    """Return in how many ways networks can be put into groups of these sizes, whatever their names."""
    sizes = np.unique(groups, return_counts=True)[1].tolist()
    ways = math.factorial(sum(sizes))
    for size in sizes:
        ways //= math.factorial(size)
    for size in set(sizes):
        ways //= math.factorial(sizes.count(size))
    return ways
