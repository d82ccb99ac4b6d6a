"""Preprocessing of raw images: colour, size, scale."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import Doc

from suture._base import (
    Count,
    Positive,
    Real,
    SutureError,
    describe_value,
    expect,
    make_unknown_error,
    options,
)
from suture.data.sources.stores import MOST_PIXELS

Numbers = Annotated[tuple[Real, ...], Field(min_length=1)]
Deviations = Annotated[tuple[Positive, ...], Field(min_length=1)]
_SLACK = 1e-3
"""Tolerance for floats outside [0, 1]: bfloat16, with 8 bits, rounds so."""


@options
class ImagePreprocessing:
    """Preprocessing from raw images to a network's float32 input (N, channels, height, width).

    The steps, in order: grey to colour or back, resize with antialiasing, centre crop, scale to [0, 1],
    normalise. Resizing follows Pillow, with which published weights are evaluated: the width, then the
    height, each rounded to bytes. Bytes differ from Pillow's by at most one level of 255 (bicubic: two), and
    fewer than 1 in 400 differ. Pillow 13 resizes strongly distorted images height first, so "squash" and
    "bicubic" differ more there at hard edges. Floats must lie in [0, 1]; without any step they are returned
    unchanged.

    Args:
        {options}

    Raises:
        SutureError: a value outside these bounds.
    """

    size: Annotated[tuple[Count, Count] | None, Doc(
        "(height, width) of the result. None: the images keep their size, and must share one.")] = None
    mean: Annotated[Numbers | None, Doc(
        "subtracted from each channel, on the scale [0, 1]; one number for all or one for each.")] = None
    std: Annotated[Deviations | None, Doc("each channel is divided by it; as for mean, above 0.")] = None
    channels: Annotated[Count | None, Doc(
        "3 repeats grey, 1 computes the luma of colour. None: the images keep their channels.")] = None
    interpolation: Annotated[Literal["bilinear", "bicubic"], Doc(
        "Interpolation between pixels where images are resized; bilinear by default.")] = "bilinear"
    crop: Annotated[Real, Field(gt=0, le=1), Doc(
        "share of the resized image that the crop keeps along an edge, in (0, 1]: the image is first resized "
        "to ``size / crop``. Default 1.")] = 1.0
    fit: Annotated[Literal["crop", "squash"], Doc(
        '"crop" keeps proportions and resizes the shorter side (default). "squash" resizes both sides and '
        "may change the proportions.")] = "crop"
    corner: Annotated[Literal["round", "floor"], Doc(
        'where the crop starts if an odd number of pixels is cut off: "round" (half to even, default) as in '
        'torchvision and timm, "floor" as in transformers.')] = "round"

    def __call__(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        """Prepare images (N, C, H, W), or a list of (C, H, W) of any sizes, on the device they are on.

        Raises:
            SutureError: other shapes or types, floats outside [0, 1], or several sizes without `size`.
        """
        if isinstance(images, Tensor):
            return self._prepare_batch(images)
        images = list(images)
        expect(len(images) > 0, "images as tensors (C, H, W)", "none")
        for x in images:
            expect(isinstance(x, Tensor) and x.ndim == 3, "images as tensors (C, H, W)", describe_value(x))
        groups: dict[tuple[Any, ...], list[int]] = {}
        for i, x in enumerate(images):
            groups.setdefault((x.shape, x.dtype, x.device), []).append(i)
        sizes = list(dict.fromkeys(f"{h}x{w}" for (_, h, w), _, _ in groups))
        if self.size is None and len(sizes) > 1:
            raise SutureError(f"expected images of one size, got {len(sizes)} sizes such as {sizes[0]} and "
                              f"{sizes[1]}; give size=")
        made: dict[int, Tensor] = {}
        for places in groups.values():
            made.update(zip(places, self._prepare_batch(torch.stack([images[i] for i in places])),
                            strict=True))
        widths = sorted({len(x) for x in made.values()})
        if len(widths) > 1:
            raise SutureError(f"expected images of one number of channels, got {widths[0]} and {widths[1]}; "
                              "give channels=")
        return torch.stack([made[i] for i in range(len(images))])

    def _prepare_batch(self, x: Tensor) -> Tensor:
        is_bytes = x.dtype == torch.uint8
        if x.ndim != 4 or not x.numel() or not (is_bytes or x.is_floating_point()):
            raise SutureError("expected images (N, C, H, W) of uint8 or floats in [0, 1], got "
                              f"{describe_value(x)}")
        x = x.to(torch.float32)
        if not is_bytes and (self.size, self.mean, self.std, self.channels) != (None,) * 4:
            low, high = (float(v) for v in x.aminmax())
            if not -_SLACK <= low <= high <= 1 + _SLACK:
                raise SutureError(f"expected floats in [0, 1], got {low:.3g} to {high:.3g}; give uint8, or "
                                  "images that are not normalised yet, or prepare them "
                                  "yourself and write raw")
        x = self._resize(self._convert_channels(x, is_bytes), is_bytes)
        return self._normalise(x / 255 if is_bytes else x)

    def _convert_channels(self, x: Tensor, is_bytes: bool) -> Tensor:
        c = x.shape[1]
        if self.channels in (None, c):
            return x
        if c == 1:
            return x.expand(-1, self.channels, -1, -1)
        if (c, self.channels) == (3, 1):
            grey = compute_luma(x)
            return _round_to_bytes(grey) if is_bytes else grey
        raise SutureError(f"expected images of {self.channels} channels, or of 1 or 3 to turn into the "
                          f"other, got {c}; drop what is more, such as transparency")

    def _resize(self, x: Tensor, is_bytes: bool) -> Tensor:
        if self.size is None:
            return x
        scaled = self._compute_scaled_size(x.shape[2], x.shape[3])
        if math.prod(scaled) > max(MOST_PIXELS, x.shape[2] * x.shape[3]):
            raise SutureError(f"images of {x.shape[2]}x{x.shape[3]} would become {scaled[0]}x{scaled[1]} "
                              'before the crop; leave them out, or write fit="squash"')
        # Clipped after each axis, as in Pillow, because bicubic weights overshoot.
        for size in ((x.shape[2], scaled[1]), scaled):
            if size != tuple(x.shape[2:]):
                x = F.interpolate(x, size, mode=self.interpolation, align_corners=False, antialias=True)
                x = _round_to_bytes(x) if is_bytes else x.clamp(0, 1)
        start = round if self.corner == "round" else math.floor
        (top, height), (left, width) = ((start((s - n) / 2), n)
                                        for s, n in zip(scaled, self.size, strict=True))
        return x[:, :, top:top + height, left:left + width]

    def _compute_scaled_size(self, height: int, width: int) -> tuple[int, int]:
        """Compute (height, width) before the crop."""
        assert self.size is not None
        # Rounded down as in timm. The small term is for rounding errors: 224 / (224 / 232) is 231.99...
        h, w = (int(n / self.crop + 1e-6) for n in self.size)
        if self.fit == "squash":
            return h, w
        if h == w:
            return (h, int(h * width / height)) if height <= width else (int(w * height / width), w)
        factor = max(h / height, w / width)
        return max(h, round(factor * height)), max(w, round(factor * width))

    def _normalise(self, x: Tensor) -> Tensor:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is None:
                continue
            if len(values) not in (1, x.shape[1]):
                raise SutureError(f"expected images of {len(values)} channels for this {name}, got "
                                  f"{x.shape[1]}; give channels={len(values)} or one number as {name}")
            by_channel = x.new_tensor(values)[:, None, None]
            x = x - by_channel if name == "mean" else x / by_channel
        return x


def compute_luma(x: Tensor) -> Tensor:
    """Compute the luma (N, 1, H, W) of colour (N, 3, H, W), by ITU-R BT.601 as in Pillow."""
    return torch.einsum("nchw,c->nhw", x, x.new_tensor((0.299, 0.587, 0.114)))[:, None]


def _round_to_bytes(x: Tensor) -> Tensor:
    """Round to 0, ..., 255. Halves, which are frequent, are rounded up as in Pillow."""
    return (x + 0.5).floor().clamp(0, 255)


def _parse_numbers(text: str) -> tuple[float, ...]:
    return tuple(float(v) for v in _split_list(text))


def _split_list(text: str) -> list[str]:
    """Split a list at its commas, slashes or blanks; brackets around it make no difference."""
    return re.split(r"\s*[/,]\s*|\s+", text.strip("[]() "))


def _parse_size(text: str) -> tuple[int, int]:
    sides = [int(v) for v in (text.split("x") if "x" in text else _split_list(text))]
    if len(sides) > 2:
        raise ValueError(text)
    return sides[0], sides[-1]


_PARSERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "size": (_parse_size, "64 or 48x64 (height x width)"), "mean": (_parse_numbers, "0.5 or 0.5,0.5,0.5"),
    "std": (_parse_numbers, "0.5 or 0.5,0.5,0.5"), "channels": (int, "3"), "interpolation": (str, "bicubic"),
    "crop": (float, "0.875"), "fit": (str, "squash"), "corner": (str, "floor")}


def parse_preprocessing(text: str) -> ImagePreprocessing | None:
    """Read a preprocessing such as ``size=64,mean=0.5,0.5,0.5,std=0.5``; return None for ``raw``.

    Keys and defaults are those of `ImagePreprocessing`. The numbers of a mean or std are separated by commas,
    slashes or blanks. Several of them say how many channels the network reads, unless `channels` does.

    Raises:
        SutureError: an unknown key, a key given twice, or a value that cannot be read.
    """
    if text == "raw":
        return None
    found: dict[str, Any] = {}
    for key, value in _split_options(text):
        if key not in _PARSERS:
            raise make_unknown_error("key of preprocessing", key, _PARSERS,
                                     f"keys: {', '.join(_PARSERS)}; or write raw")
        read, example = _PARSERS[key]
        if key in found:
            raise SutureError(f"expected {key} once, got it twice in {text!r}")
        try:
            found[key] = read(value)
        except ValueError as e:
            raise SutureError(f"expected {key}={example}, got {key}={value}") from e
    widths = {len(found[key]) for key in ("mean", "std") if key in found} - {1}
    if "channels" not in found and len(widths) == 1:
        found["channels"] = widths.pop()
    return ImagePreprocessing(**found)


def _split_options(text: str) -> list[tuple[str, str]]:
    """Split ``key=value,key=1,2,3`` at the commas before a key; all other commas belong to a value."""
    parts = re.split(r"\s*[,\s]\s*(?=[^,\s=]+\s*=)", text.strip())
    return [(key.strip(), value.strip()) for key, _, value in (part.partition("=") for part in parts)]
