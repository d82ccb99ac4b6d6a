"""Digests of the examples that a pass over data saw, to tell later whether data are still the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence, Sized
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, RandomSampler, WeightedRandomSampler

from suture._base import compute_digest
from suture.data.batch import Batch

TRIED = 4
"""Number of examples that are read twice, to see if they are random."""


@dataclass(frozen=True)
class SeenData:
    """What one pass over data saw.

    Attributes:
        examples: number of examples.
        inputs: digest of the inputs in order, raw where suture prepares them.
        labels: digest of the labels in order.
        any_order: digest of the pairs of both in any order.
        batches: digest of the sizes of the batches.
    """

    examples: int
    inputs: str
    labels: str
    any_order: str
    batches: str

    def as_record(self) -> dict[str, Any]:
        return asdict(self)

    def explain_difference(self, other: SeenData) -> str:
        """Say in a few words how the data of another pass differ, or return "" if they do not."""
        if self.examples != other.examples:
            return f"{other.examples} examples, not {self.examples}"
        if self.inputs != other.inputs:
            return "the same examples in another order" if self.any_order == other.any_order else "inputs"
        if self.labels != other.labels:
            return "labels"
        return "" if self.batches == other.batches else "sizes of the batches"


class SeenDigest:
    """Running digests of a pass, which do not depend on how examples are cut into batches."""

    def __init__(self) -> None:
        self._inputs, self._labels, self._sizes = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
        self._examples = self._sum = 0

    def update(self, batch: Batch) -> None:
        self.add(*hash_batch(batch))

    def add(self, inputs: Sequence[bytes], labels: Sequence[bytes]) -> None:
        """Add the hashes that `hash_batch` made of a batch."""
        n = len(inputs)
        for one, label in zip(inputs, labels, strict=True):
            self._inputs.update(one)
            self._labels.update(label)
            self._sum += int.from_bytes(hashlib.blake2b(one + label, digest_size=16).digest(), "big")
        self._examples += n
        self._sizes.update(b"%d " % n)

    def finish(self) -> SeenData:
        ordered = [d.hexdigest()[:16] for d in (self._inputs, self._labels, self._sizes)]
        return SeenData(self._examples, ordered[0], ordered[1], f"{self._sum % 2**128:032x}", ordered[2])


def hash_batch(batch: Batch) -> tuple[list[bytes], list[bytes]]:
    """Return hashes of the inputs, raw where suture prepares them, and of the labels of each example."""
    n = batch.size
    if batch.raw is not None:
        given = batch.raw
    else:
        given = batch.source if batch.source is batch.target else (batch.source, batch.target)
    return _hash_examples(given, n), [b""] * n if batch.labels is None else _hash_examples(batch.labels, n)


def _hash_examples(given: Any, n: int) -> list[bytes]:
    """Return one hash for each of `n` examples, over types, shapes and bytes of all of its parts."""
    if isinstance(given, list) and len(given) == n:
        # Raw examples, such as texts or images of several sizes; or as many inputs as examples by chance.
        return [compute_digest(*_describe(one)) for one in given]
    columns: list[list[bytes]] = []
    shared: list[str | bytes] = []
    for path, leaf in _walk_leaves(given):
        if isinstance(leaf, Tensor) and leaf.ndim and len(leaf) == n:
            shared += [path, f"{leaf.dtype} {tuple(leaf.shape[1:])}"]
            columns.append(_hash_rows(leaf))
        else:
            shared += [path, *_describe(leaf)]
    about = compute_digest(*shared)
    return [b"".join(row) for row in zip([about] * n, *columns, strict=True)]


def _walk_leaves(given: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(given, Mapping):
        for key, part in given.items():
            yield from _walk_leaves(part, f"{path}/{key}")
    elif isinstance(given, tuple | list):
        for k, part in enumerate(given):
            yield from _walk_leaves(part, f"{path}/{k}")
    else:
        yield path, given


def _describe(one: Any) -> Iterator[str | bytes]:
    for path, leaf in _walk_leaves(one):
        yield path
        if isinstance(leaf, Tensor):
            yield f"{leaf.dtype} {tuple(leaf.shape)}"
            yield from _hash_rows(leaf[None])
        else:
            plain = isinstance(leaf, str | bytes | int | float | complex | None)
            yield f"{type(leaf).__name__} {leaf!r}" if plain else type(leaf).__name__


def _hash_rows(x: Tensor) -> list[bytes]:
    """Return the SHA-256 of the bytes of each row."""
    x = x if x.layout is torch.strided else x.to_dense()
    plain = x.detach().cpu().contiguous().flatten(1) if x.ndim > 1 else x.detach().cpu().contiguous()[:, None]
    # Bytes, because bfloat16 has no NumPy type.
    return [hashlib.sha256(row).digest() for row in plain.view(torch.uint8).numpy()]


def read_some(loader: Any) -> Any:
    """Return a batch of a few examples by number, of a loader around a map-style Dataset, else its first."""
    of, collate = getattr(loader, "dataset", None), getattr(loader, "collate_fn", None)
    if isinstance(of, Sized) and not isinstance(of, IterableDataset) and callable(collate):
        with suppress(Exception):  # a Dataset that is read in another way, such as by lists of numbers
            return collate([of[r] for r in range(0, len(of), -(-len(of) // TRIED))])  # type: ignore[index]
    return next(iter(loader))


def draws_other_examples(loader: Any) -> bool:
    """Return True for a loader that draws another set of examples in every pass, not only another order."""
    sampler, size = getattr(loader, "sampler", None), getattr(loader, "batch_size", None) or 1
    if isinstance(sampler, WeightedRandomSampler):
        return True
    if not isinstance(sampler, RandomSampler):
        return False
    drops = bool(getattr(loader, "drop_last", False)) and len(sampler) % size > 0
    return sampler.replacement or drops or len(sampler) < len(sampler.data_source)
