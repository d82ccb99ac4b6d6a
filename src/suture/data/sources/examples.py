"""Raw examples: images, texts or arrays, read lazily."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from suture._base import SutureError
from suture.data.sources.bad_examples import make_bad_example_error
from suture.data.sources.decoding import BadExample, ExampleKind
from suture.data.sources.prefetching import (
    CACHE_BYTES,
    DECODE_CHUNK,
    ImageCache,
    collate,
    count_workers,
    join_batches,
    pin_batch,
    run_ahead,
)
from suture.data.sources.sampling import draw_order
from suture.data.sources.stores import MemoryStore, Store, decode_rows


@dataclass(frozen=True, eq=False, repr=False)
class Examples(Dataset[tuple[Any, "int | None"]]):
    """Raw examples, not prepared for a network, read lazily; a `torch.utils.data.Dataset` of (raw, label).

    A raw image is uint8 (C, H, W), see `suture.data.sources.decoding.decode_image`; a raw text is a string; a
    raw array is a tensor. Images that share one size and together need at most 1 GiB stay decoded after they
    have been read.

    Arguments:
        store: where the examples are stored.
        kind: "images", "text" or "arrays".
        name: name of the data in records.
        labels: (N,), int64, from 0 to classes - 1; None without labels.
        classes: number of classes; None without labels.
        class_names: names of the classes in the order of their numbers, if they have names.
        note: what a reader should know: how a split was made, what was left out. "" for nothing.
        rows: (N,), int64, rows of the store, in this order. Default: all.
    """

    store: Store
    kind: ExampleKind
    name: str
    labels: Tensor | None = None
    classes: int | None = None
    class_names: tuple[str, ...] | None = None
    note: str = ""
    rows: Tensor | None = None

    def __len__(self) -> int:
        return len(self.store) if self.rows is None else len(self.rows)

    def __repr__(self) -> str:
        labelled = "no labels" if self.classes is None else f"{self.classes} classes"
        return f"Examples({self.name}: {len(self)} {self.kind}, {labelled})"

    def __getitem__(self, index: int) -> tuple[Any, int | None]:
        """Return the raw example and the label at `index`."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} examples, got index {index}")
        raw, labels = self.take([index % len(self)])
        return raw[0], None if labels is None else int(labels[0])

    def __iter__(self) -> Iterator[tuple[Any, int | None]]:
        return (self[index] for index in range(len(self)))

    def take(self, rows: Tensor | Sequence[int]) -> tuple[Any, Tensor | None]:
        """Return a raw batch and its labels.

        Args:
            rows: (B,) rows, in this order; from 0 to len(self) - 1.

        Returns:
            Images as uint8 (B, C, H, W) where all share size and channels, else as a list of (C, H, W); texts
            as a list of strings; arrays as a tensor (B, ...). Labels (B,), int64, or None.

        Raises:
            SutureError: rows out of range, or an example that cannot be decoded.
        """
        chosen = self._check_rows(rows)
        try:
            return self._load(chosen), None if self.labels is None else self.labels[chosen]
        except BadExample as e:
            raise self._make_bad_example_error(e) from e

    def read(self, rows: Tensor, size: int) -> Generator[tuple[Any, Tensor | None], None, None]:
        """Yield raw batches as `take` returns them, decoded ahead of the consumer in threads.

        On a machine with CUDA they are in page-locked memory. The threads end when the iterator ends, is
        closed, or meets an error.

        Args:
            rows: (M,) rows, in this order.
            size: rows per batch.

        Raises:
            SutureError: as `take`.
        """
        for chosen, raw in self._load_batches(self._check_rows(rows), size):
            yield pin_batch(raw), None if self.labels is None else self.labels[chosen]

    def subset(self, n: int, seed: int = 0) -> Examples:
        """Draw `n` of the examples without replacement, as evenly over the classes as they allow.

        Class counts differ by at most one unless a class runs out. Without labels the draw is uniform. A
        larger `n` with the same seed begins with the same examples. The draw depends on `seed` and on the
        labels alone.

        Raises:
            SutureError: `n` is not from 1 to len(self).
        """
        if not 1 <= n <= len(self):
            raise SutureError(f"expected a number of examples from 1 to {len(self)}, all that {self.name} "
                              f"has, got {n}")
        return self.part(draw_order(len(self), self.labels, seed)[:n], f"{self.name}/{n}@{seed}")

    def part(self, rows: Tensor, name: str, note: str = "") -> Examples:
        """Return the examples at `rows` (M,), in this order, under another name."""
        notes = "; ".join(n for n in (self.note, note) if n)
        labels = None if self.labels is None else self.labels[rows]
        made = Examples(self.store, self.kind, name, labels, self.classes, self.class_names, notes,
                        self._rows[rows])
        known = self._cache.get(rows)
        if known is not None and len(rows):
            made._cache.put(torch.arange(len(rows)), known)
        return made

    @cached_property
    def channels(self) -> int | None:
        """Channels of the first image, or second axis of arrays (N, C, H, W); None for anything else."""
        if self.kind == "text" or not len(self):
            return None
        first = self[0][0]
        return int(first.shape[0]) if first.ndim == 3 else None

    @cached_property
    def is_small(self) -> bool:
        """True where a fingerprint costs little.

        This holds for texts, arrays, and images that stay decoded once they are read.
        """
        return self.kind != "images" or not len(self) or self[0][0].nbytes * len(self) <= CACHE_BYTES

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of a SHA-256 over the examples and their labels, in order.

        It covers pixels (with shapes), texts or arrays. It depends on contents alone: the same images from
        Parquet and from a folder of PNG files have the same one.
        """
        return self._fingerprints[0]

    @property
    def content(self) -> str:
        """Fingerprint that does not depend on the order of the examples."""
        return self._fingerprints[1]

    @cached_property
    def _fingerprints(self) -> tuple[str, str]:
        digests: list[bytes] = []
        for chosen, raw in self._load_batches(torch.arange(len(self)), 256):
            labels = [None] * len(chosen) if self.labels is None else self.labels[chosen].tolist()
            digests += [_hash_example(one, label) for one, label in zip(raw, labels, strict=True)]
        ordered, free = (hashlib.sha256(b"".join(d)).hexdigest()[:16] for d in (digests, sorted(digests)))
        return ordered, free

    @cached_property
    def _rows(self) -> Tensor:
        return torch.arange(len(self.store)) if self.rows is None else self.rows

    @cached_property
    def _cache(self) -> ImageCache:
        return ImageCache(len(self))

    def _check_rows(self, rows: Tensor | Sequence[int]) -> Tensor:
        chosen = torch.as_tensor(rows, dtype=torch.int64).cpu()
        if len(chosen) and not 0 <= int(chosen.min()) <= int(chosen.max()) < len(self):
            raise SutureError(f"expected rows from 0 to {len(self) - 1}, got {int(chosen.min())} to "
                              f"{int(chosen.max())}; {self.name} has {len(self)} examples")
        return chosen

    def _load(self, chosen: Tensor) -> Any:
        known = self._cache.get(chosen)
        if known is not None and len(chosen):
            return known
        raw = collate(decode_rows(self.store, self.kind, self._rows[chosen].tolist()))
        if self.kind == "images" and len(chosen) and not isinstance(self.store, MemoryStore):
            self._cache.put(chosen, raw)
        return raw

    def _load_batches(self, rows: Tensor, size: int) -> Generator[tuple[Tensor, Any], None, None]:
        """Yield (rows, raw batch), decoded ahead of the consumer unless everything is in memory already."""
        batches = torch.split(rows, size) if len(rows) else ()
        try:
            if isinstance(self.store, MemoryStore) or self._cache.holds(rows):
                yield from ((chosen, self._load(chosen)) for chosen in batches)
                return
            chunks = (chunk for chosen in batches for chunk in torch.split(chosen, DECODE_CHUNK))
            # At most two batches wait, so memory does not grow with the number of examples.
            with closing(run_ahead(self._load, chunks,
                                   max(2 * -(-size // DECODE_CHUNK), count_workers()))) as loaded:
                for chosen in batches:
                    yield chosen, join_batches([next(loaded) for _ in range(-(-len(chosen) // DECODE_CHUNK))])
        except BadExample as e:
            raise self._make_bad_example_error(e) from e

    def _make_bad_example_error(self, found: BadExample) -> SutureError:
        return make_bad_example_error(self.store, self.kind, self._rows, self.name, found)


def _hash_example(raw: Any, label: int | None) -> bytes:
    """Compute the SHA-256 of one raw example and its label."""
    if isinstance(raw, Tensor):
        body = f"{raw.dtype} {tuple(raw.shape)} ".encode() + raw.contiguous().numpy().tobytes()
    else:
        body = b"text " + raw.encode("utf-8", "surrogatepass")
    return hashlib.sha256(f"{label} {len(body)} ".encode() + body).digest()
