"""The result of all shards of a comparison, without its networks and data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from suture._base import FilePath, SutureError, checked, expect, get_time
from suture.compare.fitting.moments import describe_moments, match
from suture.compare.fitting.shards import Shard
from suture.compare.kept_run import hold_folder
from suture.compare.key import explain_difference
from suture.compare.records import SharedSetup, decode_shape
from suture.compare.result import build_comparison
from suture.compare.setup import Setup
from suture.data import MicroBatch, merge_digests
from suture.representations import Cell, Masks, Shape, merge_shards
from suture.results import Comparison

_STAGE = "moments"


@dataclass(frozen=True)
class _NamedSide:
    """The sites of a network that is not there."""

    name: str
    sites: tuple[str, ...]
    shapes: tuple[Shape, ...]

    def front(self, inputs: Any) -> list[Tensor]:
        raise NotImplementedError

    def find_masks(self, inputs: Any) -> Masks:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class _MergedSetup(SharedSetup):
    """What `match` and `describe_moments` need of the setup of a comparison."""

    source: _NamedSide
    target: _NamedSide
    unfit: Mapping[Cell, str]
    detection: None = None


@checked
def merge(shards: Sequence[FilePath | Shard], save_to: FilePath | None = None) -> Comparison:
    """Merge all shards of a comparison into the result that one run over all data gives.

    >>> parts = [suture.compare(a, b, train, methods=(), shard=(k, 8)) for k in range(1, 9)]
    >>> suture.merge(parts)

    The result holds the indices and the maps of direct matching. Stitched networks are not evaluated yet: the
    same `suture.compare` without `shard`, with ``save_to`` as here, goes on from it.

    Args:
        shards: that ``suture.compare(..., shard=(k, n))`` returned, or files of them, in any order.
        save_to: folder that the result is saved to.

    Raises:
        SutureError: shards of different data, networks, settings or versions, one that is missing or there
            twice, or a damaged file.
    """
    expect(bool(shards), "at least one shard", "none", "write them with compare(..., shard=(k, n))")
    named = {f"{str(s)!r}" if isinstance(s, str | Path) else repr(s): s for s in shards}
    expect(len(named) == len(shards), "each shard once", "one twice", "leave it out")
    opened = {name: s if isinstance(s, Shard) else Shard.load(s) for name, s in named.items()}
    parts = _order(opened)
    if save_to is None:
        return _merge(parts)
    with hold_folder(Path(save_to)):
        made = _merge(parts)
        made.save(save_to)
    return made


def _order(named: Mapping[str, Shard]) -> list[Shard]:
    """Return the shards in the order of their examples, found to be all of one comparison."""
    (first_name, first), *others = named.items()
    for name, other in others:
        difference = _explain_other(first, other)
        if difference:
            raise SutureError(f"expected shards of one comparison, got {first_name} and {name}, which differ "
                              f"in {difference}; compute them alike")
    found: dict[int, str] = {}
    for name, one in named.items():
        number = one.place.number
        if number in found:
            raise SutureError(f"expected each shard once, got shard {number} in {found[number]} and {name}; "
                              "leave one out")
        found[number] = name
    count = first.place.count
    missing = [k for k in range(1, count + 1) if k not in found]
    if missing:
        listed = ", ".join(map(str, missing[:8])) + ", ..." * (len(missing) > 8)
        raise SutureError(f"expected all {count} shards, got {len(found)}; compute {listed} too")
    return sorted(named.values(), key=lambda s: s.place.number)


def _explain_other(one: Shard, other: Shard) -> str:
    """Say in which way two shards are not of one comparison, or return ""."""
    parts = (part for part in ("options", "sites", "shapes", "same") if one.about[part] != other.about[part])
    difference = (explain_difference(one.key, other.key) or explain_difference(other.key, one.key)
                  or next(parts, ""))
    if difference:
        return difference
    if one.place.count != other.place.count:
        return f"numbers of shards: {one.place.count} and {other.place.count}"
    places = one.place.total, other.place.total
    alike = places[0] == places[1] and one.key["outputs"]["inputs"] == other.key["outputs"]["inputs"]
    same = all(a.shape == b.shape and bool((a == b).all()) for a, b in (
        (one.labels[name], other.labels[name]) for name in one.labels.keys() & other.labels.keys()))
    if not alike:
        return f"data ({places[0]:,} and {places[1]:,} examples)" if places[0] != places[1] else "data"
    return "" if same and one.labels.keys() == other.labels.keys() else "groups or classes"


def _merge(shards: Sequence[Shard]) -> Comparison:
    first, about = shards[0], shards[0].about
    setup = _make_setup(first)
    made = merge_shards([s.fill(setup.make_accumulators()) for s in shards])
    known = cast(Setup, setup)  # which it is as far as the moments need it
    matched = match(known, made)
    found = describe_moments(known, made, matched, {}, {})
    seen = merge_digests([s.digest for s in shards])
    found = replace(found, stages=[_STAGE], computed={_STAGE: get_time()}, seen={"data": seen.as_record()})
    special = {**about["special"], "excluded": [[i, j, why] for (i, j), why in found.failed.items()],
               "device": about["device"]}
    notes = dict.fromkeys(note for s in shards for note in s.about["notes"])
    return build_comparison(setup, found, notes, special, bool(about["self_stitching"]))


def _make_setup(shard: Shard) -> _MergedSetup:
    about = shard.about
    source, target = (_NamedSide(name, tuple(sites), tuple(map(decode_shape, shapes)))
                      for name, sites, shapes in zip(("source", "target"), about["sites"], about["shapes"],
                                                     strict=True))
    return _MergedSetup(settings=shard.settings, source=source, target=source if about["same"] else target,
                        data=cast(Any, None), names=(about["names"][0], about["names"][1]), key=shard.key,
                        pieces=MicroBatch(1), unfit={(i, j): why for i, j, why in about["unfit"]})
