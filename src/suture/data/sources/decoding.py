"""Decoding of stored examples to raw ones."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from suture._base import import_optional, summarise_error

ExampleKind = Literal["images", "text", "arrays"]


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
    `datasets`. Everything that cannot be decoded raises ValueError.
    """
    pillow = import_optional("PIL.Image", "data", "images")
    if isinstance(stored, dict):
        stored = stored.get("bytes") or stored.get("path")
    if stored is None:
        raise ValueError("is missing")
    try:
        if isinstance(stored, pillow.Image):
            return _read_pixels(stored)
        with pillow.open(io.BytesIO(stored) if isinstance(stored, bytes) else Path(stored)) as opened:
            return _read_pixels(opened)
    # Pillow's plugins raise errors of any type on broken files, such as SyntaxError, EOFError or KeyError.
    except Exception as e:
        # Pillow names the address of a buffer, which differs in every run.
        raise ValueError("is no image that Pillow knows" if "cannot identify" in str(e)
                         else summarise_error(e)) from e


def _read_pixels(opened: Any) -> Tensor:
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
