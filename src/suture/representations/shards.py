"""Accumulators of shards of the data, merged into those of all of them."""

from __future__ import annotations

from collections.abc import Sequence

from suture._base import SutureError
from suture.representations.accumulators import Accumulators


def start_shard(made: Accumulators, number: int, first: Accumulators) -> None:
    """Let accumulators begin with an example in the middle of the data.

    Args:
        number: of the example, from 0.
        first: accumulators of the first piece of all data: sums of all shards are about the same points.
    """
    for part in made.parts:
        part.start_at(number)
    if made.has_stitch:
        made.stitch.take_shifts(first.stitch)
    for mine, theirs in zip(made.own, first.own, strict=True):
        mine.take_shift(theirs)


def has_shifts(made: Accumulators) -> bool:
    """Return True if the points are known that all sums of positions are about."""
    return made.examples > 0 and (not made.has_stitch or made.stitch.has_shifts)


def explain_unmergeable(made: Accumulators) -> str:
    """Say why accumulators of shards cannot be merged, or return ""."""
    flat = [r.name for r in made.settings.requests if r.alignment in ("flatten", "paper")]
    return f"index {flat[0]} depends on which examples come together" if flat else ""


def merge_shards(shards: Sequence[Accumulators]) -> Accumulators:
    """Return the first accumulators with those of the other shards added, which follow in order."""
    made, *others = shards
    for mine, *theirs in zip(made.parts, *(other.parts for other in others), strict=True):
        mine.absorb(*theirs)
    for sums, *more in zip(made.own, *(other.own for other in others), strict=True):
        for other in more:
            sums.absorb(other)
    made.examples += sum(other.examples for other in others)
    return made


def check_examples(made: Accumulators) -> None:
    """Check that a shard left out no example, because the numbers of the next ones would be unknown."""
    for part in made.parts:
        seen = getattr(part, "offered", None)
        if seen is not None and seen != made.examples:
            raise SutureError("expected examples with unpadded tokens in a shard, got "
                              f"{made.examples - seen} without; leave them out")
