"""Structural similarity indices: the table, and how to compute it for two matrices or from moments.

>>> from suture import indices
>>> indices.of_matrices(x, y)["cka"].value

Every entry of `INDICES` is a function of a `Pair` (moments and spectra); none needs the data again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from suture._errors import unknown
from suture.indices import cca, cka, procrustes, regression
from suture.measures import Measure, measure
from suture.moments import Moments
from suture.spectra import Pair


@dataclass(frozen=True)
class Value:
    """A number, or the reason why there is none.

    Attributes:
        value: the number; nan where `reason` is not empty.
        reason: why it is missing; empty otherwise.
    """

    value: float
    reason: str = ""


@dataclass(frozen=True)
class Index:
    """One structural index.

    Attributes:
        measure: name, range and direction.
        fn: the number of a `Pair`.
        undefined: the reason why a pair has no such number, or an empty string.
        invariant_x, invariant_y: transformations of the source's / target's columns that leave it unchanged, from
            ``"translation"``, ``"scaling"`` (isotropic), ``"orthogonal"``, ``"linear"`` (any invertible map). What
            is not listed changes it.
    """

    measure: Measure
    fn: Callable[[Pair], float]
    undefined: Callable[[Pair], str]
    invariant_x: frozenset[str]
    invariant_y: frozenset[str]

    def __call__(self, pair: Pair) -> Value:
        reason = _constant(pair) or self.undefined(pair)
        if reason:
            return Value(float("nan"), reason)
        value = float(self.fn(pair))
        if value != value or abs(value) == float("inf"):
            return Value(float("nan"), f"{self.measure.name} is not finite on these data")
        return Value(value)


def _constant(pair: Pair) -> str:
    if pair.moments.n < 2:
        return "one row: nothing varies"
    sides = [name for name, s in (("source", pair.x), ("target", pair.y)) if s.rank == 0]
    return f"constant {' and '.join(sides)} representation" if sides else ""


_RIGID = frozenset({"translation", "scaling", "orthogonal"})
_ALL = _RIGID | {"linear"}
_SCALE = frozenset({"translation", "scaling"})

INDICES: Mapping[str, Index] = {
    i.measure.name: i for i in (
        Index(measure("cka"), cka.biased, lambda p: "", _RIGID, _RIGID),
        Index(measure("cka_debiased"), cka.debiased, cka.too_few, _RIGID, _RIGID),
        Index(measure("cca"), cca.mean, cca.too_few, _ALL, _ALL),
        Index(measure("pwcca"), cca.weighted_by_source, cca.too_few, _SCALE, _ALL),
        Index(measure("pwcca_target"), cca.weighted_by_target, cca.too_few, _ALL, _SCALE),
        Index(measure("opd"), procrustes.squared, lambda p: "", _RIGID, _RIGID),
        Index(measure("r2"), regression.r2, regression.too_few, _ALL, _RIGID),
    )
}
"""Every index by name."""


def chosen(names: Iterable[str] | str = "all") -> list[Index]:
    """The entries called `names`; ``"all"`` for the whole table."""
    if names == "all":
        return list(INDICES.values())
    listed = [names] if isinstance(names, str) else list(names)
    for n in listed:
        if n not in INDICES:
            raise unknown("index", n, INDICES)
    return [INDICES[n] for n in listed]


def of_moments(moments: Moments, names: Iterable[str] | str = "all") -> dict[str, Value]:
    """Indices by name from the moments of one pair of matrices."""
    pair = Pair.of(moments)
    return {i.measure.name: i(pair) for i in chosen(names)}


def of_matrices(x: Any, y: Any, names: Iterable[str] | str = "all") -> dict[str, Value]:
    """Indices by name for two matrices with the same rows.

    Args:
        x: (n, p) source: numpy array or tensor; any float type, computed in float64.
        y: (n, q) target.
        names: which; default all.
    """
    return of_moments(Moments.of(torch.as_tensor(x), torch.as_tensor(y)), names)
