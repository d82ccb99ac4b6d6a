"""The natural range of a target network as rows of a table, also without each of the shifts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from suture.ood.natural_range.radii import NaturalRange

BUILT_IN, OWN = "built-in shifts", "your shifts"
RANGE_COLUMNS = ("range", "site", "inner", "inner_low", "inner_high", "inner_shift", "inner_reason", "outer",
                 "outer_low", "outer_high", "outer_shift", "outer_reason", "open_ended")


def describe_range(meta: Mapping[str, Any], sites: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row for each range and site: of all shifts, without each of them, and of the user's own."""
    stored = (meta.get("ood") or {}).get("range")
    if stored is None:
        return []
    found = NaturalRange.from_record(stored)
    return [row for name, of in _list_ranges(found) for row in _describe_sites(name, of, sites)]


def _list_ranges(found: NaturalRange) -> Iterator[tuple[str, NaturalRange]]:
    yield BUILT_IN, found
    for kind in found.kinds if len(found.kinds) > 1 else ():
        yield f"without {kind.name}", found.leave_out(kind.name)
    if found.own:
        yield OWN, found.choose_own()


def _describe_sites(name: str, of: NaturalRange, sites: Sequence[str]) -> Iterator[dict[str, Any]]:
    for j, site in enumerate(sites):
        row: dict[str, Any] = {"range": name, "site": site, "open_ended": of.is_open(j)}
        for radius, (value, shift) in (("inner", of.find_inner(j)), ("outer", of.find_outer(j))):
            row |= {radius: value.value, f"{radius}_low": value.low, f"{radius}_high": value.high,
                    f"{radius}_shift": shift, f"{radius}_reason": value.reason}
        yield row
