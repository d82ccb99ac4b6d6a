"""Claims of the paper, and what our numbers say of each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from suture.studies.measure_tests.network_statistics import bound, leave_each_out

FEWEST = 3
"""Networks below which nothing is decided: an interval over two has no use."""
MOST_MARKED = 0.5
"""Share of cells whose training has not converged from which on task loss matching decides nothing."""
DIFFERENCE = (-1.0, 1.0)
"""Limits of a difference of two shares, and of a correlation."""
WORDS = {True: "holds", False: "does not hold", None: "cannot be decided with this much data"}


@dataclass(frozen=True)
class Outcome:
    """What our numbers say of one claim.

    Attributes:
        claim: what the paper says, in our words.
        measured: our number, with interval and n.
        holds: True, False, or None where it cannot be decided.
        why: the likely reason, or why it cannot be decided.
        headline: number of the paper's headline claim that it belongs to; 0 for none.
        brief: of a headline claim, our number in a few words.
    """

    claim: str
    measured: str
    holds: bool | None
    why: str = ""
    headline: int = 0
    brief: str = ""

    @property
    def word(self) -> str:
        return WORDS[self.holds]

    @property
    def reason(self) -> str:
        """The likely reason; of a claim that does not hold it is unknown if no other is given."""
        return self.why or ("the reason is unknown" if self.holds is False else "")


@dataclass(frozen=True)
class Headline:
    """What our numbers say of one of the paper's headline claims, which has several parts.

    Attributes:
        claim: in our words.
        parts: names of experiments and what they found.
    """

    claim: str
    parts: tuple[tuple[str, Outcome], ...]

    @property
    def word(self) -> str:
        """Such as ``holds``, or ``holds in 2 of 4 parts, does not hold in 2 of 4``."""
        found = [outcome.holds for _, outcome in self.parts]
        if len(set(found)) == 1:
            return WORDS[found[0]]
        counts = {WORDS[holds]: found.count(holds) for holds in WORDS}
        return ", ".join(f"{word} in {n} of {len(found)} parts" for word, n in counts.items() if n)

    @property
    def numbers(self) -> str:
        """The parts in a few words each."""
        return "; ".join(f"{name} {outcome.brief} ({'open' if outcome.holds is None else outcome.word})"
                         for name, outcome in self.parts)


_HEADLINES = {
    1: "TLM finds some layers more similar to a layer than itself; DM does not",
    2: "TLM's representations are out of distribution, and DM's are not",
    3: "Structural indices and DM agree on corresponding layers, and TLM does not"}


def list_headlines(outcomes: Mapping[str, Sequence[Outcome]]) -> list[Headline]:
    """Return the headline claims of which something is known, from outcomes by experiment."""
    found = [Headline(claim, tuple((name, outcome) for name, of in outcomes.items() for outcome in of
                                   if outcome.headline == number)) for number, claim in _HEADLINES.items()]
    return [headline for headline in found if headline.parts]


@dataclass(frozen=True)
class NetworkMean:
    """The mean of a number over networks, with its 95 % interval.

    The interval is Student's; of shares it is the one of `bound`, which stays within 0 and 1 and has a width
    also where all networks agree.

    Attributes:
        each: its values of each network, or pair of networks.
        networks: how many different networks they rest on.
        left_out: of a share: its mean without each network, whose spread is that over networks.
        trials: of a share: number of layers or cells that one network's is over.
        limits: lowest and highest possible value, which the interval keeps to.
    """

    each: tuple[float, ...]
    networks: int
    left_out: tuple[float, ...] = ()
    trials: int = 1
    limits: tuple[float, float] = (-math.inf, math.inf)

    @classmethod
    def of(cls, values: Iterable[Any], networks: int | None = None,
           limits: tuple[float, float] = (-math.inf, math.inf)) -> NetworkMean:
        known = tuple(float(v) for v in values if not math.isnan(float(v)))
        return cls(known, len(known) if networks is None else networks, limits=limits)

    @classmethod
    def of_shares(cls, values: Iterable[float], trials: int = 1) -> NetworkMean:
        """Return the mean of a share of each network, of which each is over `trials` layers or curves."""
        known = [float(v) for v in values if not math.isnan(v)]
        left_out = leave_each_out(len(known), lambda kept: float(np.mean(np.take(known, kept))))
        return cls(tuple(known), len(known), tuple(left_out), max(1, trials))

    @property
    def mean(self) -> float:
        return float(np.mean(self.each)) if self.each else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end; nan for fewer than three networks."""
        from scipy import stats

        n = min(len(self.each), self.networks)
        if n < FEWEST:
            return math.nan, math.nan
        if self.left_out:
            return bound(self.mean, np.array(self.left_out), self.trials)[:2]
        half = float(stats.t.ppf(0.975, n - 1)) * float(np.std(self.each, ddof=1)) / math.sqrt(n)
        return max(self.mean - half, self.limits[0]), min(self.mean + half, self.limits[1])

    def is_above(self, limit: float) -> bool | None:
        """Return True or False if the whole interval lies above or below a limit, else None."""
        low, high = self.interval
        return True if low > limit else False if high < limit else None

    def format(self, digits: int = 2, unit: str = "networks") -> str:
        """Format mean, interval and n, as in ``0.95 (95 % interval 0.93 to 0.97, 3 networks)``."""
        low, high = self.interval
        if math.isnan(self.mean):
            return "no value"
        known = "" if math.isnan(low) else f"95 % interval {low:.{digits}f} to {high:.{digits}f}, "
        return f"{self.mean:.{digits}f} ({known}{len(self.each)} {unit})"


def decide_for_each(found: Sequence[bool | None]) -> bool | None:
    """Return what all networks agree on; None where they differ, one is open, or there are too few."""
    if len(found) < FEWEST or None in found or len(set(found)) > 1:
        return None
    return found[0]


def list_words(words: Sequence[str]) -> str:
    """Join words as in ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
