"""Intervals, p-values and power with the network as the unit."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from itertools import combinations, product

import numpy as np

from suture._base import expect
from suture.numbers import Floats, Ints

DRAWS = 2000
"""Draws of bootstraps and permutations."""
FEWEST = 3
"""Smallest number of networks that give an interval."""
LEVEL, ENOUGH_POWER = 0.05, 0.8
_TIE = 1e-6
"""Weight of what breaks ties of a statistic."""
_ROUNDING = 1e-12
_EXACT = 12
"""Largest number of networks whose signs are all tried."""
_SIGNS = 4095


def break_ties(statistic: Floats, finer: Floats) -> Floats:
    """Return statistics whose ties finer ones in [-1, 1] break, so that p-values are not coarse."""
    return statistic + _TIE * finer


def compare_with_null(found: float, null: Floats, whole: bool = False) -> float:
    """Return the share of a null (draws,) that reaches what was found; nan if that is nan.

    What was found counts as one more draw, unless the null is the `whole` list of its values.
    """
    if math.isnan(found):
        return math.nan
    beyond = int((null >= found - _ROUNDING).sum())
    return beyond / len(null) if whole else (1 + beyond) / (1 + len(null))


def list_groupings(n: int, first: int, seed: int = 0) -> tuple[Ints, bool]:
    """Return the ways to choose `first` of `n` networks, (ways, first): all of them, else `DRAWS` draws.

    Also True if they are all.
    """
    if math.comb(n, first) <= DRAWS:
        return np.array(list(combinations(range(n), first)), dtype=np.int64).reshape(-1, first), True
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(n)[:first] for _ in range(DRAWS)]), False


def draw_orders(networks: int, layers: int, seed: int = 0) -> Ints:
    """Draw orders of the layers of each network, each network on its own, (draws, networks, layers)."""
    whole = np.tile(np.arange(layers), (DRAWS, networks, 1))
    return np.random.default_rng(seed).permuted(whole, axis=2)


def average_known(values: Floats, axis: int | tuple[int, ...] | None = 0) -> Floats:
    """Return the mean along axes, or of all, of what is not nan; nan where nothing is."""
    counts = (~np.isnan(values)).sum(axis)
    return np.asarray(np.where(counts > 0, np.nansum(values, axis=axis) / np.maximum(counts, 1), np.nan))


def leave_each_out(networks: int, statistic: Callable[[Ints], float]) -> Floats:
    """Return a statistic of all networks but one, for each of them (networks,); nan for a single network."""
    if networks < 2:
        return np.full(networks, math.nan)
    return np.array([statistic(np.delete(np.arange(networks), k)) for k in range(networks)])


def bound(value: float, left_out: Floats, layers: int, least: float = 0.0, most: float = 1.0
          ) -> tuple[float, float, str]:
    """Return the 95 % interval of a statistic in [least, most], and the reason why there is none.

    It is Wilson's interval, with the number of trials that would make a share as variable as the statistic is
    over networks (jackknife), between the number of networks and that of networks times layers, and with
    Student's t for the normal deviate. So networks that all agree have no interval of width zero.

    Args:
        left_out: the statistic without each network, (networks,).
        layers: number of layers that one network was judged at.
    """
    from scipy import stats

    n = len(left_out)
    if math.isnan(value) or n < FEWEST or np.isnan(left_out).any():
        why = (f"{n} networks: an interval needs {FEWEST}" if n < FEWEST else
               "it has no value without some network")
        return math.nan, math.nan, "" if math.isnan(value) else why
    p = (value - least) / (most - least)
    variance = (n - 1) / n * float(((left_out - left_out.mean()) ** 2).sum()) / (most - least) ** 2
    trials = float(n)
    if 0 < p < 1:
        trials = min(max(p * (1 - p) / max(variance, _ROUNDING), n), n * max(1, layers))
    t = float(stats.t.ppf(0.975, n - 1))
    size = trials + t**2
    centre, half = (trials * p + t**2 / 2) / size, t / size * math.sqrt(trials * p * (1 - p) + t**2 / 4)
    low, high = (0.0 if p <= 0 else centre - half), (1.0 if p >= 1 else centre + half)
    return least + max(0.0, low) * (most - least), least + min(1.0, high) * (most - least), ""


def decide(p: float, power: float) -> bool | None:
    """Return True if a test has found its effect, False if it would have found it, else None."""
    if math.isnan(p):
        return None
    return True if p <= LEVEL else False if power >= ENOUGH_POWER else None


def flip_signs(values: Floats, seed: int = 0) -> float:
    """Return the one-sided p value of a mean above 0 when the sign of each network's value is a coin toss.

    All signs are tried for up to twelve networks, else they are drawn. The smallest p is 1 / 2^n.
    """
    n = len(values)
    expect(n > 0, "at least one value", n)
    if n <= _EXACT:
        signs = np.array(list(product((1.0, -1.0), repeat=n)))
    else:
        drawn = np.random.default_rng(seed).choice((1.0, -1.0), (_SIGNS, n))
        signs = np.vstack([np.ones(n), drawn])
    means = signs @ values
    return float((means >= means[0] - 1e-12 * np.abs(values).sum()).mean())


def find_mean_power(values: Floats, relevant: float, level: float) -> float:
    """Return the chance that a mean of `relevant` is found with the spread of these values (one-sided t).

    It is 0 if so few values allow no p below the level.
    """
    from scipy import stats

    n = len(values)
    if n < 2 or 0.5**n > level:
        return 0.0
    spread = float(np.std(values, ddof=1))
    if spread == 0:
        return 1.0
    critical = stats.t.ppf(1 - level, n - 1)
    return float(stats.nct.sf(critical, n - 1, relevant * math.sqrt(n) / spread))


@lru_cache(maxsize=64)
def find_share_power(trials: int, chance: float) -> float:
    """Return the power of the one-sided binomial test for a share halfway between chance and 1."""
    from scipy import stats

    reach = np.arange(trials + 2)
    critical = int(reach[stats.binom.sf(reach - 1, trials, chance) <= LEVEL][0])
    return float(stats.binom.sf(critical - 1, trials, (1 + chance) / 2))


@lru_cache(maxsize=64)
def find_correlation_power(points: int, rho: float, repeats: int = 1, draws: int = DRAWS) -> float:
    """Return the power of a one-sided test of the mean rank correlation of `points` pairs over repeats.

    By simulation of normal pairs with correlation `rho`; the critical value is that of unrelated ones.
    """
    if points < 3:
        return 0.0
    rng = np.random.default_rng(0)
    x = rng.normal(size=(draws, repeats, points))
    noise = rng.normal(size=x.shape)
    found = []
    for strength in (0.0, rho):
        y = strength * x + math.sqrt(1 - strength**2) * noise
        ranks = [of.argsort(-1).argsort(-1) - (points - 1) / 2 for of in (x, y)]
        found.append((ranks[0] * ranks[1]).sum(-1).mean(-1) / (ranks[0] ** 2).sum(-1).mean(-1))
    return _find_power(*found)


@lru_cache(maxsize=64)
def find_separation_power(first: int, second: int, area: float = 0.9, draws: int = DRAWS) -> float:
    """Return the power of a one-sided rank test of two samples of normal values with this AUROC."""
    from scipy.special import ndtri

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(draws, first, 1)), rng.normal(size=(draws, 1, second))
    shift = math.sqrt(2) * float(ndtri(area))
    return _find_power((x > y).mean((1, 2)), (x + shift > y).mean((1, 2)))


def _find_power(null: Floats, found: Floats) -> float:
    """Return how often a statistic passes the smallest value that its null reaches in at most 5 %."""
    values = np.unique(null.round(9))
    reached = (null.round(9)[None] >= values[:, None]).mean(1)
    fine = values[reached <= LEVEL]
    return float((found.round(9) >= fine[0]).mean()) if len(fine) else 0.0


def attenuate(rho: float, reliability: float) -> float:
    """Return what is left of the rank correlation `rho` where one side is so reliable (Spearman 1904)."""
    return rho * math.sqrt(max(0.0, min(1.0, reliability)))
