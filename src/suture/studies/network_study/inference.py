"""What a study says of its networks, with the network as the unit of every interval and test."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from suture._base import SutureError, expect
from suture.numbers import Floats, Ints

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

DRAWS = 2000
"""Draws of bootstraps and permutations."""
FEWEST = 3
"""Smallest number of networks that give an interval."""


@dataclass(frozen=True, eq=False)
class NetworkPairs:
    """One number for each pair of different networks.

    Attributes:
        a, b: numbers of the networks (n,).
        similarity: the number of each pair (n,), not NaN.
        networks: number of networks.
    """

    a: Ints
    b: Ints
    similarity: Floats
    networks: int

    @classmethod
    def of(cls, matrix: pd.DataFrame) -> NetworkPairs:
        """Take the pairs of a matrix over networks; where both directions have a number, their mean."""
        found = matrix.to_numpy()
        both = np.stack([found, found.T])
        known = ~np.isnan(both)
        counts = known.sum(0)
        means = np.where(counts > 0, np.nansum(both, axis=0) / np.maximum(counts, 1), np.nan)
        a, b = np.nonzero(np.triu(counts > 0, 1))
        return cls(a, b, means[a, b], len(found))

    def select(self, chosen: np.ndarray) -> NetworkPairs:
        return NetworkPairs(self.a[chosen], self.b[chosen], self.similarity[chosen], self.networks)

    def average(self, weights: Floats) -> float:
        """Return the mean over pairs of weights (n,)."""
        return float(weights @ self.similarity / weights.sum())

    @property
    def used(self) -> int:
        """Number of networks in any pair."""
        return len(np.union1d(self.a, self.b))

    def bootstrap(self, statistic: Callable[[Floats], float], seed: int = 0) -> tuple[float, float]:
        """Return the 95 % interval of a statistic of pair weights (n,), over draws of networks.

        Networks are drawn with replacement; a pair counts as often as both of its networks together (Snijders
        and Borgatti 1999). Pairs of a network with itself do not occur. NaN with fewer than three networks.
        """
        if self.used < FEWEST:
            return math.nan, math.nan
        rng = np.random.default_rng(seed)
        known, found = np.union1d(self.a, self.b), []
        for _ in range(DRAWS):
            counts = np.zeros(self.networks)
            counts[known] = rng.multinomial(len(known), np.full(len(known), 1 / len(known)))
            weights = counts[self.a] * counts[self.b]
            if weights.any():
                found.append(statistic(weights))
        low, high = np.nanpercentile(found, [2.5, 97.5])
        return float(low), float(high)


def summarise_pairs(pairs: NetworkPairs, labels: list[object] | None, by: str, seed: int) -> pd.DataFrame:
    """Return the mean over pairs of different networks, in groups of equal and unequal labels if given.

    Columns ``group``, ``value``, ``low``, ``high``, ``networks``, ``pairs`` and ``reason``.
    """
    import pandas as pd

    groups = {"all pairs": np.ones(len(pairs.a), dtype=bool)}
    if labels is not None:
        equal = np.array([labels[i] == labels[j] for i, j in zip(pairs.a, pairs.b, strict=True)], dtype=bool)
        groups = {f"same {by}": equal, f"different {by}": ~equal}
    rows = []
    for name, chosen in groups.items():
        some = pairs.select(chosen)
        if not len(some.a):
            continue
        value = float(some.similarity.mean())
        low, high = some.bootstrap(some.average, seed)
        rows.append({"group": name, "value": value, "low": low, "high": high, "networks": some.used,
                     "pairs": len(some.a), "reason": "" if some.used >= FEWEST else
                     f"{some.used} networks: an interval needs {FEWEST}"})
    expect(bool(rows), "pairs of different networks with a value", "none")
    return pd.DataFrame(rows)


@dataclass(frozen=True, eq=False)
class Trend:
    """How the similarity of two networks changes with what is said of them.

    Attributes:
        table: one row for each pair: ``source``, ``target``, ``x``, ``value``.
        along: what x is.
        measure: what the values are.
        rho: rank correlation (Spearman) of x and value.
        low, high: its 95 % interval, a bootstrap over networks; nan with fewer than three.
        p: share of permutations of the networks with a correlation as far from 0 (Mantel 1967).
        networks: number of networks.
    """

    table: pd.DataFrame
    along: str
    measure: str
    rho: float
    low: float
    high: float
    p: float
    networks: int

    def __str__(self) -> str:
        strength = f"Spearman {self.rho:.2f}" + ("" if math.isnan(self.low) else
                                                 f" ({self.low:.2f} to {self.high:.2f})")
        return (f"{self.measure} along {self.along}: {strength}, p = {self.p:.2g} over permutations of "
                f"{self.networks} networks.")

    def plot(self, ax: Axes) -> Axes:
        """Draw the values over x."""
        ordered = self.table.sort_values("x")
        ax.plot(ordered["x"], ordered["value"], "o", alpha=0.7)
        ax.set_xlabel(self.along)
        ax.set_ylabel(self.measure)
        return ax


def find_trend(matrix: pd.DataFrame, numbers: Floats, along: str, measure: str, seed: int) -> Trend:
    """Find the trend over pairs of different networks; x is the distance of their numbers."""
    import pandas as pd
    from scipy.stats import rankdata

    pairs = NetworkPairs.of(matrix)
    pairs = pairs.select(~np.isnan(numbers[pairs.a]) & ~np.isnan(numbers[pairs.b]))
    if len(pairs.a) < FEWEST:
        raise SutureError(f"expected at least {FEWEST} pairs of networks with a number as {along!r}, got "
                          f"{len(pairs.a)}; write about={{name: {{{along!r}: ...}}}}")
    x = np.abs(numbers[pairs.a] - numbers[pairs.b])
    ranks = rankdata(x), rankdata(pairs.similarity)

    def correlate(weights: Floats, one: Floats = ranks[0], other: Floats = ranks[1]) -> float:
        a, b = (r - weights @ r / weights.sum() for r in (one, other))
        scale = math.sqrt(float((weights @ a**2) * (weights @ b**2)))
        return float(weights @ (a * b)) / scale if scale else math.nan

    whole = np.ones(len(x))
    rho = correlate(whole)
    if math.isnan(rho):
        equal = "value" if len(set(x)) > 1 else f"difference in {along}"
        raise SutureError(f"expected pairs of networks that differ, got one {equal} for all {len(x)}; a "
                          "trend needs several")
    low, high = pairs.bootstrap(correlate, seed)
    rng, beyond, known = np.random.default_rng(seed), 1, np.union1d(pairs.a, pairs.b)
    for _ in range(DRAWS - 1):
        moved = numbers.copy()
        moved[known] = numbers[rng.permutation(known)]
        beyond += abs(correlate(whole, rankdata(np.abs(moved[pairs.a] - moved[pairs.b])))) >= abs(rho) - 1e-12
    names = matrix.index.to_numpy()
    table = pd.DataFrame({"source": names[pairs.a], "target": names[pairs.b], "x": x,
                          "value": pairs.similarity})
    return Trend(table, f"difference in {along}", measure, rho, low, high, beyond / DRAWS, pairs.used)
