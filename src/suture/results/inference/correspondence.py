"""Which layers of two networks correspond, and how well a measure finds them, against chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from suture._base import expect, make_unknown_error
from suture.numbers import Floats, get_measure
from suture.results.measured import Measured, take_cells

Correspond = Literal["name", "order"] | Mapping[str, str] | None
"""By name, by order, or each target site with its source site; None: by name if the sites are alike."""
_DRAWS = 2000


@dataclass(frozen=True)
class Correspondence:
    """The rank of corresponding layers by one measure.

    Attributes:
        measure: its name.
        how: "name", "order" or "given".
        layers: number of target sites that have a corresponding source site and values, none of them marked.
        nearest: for how many of them it is the most similar source site; a tie is none.
        rank: mean rank of the corresponding source site, 1 is best, of ties their mean; nan without layers.
        low, high: its 95 % interval, a bootstrap over target sites; nan for a single one.
        chance: mean rank by chance.
        p: probability of as many nearest ones or more if source sites were drawn at random.
    """

    measure: str
    how: str
    layers: int
    nearest: int
    rank: float
    low: float
    high: float
    chance: float
    p: float


def pair_sites(measured: Measured, correspond: Correspond = None) -> tuple[str, dict[int, int]]:
    """Return how sites correspond, and for each target site (number) its source site.

    A single target site has no place in an order, and corresponds to none.

    Raises:
        SutureError: a site that the comparison does not have, or asked for by name without a common one.
    """
    sources, targets = measured.sources, measured.targets
    if isinstance(correspond, Mapping):
        for kind, given, names in (("target", correspond.keys(), targets),
                                   ("source", correspond.values(), sources)):
            odd = next((name for name in given if name not in names), None)
            if odd is not None:
                raise make_unknown_error(f"{kind} site", str(odd), names)
        return "given", {targets.index(t): sources.index(s) for t, s in correspond.items()}
    how = correspond or ("name" if measured.corresponds else "order")
    expect(how in ("name", "order"), 'correspond as "name", "order" or {target site: source site}', how)
    if how == "name":
        found = {j: sources.index(t) for j, t in enumerate(targets) if t in sources}
        expect(bool(found) or correspond is None, "sites of the same name in both networks", "none",
               'write correspond="order"')
        return how, found
    return how, match_depths(len(sources), len(targets)) if len(targets) > 1 else {}


def match_depths(others: int, layers: int) -> dict[int, int]:
    """Return for each of several layers (number) the one of the same relative depth among others."""
    return {j: round(j * (others - 1) / max(1, layers - 1)) for j in range(layers)}


def measure_correspondence(measured: Measured, measure: str, correspond: Correspond = None,
                           seed: int = 0) -> Correspondence:
    """Measure how well a measure finds the corresponding source site of each target site."""
    how, pairs = pair_sites(measured, correspond)
    values = take_cells(measured, measure)
    common: Floats = values if get_measure(measure).larger_is_more_similar else -values
    marked = take_cells(measured, measure, "mark") != ""
    ranks, sizes = [], []
    for j, i in pairs.items():
        column = common[:, j]
        known = column[~np.isnan(column)]
        if not marked[:, j].any() and not np.isnan(column[i]) and len(known) > 1:
            ranks.append(1 + (known > column[i]).sum() + ((known == column[i]).sum() - 1) / 2)
            sizes.append(len(known))
    if not ranks:
        return Correspondence(measure, how, 0, 0, math.nan, math.nan, math.nan, math.nan, math.nan)
    drawn = np.random.default_rng(seed).choice(ranks, (_DRAWS, len(ranks))).mean(1)
    low, high = np.percentile(drawn, [2.5, 97.5]) if len(ranks) > 1 else (math.nan, math.nan)
    nearest = sum(rank == 1 for rank in ranks)
    return Correspondence(measure, how, len(ranks), nearest, float(np.mean(ranks)), float(low), float(high),
                          float(np.mean([(n + 1) / 2 for n in sizes])), _count_by_chance(nearest, sizes))


def _count_by_chance(nearest: int, sizes: list[int]) -> float:
    """Return the probability of at least `nearest` hits where each has probability 1 / size."""
    chances = np.array([1.0])
    for size in sizes:
        chances = np.convolve(chances, [1 - 1 / size, 1 / size])
    return float(chances[nearest:].sum())


def describe_correspondence(found: Sequence[Correspondence]) -> str:
    """Describe correspondences by several measures in one sentence, the first against chance."""
    how = {"name": "of the same name", "order": "of the same depth", "given": "given as its counterpart"}
    first, *rest = found
    interval = "" if not first.low < first.high else f", 95 % interval {first.low:.1f} to {first.high:.1f}"
    others = "".join(f", by {get_measure(of.measure).label.removesuffix(' (test)')} {of.nearest} of "
                     f"{of.layers}" for of in rest if of.layers > 1)
    return (f"By {get_measure(first.measure).label} the layer {how[first.how]} is nearest for "
            f"{first.nearest} of {first.layers} layers (p {first.p:.1g}; mean rank {first.rank:.1f}"
            f"{interval}, by chance {first.chance:.1f}){others}.")
