"""Raw examples: images, texts or arrays, read lazily."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from suture._base import Seed, SutureError, Whole, checked, expect
from suture.data.sources.splits import draw_order, renumber_classes
from suture.data.sources.stores import BadExample, ExampleKind, Store, decode_rows, make_bad_example_error

CACHE_BYTES = 2**30
"""Bytes of decoded images that stay in memory."""


@dataclass(frozen=True, eq=False, repr=False)
class Examples(Dataset[tuple[Any, "int | None"]]):
    """Raw examples, read lazily; a `torch.utils.data.Dataset` of (raw, label).

    A raw image is uint8 (C, H, W), a raw text a string, a raw array a tensor. The first GiB of decoded images
    stays in memory. To decode in several processes, give a ``DataLoader(examples, num_workers=...)``.

    Attributes:
        store: where the examples are stored.
        kind: "images", "text" or "arrays".
        name: name of the data in records.
        labels: (N,), int64, from 0 to classes - 1; None without labels.
        classes: number of classes; None without labels.
        class_names: names of the classes in the order of their numbers, if they have names.
        note: note for the reader of a result: how a split was made, how many examples were left out.
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
            Images as uint8 (B, C, H, W) if all share size and channels, else as a list of (C, H, W); texts as
            a list of strings; arrays as a tensor (B, ...). Labels (B,), int64, or None.

        Raises:
            SutureError: rows out of range, or an example that cannot be decoded.
        """
        chosen = torch.as_tensor(rows, dtype=torch.int64).cpu()
        if len(chosen) and not 0 <= int(chosen.min()) <= int(chosen.max()) < len(self):
            raise SutureError(f"expected rows of {self.name} from 0 to {len(self) - 1}, got "
                              f"{int(chosen.min())} to {int(chosen.max())}")
        return self._load(self._rows[chosen].tolist()), None if self.labels is None else self.labels[chosen]

    def read(self, rows: Tensor, size: int) -> Iterator[tuple[Any, Tensor | None]]:
        """Yield raw batches of `size` examples, as `take` returns them, at `rows` (M,) in this order."""
        return map(self.take, torch.split(rows, size))

    @checked
    def subset(self, n: Whole, seed: Seed = 0) -> Examples:
        """Draw `n` of the examples without replacement, as evenly over the classes as possible.

        Class counts differ by at most one unless a class runs out. Without labels the draw is uniform. Only
        `seed` (default 0) and the labels decide it. A larger `n` with the same seed begins with the same
        examples.

        Raises:
            SutureError: `n` is not from 1 to len(self).
        """
        expect(1 <= n <= len(self), f"a number of examples from 1 to {len(self)}, all that {self.name} has",
               str(n))
        return self.part(draw_order(len(self), self.labels, seed)[:n], f"{self.name}/{n}@{seed}")

    def part(self, rows: Tensor, name: str, note: str = "") -> Examples:
        """Return the examples at `rows` (M,), in this order, under another name."""
        made = Examples(self.store, self.kind, name, None if self.labels is None else self.labels[rows],
                        self.classes, self.class_names, "; ".join(n for n in (self.note, note) if n),
                        self._rows[rows])
        made.__dict__["_decoded"] = self._decoded
        return made

    @checked
    def select_classes(self, classes: Sequence[int]) -> Examples:
        """Return the examples of some classes, numbered anew from 0 in the order given.

        Raises:
            SutureError: there are no labels, or no such class.
        """
        rows, labels = renumber_classes(self.labels, classes, self.classes, self.name)
        made = self.part(rows, f"{self.name}/classes {','.join(map(str, classes))}")
        names = None if self.class_names is None else tuple(self.class_names[k] for k in classes)
        kept = replace(made, labels=labels, classes=len(classes), class_names=names)
        kept.__dict__["_decoded"] = self._decoded
        return kept

    @cached_property
    def channels(self) -> int | None:
        """Channels of the first image, or second axis of arrays (N, C, H, W); None for anything else."""
        if self.kind == "text" or not len(self):
            return None
        first = self[0][0]
        return int(first.shape[0]) if first.ndim == 3 else None

    @cached_property
    def is_small(self) -> bool:
        """True for texts, arrays, and images that stay in memory: their fingerprint costs little."""
        return self.kind != "images" or not len(self) or self[0][0].nbytes * len(self) <= CACHE_BYTES

    @property
    def fingerprint(self) -> str:
        """First 16 hexadecimal digits of a SHA-256 over the decoded examples and their labels, in order.

        The same images from Parquet and from a folder of PNG files have the same fingerprint.
        """
        return self._fingerprints[0]

    @property
    def content(self) -> str:
        """Fingerprint that does not depend on the order of the examples."""
        return self._fingerprints[1]

    @cached_property
    def _fingerprints(self) -> tuple[str, str]:
        digests: list[bytes] = []
        for raw, labels in self.read(torch.arange(len(self)), 256):
            known = [None] * len(raw) if labels is None else labels.tolist()
            digests += [_hash_example(one, label) for one, label in zip(raw, known, strict=True)]
        ordered, free = (hashlib.sha256(b"".join(d)).hexdigest()[:16] for d in (digests, sorted(digests)))
        return ordered, free

    @cached_property
    def _rows(self) -> Tensor:
        return torch.arange(len(self.store)) if self.rows is None else self.rows

    @cached_property
    def _decoded(self) -> _DecodedImages:
        return _DecodedImages()

    def _load(self, rows: list[int]) -> Any:
        """Load a raw batch at `rows` of the store."""
        missing = [r for r in rows if r not in self._decoded]
        loaded = decode_rows(self.store, self.kind, missing)
        if isinstance(loaded, Tensor):
            return loaded
        new = dict(zip(missing, loaded, strict=True))
        for row, one in new.items():
            if isinstance(one, BadExample):
                raise make_bad_example_error(self.store, self.kind, self._rows, self.name, row, one.reason)
            if self.kind == "images":
                self._decoded.keep(row, one)
        raw = [self._decoded[r] if r in self._decoded else new[r] for r in rows]
        same = raw and isinstance(raw[0], Tensor) and all(r.shape == raw[0].shape for r in raw)
        return torch.stack(raw) if same else raw


class _DecodedImages(dict[int, Tensor]):
    """Decoded images by row of the store, up to `CACHE_BYTES`. A copy in another process starts empty."""

    size = 0

    def keep(self, row: int, image: Tensor) -> None:
        if row not in self and self.size + image.nbytes <= CACHE_BYTES:
            self[row] = image
            self.size += image.nbytes

    def __reduce__(self) -> tuple[Any, ...]:
        return _DecodedImages, ()


def _hash_example(raw: Any, label: int | None) -> bytes:
    if isinstance(raw, Tensor):
        body = f"{raw.dtype} {tuple(raw.shape)} ".encode() + raw.contiguous().numpy().tobytes()
    else:
        body = b"text " + raw.encode("utf-8", "surrogatepass")
    return hashlib.sha256(f"{label} {len(body)} ".encode() + body).digest()
