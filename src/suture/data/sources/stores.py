"""Stores of examples: their splits, their decoding to raw examples, and the bad ones among them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from suture._base import SutureError, import_optional, summarise_error

ExampleKind = Literal["images", "text", "arrays"]
MOST_PIXELS = 89_478_485
"""Most pixels of an image that is decoded (256 MB). Pillow takes more for a decompression bomb."""


@dataclass(frozen=True)
class BadExample:
    """An example that cannot be used, with the reason, such as "is blank"."""

    reason: str


def decode(stored: Any, kind: ExampleKind) -> Any:
    """Decode an image or check a text; a failure or a blank text (no tokens) gives a `BadExample`."""
    if stored is None or isinstance(stored, BadExample):
        return stored or BadExample("is missing")
    if kind == "images":
        try:
            return decode_image(stored)
        except SutureError:  # Pillow is not installed, which is no fault of the image
            raise
        except (ValueError, OSError) as e:
            return BadExample(str(e))
    if isinstance(stored, str) and stored.strip():
        return stored
    return BadExample("is blank" if isinstance(stored, str) else f"is {type(stored).__name__} and no text")


def decode_image(stored: Any) -> Tensor:
    """Decode an image to uint8 (C, H, W), with 1 channel (grey) or 3 (RGB), without EXIF rotation.

    Modes 1, L, LA and 16 bits are grey; the others (P, RGBA, CMYK, YCbCr, ...) become RGB. Alpha is dropped.
    16 bits are rounded to 8 (65535 is 255). The first of several frames is used.

    `stored` is encoded bytes, a path, an image of Pillow, or a mapping {"bytes", "path"} of the library
    `datasets`. Everything that cannot be decoded raises ValueError, and so do more than `MOST_PIXELS`, before
    any is decoded.
    """
    pillow = import_optional("PIL.Image", "data", "images")
    if isinstance(stored, dict):
        stored = stored.get("bytes") or stored.get("path")
    if stored is None:
        raise ValueError("is missing")
    try:
        if isinstance(stored, pillow.Image):
            return _read_pixels(stored)
        _check_file(stored)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pillow.DecompressionBombWarning)  # `_check_size` says it
            opened = pillow.open(io.BytesIO(stored) if isinstance(stored, bytes) else Path(stored))
        with opened:
            return _read_pixels(opened)
    except pillow.DecompressionBombError as e:
        raise ValueError(f"has more than {MOST_PIXELS // 10**6} megapixels") from e
    # Pillow's plugins raise errors of any type on broken files, such as SyntaxError, EOFError or KeyError.
    except Exception as e:
        # Pillow names the address of a buffer, which differs in every run.
        raise ValueError("is no image that Pillow knows" if "cannot identify" in str(e)
                         else summarise_error(e)) from e


def _check_file(stored: bytes | str | Path) -> None:
    if not isinstance(stored, bytes) and Path(stored).exists() and not Path(stored).is_file():
        raise ValueError("is no file")  # to open a pipe would wait for ever


def _check_size(opened: Any) -> None:
    width, height = opened.size
    if not width * height:
        raise ValueError("has no pixels")
    if width * height > MOST_PIXELS:
        raise ValueError(f"has {width}x{height} pixels, more than {MOST_PIXELS // 10**6} million")


def _read_pixels(opened: Any) -> Tensor:
    _check_size(opened)
    mode: str = opened.mode
    if mode == "F":
        raise ValueError("has floating point pixels, which have no range")
    if mode == "I" or mode.startswith("I;16"):
        wide = np.asarray(opened).astype(np.int64)
        return torch.from_numpy(((wide.clip(0, 65535) + 128) // 257).astype(np.uint8))[None]
    if mode in ("1", "LA", "La"):
        opened = opened.convert("L")
    elif mode not in ("L", "RGB"):
        # Converted to RGBA first. Pillow warns when a palette with transparency becomes RGB directly, and
        # it undoes the multiplication by alpha of RGBa only on the way to RGBA.
        opened = (opened.convert("RGBA").convert("RGB") if mode in ("P", "PA", "RGBa")
                  else opened.convert("RGB"))
    pixels = torch.from_numpy(np.array(opened))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()


class Store(Protocol):
    """Examples as they are stored, by row."""

    def __len__(self) -> int:
        """Return the number of examples."""

    def fetch(self, rows: Sequence[int]) -> Any:
        """Return the examples at `rows`: a sequence for `decode`, or a raw tensor (len(rows), ...)."""

    def describe_row(self, row: int) -> str:
        """Return the place of an example for messages: its file, or its file and row (from 0)."""


@dataclass(frozen=True, eq=False)
class MemoryStore:
    """Store of examples in memory, or of the paths of their files.

    Attributes:
        values: a tensor (N, ...) of raw examples, or a sequence for `decode`.
        places: (N,) place of each in messages. Default: `name` and the row.
    """

    values: Tensor | Sequence[Any]
    name: str
    places: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def fetch(self, rows: Sequence[int]) -> Any:
        return self.values[list(rows)] if isinstance(self.values, Tensor) else [self.values[r] for r in rows]

    def describe_row(self, row: int) -> str:
        return f"{self.name}, row {row}" if self.places is None else self.places[row]


def decode_rows(store: Store, kind: ExampleKind, rows: Sequence[int]) -> list[Any] | Tensor:
    """Decode the examples at `rows`; a failure gives a `BadExample`."""
    stored = _decode_each(store, kind, rows)
    return stored if isinstance(stored, Tensor) else list(stored)


def _decode_each(store: Store, kind: ExampleKind, rows: Sequence[int]) -> Iterator[Any] | Tensor:
    """Decode one example after another, because several large images may not fit the memory."""
    stored = store.fetch(rows)
    return stored if isinstance(stored, Tensor) else (decode(one, kind) for one in stored)


@dataclass(frozen=True)
class StoredSplit:
    """One split as it is stored.

    Attributes:
        labels: (N,) as stored: class numbers, strings, None for an example without one. None: no labels.
        names: names of the classes, if the labels are their numbers.
        classes: number of classes, if it is known without the other splits.
        column: name of the labels in messages.
    """

    store: Store
    kind: ExampleKind
    labels: Sequence[Any] | None = None
    names: tuple[str, ...] | None = None
    classes: int | None = None
    column: str = ""
    note: str = ""


class DataSource:
    """Splits of a data set by name, read once on request; data without splits have one named ""."""

    def __init__(self, name: str, splits: Mapping[str, Callable[[], StoredSplit]]) -> None:
        self.name = name
        self.splits = {split: cache(read) for split, read in splits.items()}


MOST_TRIED = 10_000
"""Number of examples in which bad ones are counted for a message. It bounds the time to the message."""
_AT_ONCE = 64


def summarise_bad(count: int, of: int, first: str) -> str:
    """Return a summary of bad examples; `first` is the place and reason of the first."""
    return f"{count} of {of} cannot be used, the first: {first}"


def find_decodable(store: Store, kind: ExampleKind, rows: Tensor,
                   n: int | None = None) -> tuple[Tensor, str]:
    """Find the first `n` (None: all) of `rows` (M,) that can be decoded.

    Returns:
        Their places in `rows`, and a summary of the bad examples before the last of them, or "".
    """
    decoded = (one for chunk in torch.split(rows, _AT_ONCE)
               for one in _decode_each(store, kind, chunk.tolist()))
    kept: list[int] = []
    bad, first = 0, ""
    for place, one in enumerate(decoded):
        if isinstance(one, BadExample):
            bad += 1
            first = first or f"{store.describe_row(int(rows[place]))} {one.reason}"
        else:
            kept.append(place)
            if len(kept) == n:
                break
    return torch.tensor(kept, dtype=torch.int64), summarise_bad(bad, bad + len(kept), first) if bad else ""


def make_bad_example_error(store: Store, kind: ExampleKind, rows: Tensor, name: str, row: int,
                           reason: str) -> SutureError:
    """Make the error for a bad example, with the number of bad ones in the first `MOST_TRIED` rows."""
    _, bad = find_decodable(store, kind, rows[:MOST_TRIED])
    counts = bad or f"one cannot be used: {store.describe_row(row)} {reason}"
    more = f" among its first {MOST_TRIED}" if bad and len(rows) > MOST_TRIED else ""
    return SutureError(f"bad examples in {name}{more}: {counts}; leave them out with skip_bad=True")
