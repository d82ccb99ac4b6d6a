"""Shards of data: consecutive examples, cut where a pass over all data cuts them too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from suture._base import SutureError, hash_object
from suture.data.batch import Batch, slice_batch
from suture.data.batches import Batches
from suture.data.seen import SeenData, SeenDigest, hash_batch


@dataclass(frozen=True)
class ShardPlace:
    """Where a shard lies in the data: its number of so many, and its examples from `start` to `stop` of all.
    """

    number: int
    count: int
    start: int
    stop: int
    total: int


def find_place(batches: Batches, number: int, count: int, piece: int) -> ShardPlace:
    """Find the examples of shard `number` of `count`, the first is 1.

    Shards end where a piece of a batch ends that passes a network, of at most `piece` examples, so that
    rounding is the same as in one pass. With fewer pieces than shards, some shards are empty.

    Raises:
        SutureError: more shards than examples, or data that come in another order in every pass.
    """
    if batches.is_random() or _hash_first(batches) != _hash_first(batches):
        raise SutureError(f"expected {batches.name} that come in one order for shards, got another in every "
                          "pass; write shuffle=False, without augmentation")
    sizes = batches.list_sizes()
    ends = [0, *(end - size + min(k, size) for end, size in zip(accumulate(sizes), sizes, strict=True)
                 for k in range(piece, size + piece, piece))]
    total = ends[-1]
    if count > total:
        raise SutureError(f"expected at most as many shards as examples of {batches.name}, got {count} for "
                          f"{total}; write fewer")
    first, last = ((len(ends) - 1) * k // count for k in (number - 1, number))
    return ShardPlace(number, count, ends[first], ends[last], total)


def _hash_first(batches: Batches) -> str:
    return hash_object(hash_batch(next(iter(batches.iterate(0))))).state


def read_shard(batches: Batches, place: ShardPlace) -> Iterator[tuple[bool, Batch]]:
    """Yield the batches of a shard; one that begins within a batch of all data comes with True."""
    at = batches.find_start(place.start)
    for batch in batches.iterate(batches.count_before(place.start)):
        start, stop = max(0, place.start - at), min(batch.size, place.stop - at)
        if start < stop:
            whole = start == 0 and stop == batch.size
            yield start > 0, batch if whole else slice_batch(batch, slice(start, stop))
        at += batch.size
        if at >= place.stop:
            return


@dataclass
class ShardDigest:
    """Hashes of the examples of a shard, from which follows what a pass over all data would have seen."""

    inputs: list[bytes] = field(default_factory=list)
    labels: list[bytes] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    within: bool = False

    def update(self, within: bool, batch: Batch) -> None:
        """Add a batch of `read_shard`."""
        self.within = self.within or (within and not self.sizes)
        inputs, labels = hash_batch(batch)
        self.inputs += inputs
        self.labels += labels
        self.sizes.append(batch.size)

    def as_tensors(self) -> dict[str, Tensor]:
        """Return the digest for a file."""
        found = {name: _stack(of) for name, of in (("inputs", self.inputs), ("labels", self.labels))}
        return {**found, "sizes": torch.tensor(self.sizes), "within": torch.tensor(self.within)}

    @classmethod
    def from_tensors(cls, given: dict[str, Tensor]) -> ShardDigest:
        inputs, labels = ([row.tobytes() for row in given[name].numpy()] for name in ("inputs", "labels"))
        return cls(inputs, labels, given["sizes"].tolist(), bool(given["within"]))


def _stack(hashes: Sequence[bytes]) -> Tensor:
    return torch.from_numpy(np.array([np.frombuffer(one, np.uint8) for one in hashes]))


def merge_digests(shards: Sequence[ShardDigest]) -> SeenData:
    """Return what one pass over all shards, in their order, would have seen."""
    digest, sizes = SeenDigest(), list[int]()
    for shard in shards:
        own = list(shard.sizes)
        if shard.within and sizes:
            own[0] += sizes.pop()
        sizes += own
    inputs = [one for shard in shards for one in shard.inputs]
    labels = [one for shard in shards for one in shard.labels]
    for end, size in zip(accumulate(sizes), sizes, strict=True):
        digest.add(inputs[end - size:end], labels[end - size:end])
    return digest.finish()
