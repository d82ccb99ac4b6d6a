"""Alterations of native representations, each with a strength."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from suture._base import SutureError, derive_seed
from suture.compare import FEWEST_OF_CLASS
from suture.numbers import find_class_places
from suture.representations import Kind
from suture.studies.controls.retrained import draw_rotation
from suture.studies.controls.site_rows import SiteRows


class FittingStatistics(NamedTuple):
    """What alterations know of the fitting examples: class means (K, L, C), classes (K,), mean, spread."""

    means: Tensor
    known: Tensor
    mean: Tensor
    spread: Tensor


Change = Callable[[SiteRows, float, FittingStatistics, int], Tensor]
"""Function from the rows of all examples, a strength, statistics of others and a seed to new rows."""


@dataclass(frozen=True)
class Alteration:
    """A change of all representations at a site.

    Attributes:
        name: of the alteration.
        of: what its strength is.
        strengths: that are tried.
        change: the function.
    """

    name: str
    of: str
    strengths: tuple[float, ...]
    change: Change

    def apply(self, given: SiteRows, strength: float, known: FittingStatistics, seed: int) -> Tensor:
        """Return the altered rows; padding stays.

        Raises:
            SutureError: representations that cannot be altered so.
        """
        made = self.change(given, strength, known, derive_seed(seed, self.name))
        return made if given.kept is None else torch.where(given.kept[..., None], made, given.rows)


def _collapse(given: SiteRows, strength: float, known: FittingStatistics, seed: int) -> Tensor:
    if not len(known.known):
        raise SutureError(f"no class has {FEWEST_OF_CLASS} fitting examples for a mean to collapse to")
    places = find_class_places(given.classes, known.known).to(given.rows.device)
    centre = torch.where((places >= 0)[:, None, None], known.means[places], known.mean)
    return torch.lerp(given.rows, centre.expand_as(given.rows), strength)


def _swap(given: SiteRows, strength: float, known: FittingStatistics, seed: int) -> Tensor:
    """Give a share of the examples the representation of another one of the class and the same length."""
    generator = torch.Generator().manual_seed(seed)
    lengths = given.weights.sum((1, 2)).long().cpu()
    order = torch.arange(len(given.rows))
    for c in torch.unique(given.classes).tolist():
        for length in torch.unique(lengths).tolist():
            mine = ((given.classes.cpu() == c) & (lengths == length)).nonzero()[:, 0]
            chosen = mine[torch.randperm(len(mine), generator=generator)[:round(strength * len(mine))]]
            order[chosen] = chosen.roll(1)
    return given.rows[order]


def _shuffle(given: SiteRows, strength: float, known: FittingStatistics, seed: int) -> Tensor:
    """Permute a share of the positions of each example, in an order of its own; prefix tokens stay."""
    if given.shape.kind is Kind.VECTOR or given.rows.shape[1] - given.shape.prefix < 2:
        raise SutureError("a vector has no positions to shuffle")
    generator = torch.Generator().manual_seed(seed)
    n, length = given.rows.shape[:2]
    order = torch.arange(length).repeat(n, 1)
    kept = given.weights[..., 0].bool().cpu()
    for e in range(n):
        free = kept[e].nonzero()[:, 0]
        free = free[free >= given.shape.prefix]
        chosen = free[torch.randperm(len(free), generator=generator)[:round(strength * len(free))]]
        order[e, chosen] = chosen.roll(1)
    return given.rows.gather(1, order.to(given.rows.device)[..., None].expand_as(given.rows))


def _shrink(given: SiteRows, strength: float, known: FittingStatistics, seed: int) -> Tensor:
    return torch.lerp(known.mean.expand_as(given.rows), given.rows, strength)


def _rotate(given: SiteRows, strength: float, known: FittingStatistics, seed: int) -> Tensor:
    if given.shape.width < 2:
        raise SutureError("a single channel cannot be rotated")
    turn = draw_rotation(given.shape.width, strength, seed).to(given.rows)
    return known.mean + (given.rows - known.mean) @ turn


def _add_noise(given: SiteRows, strength: float, known: FittingStatistics, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(given.rows.shape, generator=generator).to(given.rows)
    return given.rows + strength * known.spread * drawn


ALTERATIONS: Mapping[str, Alteration] = MappingProxyType({a.name: a for a in (
    Alteration("collapsed", "share of the way to the class mean", (0.25, 0.5, 0.75, 1.0), _collapse),
    Alteration("swapped", "share of the examples of each class", (0.25, 0.5, 1.0), _swap),
    Alteration("positions shuffled", "share of the positions", (0.5, 1.0), _shuffle),
    Alteration("shrunken", "factor of the distance from the mean", (0.9, 0.5, 0.1), _shrink),
    Alteration("rotated", "angle in degrees, around the mean", (5.0, 30.0, 90.0), _rotate),
    Alteration("noise added", "standard deviation, in those of the channels", (0.1, 1.0, 3.0), _add_noise),
)})
"""All alterations of native representations, by name."""
