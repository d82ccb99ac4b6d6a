"""Kinds of auxiliary images and token ids.

All kinds of images but the photographs follow Hendrycks et al., "Deep Anomaly Detection with Outlier
Exposure", ICLR 2019.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from suture._base import check_finite
from suture.data.image_preprocessing import compute_luma

_SMALLEST_CROP = 1 / 3
"""Side of the smallest crop of a photograph, relative to the largest. Smaller crops show only sky."""


@dataclass(frozen=True)
class Images:
    """Images to start from.

    Attributes:
        tensor: (N, C, H, W) images on their own device.
        low, high: (C, 1, 1) lowest and highest value of each channel, on the CPU, in the dtype to compute in.
    """

    tensor: Tensor
    low: Tensor
    high: Tensor
    name = "images"

    @classmethod
    def of(cls, pixels: Tensor) -> Images:
        """Measure the range of `pixels` (N, C, H, W)."""
        dtype = torch.float64 if pixels.dtype == torch.float64 else torch.float32
        low, high = (m.cpu().to(dtype)[:, None, None]
                     for m in (pixels.amin((0, 2, 3)), pixels.amax((0, 2, 3))))
        check_finite(torch.stack([low, high]), "the images to make auxiliary data from",
                     "correct the inputs, or pass auxiliary=your own data")
        return cls(pixels, low, high)

    @property
    def dtype(self) -> torch.dtype:
        return self.low.dtype

    def take_rows(self, rows: Tensor) -> Tensor:
        """Return (k, C, H, W) images on the CPU."""
        return self.tensor[rows.to(self.tensor.device)].cpu()

    def clip_to_range(self, x: Tensor) -> Tensor:
        """Clip values to each channel's range and convert them to the images' dtype."""
        x = x if self.tensor.is_floating_point() else x.round()
        return x.clamp(self.low, self.high).to(self.tensor.dtype)


class Maker(NamedTuple):
    """One kind of auxiliary data.

    Attributes:
        make: function (originals, rows to start from (k,), generator) -> k examples on the CPU.
        suits: function that returns True for originals from which the kind can be made.
        needs: requirement of `suits`, for messages.
    """

    make: Callable[[Any, Tensor, torch.Generator], Tensor]
    suits: Callable[[Any], bool] = lambda _: True
    needs: str = ""


def _make_gaussian(images: Images, rows: Tensor, generator: torch.Generator) -> Tensor:
    std, mean = (m.cpu()[:, None, None] for m in
                 torch.std_mean(images.tensor.to(images.dtype), dim=(0, 2, 3), correction=0))
    noise = torch.randn(len(rows), *images.tensor.shape[1:], generator=generator, dtype=images.dtype)
    return images.clip_to_range(mean + std * noise)


def _make_uniform(images: Images, rows: Tensor, generator: torch.Generator) -> Tensor:
    # Whole numbers are rounded. Half a step more on either side gives both ends their full share.
    half = 0.0 if images.tensor.is_floating_point() else 0.5
    noise = torch.rand(len(rows), *images.tensor.shape[1:], generator=generator, dtype=images.dtype)
    return images.clip_to_range(torch.lerp(images.low - half, images.high + half, noise))


def _make_blobs(images: Images, rows: Tensor, generator: torch.Generator) -> Tensor:
    """Make blobs from the upper half of the range of smooth noise, stretched to each channel's range."""
    k, (c, h, w) = len(rows), images.tensor.shape[1:]
    # The part shared by all channels makes the spots. The part of each channel colours them.
    noise = sum((torch.randn(k, own, h, w, generator=generator, dtype=images.dtype) for own in (1, c)),
                torch.zeros((), dtype=images.dtype))
    # In pixels: 1.5 for images of 32 pixels, as in Hendrycks et al. (2019).
    sigma = max(1.0, 1.5 * min(h, w) / 32)
    square = (torch.fft.fftfreq(h, dtype=images.dtype)[:, None].square()
              + torch.fft.rfftfreq(w, dtype=images.dtype).square())
    smooth = torch.fft.irfft2(torch.fft.rfft2(noise) * torch.exp(-2 * (math.pi * sigma) ** 2 * square),
                              s=(h, w))
    least, most = smooth.amin((2, 3), keepdim=True), smooth.amax((2, 3), keepdim=True)
    height = ((smooth - least) / (most - least) * 2 - 1).clamp(min=0)
    return images.clip_to_range(torch.lerp(images.low, images.high, height))


def _shuffle_patches(images: Images, rows: Tensor, generator: torch.Generator) -> Tensor:
    """Shuffle patches of equal size. The rest at the bottom and at the right stays in place."""
    x = images.take_rows(rows)
    k, c, h, w = x.shape
    down, across = _count_bands(h), _count_bands(w)
    high, wide = h // down, w // across
    cut = x[:, :, :down * high, :across * wide]
    tiles = cut.reshape(k, c, down, high, across, wide).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    order = torch.rand(k, down * across, generator=generator, dtype=torch.float32).argsort(1)
    tiles = tiles[torch.arange(k)[:, None], order].reshape(k, down, across, c, high, wide)
    cut.copy_(tiles.permute(0, 3, 1, 4, 2, 5).reshape(cut.shape))
    return x


def _count_bands(size: int) -> int:
    """Return into how many bands an axis is cut: 4, 3 or 2, with at most a quarter of it left uncovered."""
    return next((bands for bands in (4, 3) if 4 * (size % bands) <= size), 2)


def _permute_channels(images: Images, rows: Tensor, generator: torch.Generator) -> Tensor:
    x = images.take_rows(rows)
    k, c = x.shape[:2]
    order = torch.arange(c).repeat(k, 1)
    while (same := (order == torch.arange(c)).all(1)).any():
        order[same] = torch.rand(int(same.sum()), c, generator=generator, dtype=torch.float32).argsort(1)
    return torch.as_tensor(x[torch.arange(k)[:, None], order])


def _invert_images(images: Images, rows: Tensor, generator: torch.Generator) -> Tensor:
    return images.clip_to_range(images.low + images.high - images.take_rows(rows).to(images.dtype))


def _mix_images(images: Images, rows: Tensor, generator: torch.Generator) -> Tensor:
    n = len(images.tensor)
    others = (rows + torch.randint(1, n, rows.shape, generator=generator)) % n
    one, other = (images.take_rows(r).to(images.dtype) for r in (rows, others))
    return images.clip_to_range(one / 2 + other / 2)


def _crop_photographs(images: Images, rows: Tensor, generator: torch.Generator) -> Tensor:
    """Crop photographs in the images' proportions, resize them to the images' size, flip half of them."""
    c, h, w = images.tensor.shape[1:]
    photos = _load_photographs()
    photos = compute_luma(photos) if c == 1 else photos[:, [i % 3 for i in range(c)]]
    sides = photos.shape[2:]
    largest = min(sides[0] / h, sides[1] / w)
    out = []
    for which, scale, y, x, flip in torch.rand(len(rows), 5, generator=generator,
                                               dtype=torch.float32).tolist():
        length = largest * (_SMALLEST_CROP + (1 - _SMALLEST_CROP) * scale)
        high, wide = (min(side, max(1, round(length * s))) for side, s in zip(sides, (h, w), strict=True))
        top, left = int(y * (sides[0] - high + 1)), int(x * (sides[1] - wide + 1))
        crop = photos[int(which * len(photos)), None, :, top:top + high, left:left + wide]
        sized = F.interpolate(crop, size=(h, w), mode="bilinear", antialias=True)[0]
        out.append(sized.flip(-1) if flip < 0.5 else sized)
    return images.clip_to_range(torch.lerp(images.low, images.high, torch.stack(out).to(images.dtype)))


def _differs(one: Tensor, other: Tensor) -> bool:
    return bool((one != other).any())


@lru_cache(maxsize=1)
def _load_photographs() -> Tensor:
    """Load (2, 3, 427, 640) float32 in [0, 1]: a temple in China and a flower."""
    # Imported here, because scikit-learn needs a second to load and nothing else in this module uses it.
    from sklearn.datasets import load_sample_images

    return (torch.stack([torch.tensor(image) for image in load_sample_images().images]).movedim(3, 1).float()
            / 255)


@dataclass(frozen=True)
class Tokens:
    """Token ids to start from.

    Attributes:
        tensor, ids: (N, T) ids on their own device, and on the CPU.
        free: (N, T) booleans, True at replaceable ids.
        vocabulary: (V,) the replaceable ids, each once.
    """

    tensor: Tensor
    ids: Tensor
    free: Tensor
    vocabulary: Tensor
    name = "tokens"

    @classmethod
    def of(cls, given: Tensor, unpadded: Tensor) -> Tokens:
        """Find the replaceable ids in `given` (N, T); `unpadded` (N, T) is True except at padding."""
        ids = given.cpu()
        free = _find_replaceable(ids, unpadded.cpu())
        return cls(given, ids, free, torch.unique(ids[free]))


def _find_replaceable(ids: Tensor, unpadded: Tensor) -> Tensor:
    """Return (N, T) booleans, True at unpadded positions whose id differs between examples.

    The other positions may hold a separator or a fixed prompt.
    """
    free, t = unpadded.clone(), ids.shape[1]
    filled = unpadded.any(1).nonzero()[:, 0]
    begin, end = unpadded.int().argmax(1)[filled], t - 1 - unpadded.flip(1).int().argmax(1)[filled]
    columns = [(rows, torch.full_like(rows, p)) for p in range(t)
               for rows in [unpadded[:, p].nonzero()[:, 0]]]
    for rows, at in [*columns, (filled, begin), (filled, end)]:
        held = ids[rows, at]
        # A single example does not show that all examples hold this id.
        if len(rows) > 1 and (held == held[0]).all():
            free[rows, at] = False
    return free


def _shuffle_ids(tokens: Tokens, rows: Tensor, generator: torch.Generator) -> Tensor:
    ids, free = tokens.ids[rows], tokens.free[rows]
    keys = torch.rand(ids.shape, generator=generator, dtype=torch.float32).masked_fill(~free, 2)
    # The sort is stable, so both orders end with the positions that stay, in the same order.
    places, drawn = (torch.argsort(k, dim=1, stable=True) for k in ((~free).int(), keys))
    return ids.scatter(1, places, ids.gather(1, drawn))


def _draw_ids(tokens: Tokens, rows: Tensor, generator: torch.Generator) -> Tensor:
    ids, known = tokens.ids[rows], tokens.vocabulary
    drawn = known[torch.randint(len(known), ids.shape, generator=generator)]
    return torch.where(tokens.free[rows], drawn, ids)


def _can_draw(tokens: Tokens) -> bool:
    return len(tokens.vocabulary) > 1


def _can_shuffle(tokens: Tokens) -> bool:
    first = tokens.ids.gather(1, tokens.free.int().argmax(1, keepdim=True))
    return _can_draw(tokens) and bool(((tokens.ids != first) & tokens.free).any())


KINDS: Mapping[str, Mapping[str, Maker]] = MappingProxyType({
    "images": {
        "gaussian": Maker(_make_gaussian),
        "uniform": Maker(_make_uniform),
        "blobs": Maker(_make_blobs, lambda i: i.tensor[0, 0].numel() > 1, "at least 2 pixels"),
        "patches": Maker(_shuffle_patches, lambda i: min(i.tensor.shape[2:]) > 1 and _differs(
            i.tensor, i.tensor[:, :, :1, :1]), "at least 2 x 2 pixels that differ"),
        "channels": Maker(_permute_channels, lambda i: _differs(i.tensor, i.tensor[:, :1]),
                          "channels that differ"),
        "inversion": Maker(_invert_images),
        "mixture": Maker(_mix_images, lambda i: _differs(i.tensor, i.tensor[:1]),
                         "at least 2 different images"),
        "photographs": Maker(_crop_photographs)},
    "tokens": {
        "shuffled": Maker(_shuffle_ids, _can_shuffle,
                          "an example with 2 different ids where the examples differ"),
        "random": Maker(_draw_ids, _can_draw, "at least 2 different ids where the examples differ")}})
"""Every kind of auxiliary data by its name, for images and for tokens."""
