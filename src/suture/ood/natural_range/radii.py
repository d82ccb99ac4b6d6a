"""The records of a natural range: what each shift shows, and the radii of every site."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from suture.numbers import Estimate, make_missing_estimate

WORKS_NOWHERE = 0.02
"""Largest severity that counts as none: a network that breaks there works under no shift of this kind."""


@dataclass(frozen=True)
class ShiftRange:
    """How far one kind of shift moves representations where the network stops to work.

    Attributes:
        name: kind of shift.
        severity: at which the network stops to work, in (0, 1], with its 95 % interval.
        breaks: False if the network still works at severity 1; the distances are those there.
        distances: from native, for each site, in units of the native variance. The interval has both the
            doubt about the severity and that about the distance.
    """

    name: str
    severity: Estimate
    breaks: bool
    distances: tuple[Estimate, ...]

    @property
    def works(self) -> bool:
        """True if the network works under some severity that changes anything."""
        return self.severity.value > WORKS_NOWHERE

    def as_record(self) -> dict[str, Any]:
        """Return the range as JSON, with None for nan."""
        return _replace_nan(asdict(self))  # type: ignore[no-any-return]

    @classmethod
    def from_record(cls, stored: Mapping[str, Any]) -> ShiftRange:
        """Return the range that `as_record` wrote."""
        return cls(stored["name"], _read_estimate(stored["severity"]), stored["breaks"],
                   tuple(map(_read_estimate, stored["distances"])))


@dataclass(frozen=True)
class NaturalRange:
    """The natural range of a target network: radii around its native representations, at every site.

    Attributes:
        version: name of the set of shifts.
        examples: number of test examples that were shifted.
        works: relative accuracy from which on a network works.
        rows: largest number of rows of each example that distances are made of.
        kinds: the built-in shifts.
        own: the user's own shifts, which make a range of their own.
        reason: why there are no built-in shifts; empty if there are.
    """

    version: str
    examples: int
    works: float
    rows: int
    kinds: tuple[ShiftRange, ...] = ()
    own: tuple[ShiftRange, ...] = ()
    reason: str = ""

    def leave_out(self, name: str) -> NaturalRange:
        """Return the range without one kind of shift."""
        return replace(self, kinds=tuple(k for k in self.kinds if k.name != name))

    def choose_own(self) -> NaturalRange:
        """Return the range of the user's own shifts alone."""
        return replace(self, kinds=self.own, own=())

    def find_inner(self, site: int) -> tuple[Estimate, str]:
        """Return the smallest distance at which some kind breaks the network, and this kind."""
        return self._find_extreme(site, min, [k for k in self.kinds if k.breaks],
                                  "no shift breaks the network")

    def find_outer(self, site: int) -> tuple[Estimate, str]:
        """Return the largest distance at which the network still works under some kind, and this kind.

        Where it works under a kind throughout, the radius is a lower bound (`is_open`).
        """
        return self._find_extreme(site, max, [k for k in self.kinds if k.works],
                                  "the network works under no shift")

    def is_open(self, site: int) -> bool:
        """Return True if the outer radius is that of a shift that never breaks the network: a lower bound."""
        name = self.find_outer(site)[1]
        return any(k.name == name and not k.breaks for k in self.kinds)

    def _find_extreme(self, site: int, choose: Callable[..., Any], kinds: Iterable[ShiftRange],
                      without: str) -> tuple[Estimate, str]:
        """Return the least or the largest distance of some kinds, and its kind; missing `without` any."""
        found = {k.name: k.distances[site] for k in kinds if not math.isnan(k.distances[site].value)}
        if not found:
            reasons = [k.distances[site].reason for k in self.kinds]
            shared = reasons[0] if reasons and all(reasons) else ""
            return make_missing_estimate(self.reason or shared or without), ""
        parts = (choose(getattr(e, part) for e in found.values()) for part in ("value", "low", "high"))
        return Estimate(*parts), choose(found, key=lambda name: found[name].value)

    def as_record(self) -> dict[str, Any]:
        """Return the range as JSON, with None for nan."""
        return _replace_nan(asdict(self))  # type: ignore[no-any-return]

    @classmethod
    def from_record(cls, stored: Mapping[str, Any]) -> NaturalRange:
        """Return the range that `as_record` wrote."""
        kinds, own = (tuple(map(ShiftRange.from_record, stored[part])) for part in ("kinds", "own"))
        return cls(**{**stored, "kinds": kinds, "own": own})


def _replace_nan(part: Any) -> Any:
    if isinstance(part, Mapping):
        return {name: _replace_nan(of) for name, of in part.items()}
    if isinstance(part, tuple | list):
        return [_replace_nan(of) for of in part]
    return None if isinstance(part, float) and math.isnan(part) else part


def _read_estimate(stored: Mapping[str, Any]) -> Estimate:
    value, low, high = (math.nan if stored[part] is None else stored[part]
                        for part in ("value", "low", "high"))
    return Estimate(value, low, high, stored["reason"])
