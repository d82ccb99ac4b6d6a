"""What a study says of its networks, with the network as the unit of every interval and test."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from suture._base import SutureError, expect
from suture.numbers import Floats, Ints, get_measure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

DRAWS = 2000
"""Draws of bootstraps and permutations."""
FEWEST = 3
"""Smallest number of networks that give an interval."""
_PAIRS_AT_ONCE = 1_000_000
"""Pairs of all permutations that are ranked at once, for memory."""
_UNDEFINED = 0.5
"""Largest share of draws of a bootstrap in which a statistic may be undefined."""


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
        and Borgatti 1999). Pairs of a network with itself do not occur. NaN with fewer than three networks,
        and where most draws do not have the pairs that the statistic needs: the few others are all alike.
        """
        if self.used < FEWEST:
            return math.nan, math.nan
        rng = np.random.default_rng(seed)
        known, found = np.union1d(self.a, self.b), []
        for _ in range(DRAWS):
            counts = np.zeros(self.networks)
            counts[known] = rng.multinomial(len(known), np.full(len(known), 1 / len(known)))
            weights = counts[self.a] * counts[self.b]
            found.append(statistic(weights) if weights.any() else math.nan)
        if np.isnan(found).mean() > _UNDEFINED:
            return math.nan, math.nan
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
                     "pairs": len(some.a), "reason": "" if not math.isnan(low) else
                     f"{some.used} networks: an interval needs {FEWEST}" if some.used < FEWEST else
                     f"{some.used} networks in {len(some.a)} pairs are too few for an interval"})
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
        low, high: its 95 % interval, a bootstrap over networks; nan with too few.
        p: share of permutations of the networks with a correlation as far from 0 (Mantel 1967).
        networks: number of networks.
        column: of what is said of the networks.
    """

    table: pd.DataFrame
    along: str
    measure: str
    rho: float
    low: float
    high: float
    p: float
    networks: int
    column: str

    @property
    def least_p(self) -> float:
        """The smallest p that so many networks allow: a mirrored order is the same trend."""
        return max(1 / DRAWS, 2 / math.factorial(min(self.networks, 20)))

    def __str__(self) -> str:
        strength = f"Spearman {self.rho:.2f}" + ("" if math.isnan(self.low) else
                                                 f" ({self.low:.2f} to {self.high:.2f})")
        return (f"{self.measure} along {self.along}: {strength}, p = {self.p:.2g} over permutations of "
                f"{self.networks} networks.")

    def plot(self, ax: Axes) -> Axes:
        """Draw the values over x, with their mean at each x that several pairs have."""
        from suture.results import embed_fonts

        ax.plot(self.table["x"], self.table["value"], "o", alpha=0.45, markeredgewidth=0, color="#4477aa")
        means = self.table.groupby("x")["value"].agg(["mean", "size"])
        if (means["size"] > 1).sum() > 1:
            ax.plot(means.index, means["mean"], "-", color="0.25", linewidth=1)
        embed_fonts(ax.get_figure(root=True))
        ax.set_xlabel(self.along, parse_math=False)
        ax.set_ylabel(get_measure(self.measure).label, parse_math=False)
        return ax


def find_trend(matrix: pd.DataFrame, numbers: Floats, along: str, measure: str, seed: int) -> Trend:
    """Find the trend over pairs of different networks; x is the distance of their numbers."""
    import pandas as pd

    pairs = NetworkPairs.of(matrix)
    pairs = pairs.select(~np.isnan(numbers[pairs.a]) & ~np.isnan(numbers[pairs.b]))
    if len(pairs.a) < FEWEST:
        raise SutureError(f"expected at least {FEWEST} pairs of networks with a number as {along!r}, got "
                          f"{len(pairs.a)}; write about={{name: {{{along!r}: ...}}}}")
    x = np.abs(numbers[pairs.a] - numbers[pairs.b])
    if len(set(x)) < 2 or len(set(pairs.similarity)) < 2:
        equal = "value" if len(set(x)) > 1 else f"difference in {along}"
        raise SutureError(f"expected pairs of networks that differ, got one {equal} for all {len(x)}; a "
                          "trend needs several")
    rho, low, high, p = correlate_pairs(pairs, np.abs(np.subtract.outer(numbers, numbers)), seed)
    names = matrix.index.to_numpy()
    table = pd.DataFrame({"source": names[pairs.a], "target": names[pairs.b], "x": x,
                          "value": pairs.similarity})
    return Trend(table, f"difference in {along}", measure, rho, low, high, p, pairs.used, along)


def correlate_pairs(pairs: NetworkPairs, other: Floats, seed: int = 0) -> tuple[float, float, float, float]:
    """Return Spearman's correlation of pairs with another matrix (N, N), its interval and p over networks.

    The interval is a bootstrap over networks; p is the share of permutations of the networks of the other
    matrix with a correlation as far from 0 (Mantel 1967). All are nan where either does not vary.
    """
    from scipy.stats import rankdata

    own, x = rankdata(pairs.similarity), other[pairs.a, pairs.b]

    def correlate(weights: Floats, one: Floats, two: Floats = own) -> float:
        a, b = (r - weights @ r / weights.sum() for r in (one, two))
        scale = math.sqrt(float((weights @ a**2) * (weights @ b**2)))
        return float(weights @ (a * b)) / scale if scale else math.nan

    whole, ranks = np.ones(len(x)), rankdata(x)
    rho = correlate(whole, ranks)
    if math.isnan(rho):
        return (math.nan,) * 4
    low, high = pairs.bootstrap(lambda weights: correlate(weights, ranks), seed)
    rng, beyond, left = np.random.default_rng(seed), 1, DRAWS - 1
    while left:
        count = min(left, max(1, _PAIRS_AT_ONCE // len(x)))
        beyond += int((np.abs(_correlate_permuted(pairs, other, own, count, rng)) >= abs(rho) - 1e-12).sum())
        left -= count
    return rho, low, high, beyond / DRAWS


def _correlate_permuted(pairs: NetworkPairs, other: Floats, own: Floats, count: int,
                        rng: np.random.Generator) -> Floats:
    """Return the correlations of the ranks `own` (n,) with as many permutations of a matrix over networks."""
    from scipy.stats import rankdata

    known, moved = np.union1d(pairs.a, pairs.b), np.tile(np.arange(len(other)), (count, 1))
    moved[:, known] = [rng.permutation(known) for _ in range(count)]
    drawn = moved[:, pairs.a], moved[:, pairs.b]
    if len(pairs.a) == math.comb(len(known), 2) and np.array_equal(other, other.T, equal_nan=True):
        whole = np.zeros(other.shape)  # permutations of all pairs move the ranks and change none
        whole[pairs.a, pairs.b] = whole[pairs.b, pairs.a] = rankdata(other[pairs.a, pairs.b])
        ranks = whole[drawn]
    else:
        ranks = rankdata(other[drawn], axis=1)
    a, b = ranks - ranks.mean(1, keepdims=True), own - own.mean()
    scale = np.sqrt((a**2).sum(1) * (b**2).sum())
    return np.asarray(np.divide(a @ b, scale, out=np.full(count, math.nan), where=scale > 0))
