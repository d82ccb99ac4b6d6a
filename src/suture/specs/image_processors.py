"""Image preprocessing from a preprocessor_config.json of the Hugging Face layout."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from suture._base import SutureError
from suture.data import ImagePreprocessing
from suture.specs.network_spec import FoundPreprocessing, note_unsupported

_RESAMPLE: Mapping[int, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}
"""Filters by Pillow's numbers."""
_UNSUPPORTED_FLAGS = ("do_pad", "do_flip_channel_order", "do_thumbnail", "do_align_long_axis",
                      "rescale_offset", "do_split_image",
                      "do_image_splitting", "do_crop_margin", "keep_aspect_ratio")
"""Flags of steps that `ImagePreprocessing` does not have."""
_SHORT_SIDE_KINDS = ("clip", "bit", "convnext", "levit", "mobilenet", "mobilevit", "poolformer")
"""Processors that apply a size of one number to the shorter side. Others apply it to both sides."""


class _UnsupportedStepError(Exception):
    """Error for a step of a preprocessing config that suture does not implement."""


def read_image_preprocessing(processor: Mapping[str, Any] | None, config: Any) -> FoundPreprocessing:
    """Return the preprocessing of `processor`, or None for steps that suture does not have, and notes.

    Without a processor, the network's config gives size and channels.
    """
    config = getattr(config, "vision_config", config)
    channels = getattr(config, "num_channels", None)
    if processor is None:
        size = getattr(config, "image_size", None)
        size = (size, size) if isinstance(size, int) else None if size is None else tuple(size)
        return ImagePreprocessing(size=size, channels=channels, fit="squash"), (
            "no preprocessor_config.json; images get the size of the config and are not normalised",)
    try:
        return _read_steps(processor, channels)
    except _UnsupportedStepError as e:
        return note_unsupported(f"{e} of preprocessor_config.json")
    except (SutureError, TypeError, ValueError, KeyError, IndexError) as e:
        return note_unsupported(f"this preprocessor_config.json: {type(e).__name__} {e}")


def _read_steps(processor: Mapping[str, Any], channels: int | None) -> FoundPreprocessing:
    if besides := [name for name in _UNSUPPORTED_FLAGS if processor.get(name)]:
        raise _UnsupportedStepError(besides[0])
    number = processor.get("resample", 2)
    if number not in _RESAMPLE and processor.get("do_resize", True):
        raise _UnsupportedStepError(f"resample {number}")
    size, crop, fit, notes = _read_size(processor)
    mean, std = _read_scale(processor)
    if channels is None and mean is not None:
        channels = len(mean)
    return ImagePreprocessing(size, mean, std, channels, _RESAMPLE.get(number, "bilinear"), crop, fit,
                              "floor"), notes


def _read_size(processor: Mapping[str, Any]) -> tuple[tuple[int, int] | None, float,
                                                      Literal["crop", "squash"], tuple[str, ...]]:
    """Return (size, crop, fit, notes)."""
    crops = processor.get("do_center_crop", False)
    kind = str(processor.get("image_processor_type") or processor.get("feature_extractor_type") or "")
    if not processor.get("do_resize", True):
        if crops:
            raise _UnsupportedStepError("a crop without resizing")
        return None, 1.0, "crop", ()
    resize, share = _read_resize(processor.get("size"), kind), processor.get("crop_pct")
    short = isinstance(resize, int)
    edges = (resize, resize) if isinstance(resize, int) else resize
    if short and kind.startswith("ConvNext"):
        # As in ConvNextImageProcessor of transformers: only sizes below 384 are cropped.
        return (edges, share or 224 / 256, "crop", ()) if edges[0] < 384 else (edges, 1.0, "squash", ())
    if not crops:
        return edges, 1.0, "crop" if short else "squash", (
            "preprocessor_config.json keeps the proportions of images; suture crops them to squares",
        ) if short else ()
    size = _read_pair(processor["crop_size"])
    if share:
        return size, share, "crop", ()
    shares = {inner / outer for inner, outer in zip(size, edges, strict=True) if outer}
    if len(shares) != 1 or (short and size[0] != size[1]) or max(shares) > 1:
        raise _UnsupportedStepError(f"size {processor.get('size')} beside crop_size {processor['crop_size']}")
    return size, shares.pop(), "crop" if short else "squash", ()


def _read_resize(size: Any, kind: str) -> int | tuple[int, int]:
    """Return the length of the shorter side, or (height, width)."""
    if isinstance(size, Mapping) and set(size) == {"shortest_edge"}:
        edge = int(size["shortest_edge"])
    elif isinstance(size, int) and any(name in kind.lower() for name in _SHORT_SIDE_KINDS):
        edge = size
    else:
        return _read_pair(size)
    return int(256 / 224 * edge) if kind.startswith("Levit") else edge


def _read_pair(size: Any) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    if isinstance(size, list) and len(size) == 2:
        return int(size[0]), int(size[1])
    if isinstance(size, Mapping) and set(size) == {"height", "width"}:
        return int(size["height"]), int(size["width"])
    raise _UnsupportedStepError(f"size {size}")


def _read_scale(processor: Mapping[str, Any]) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Return (mean, std) on the scale [0, 1], with a factor other than 1 / 255 included."""
    k = 255 * float(processor.get("rescale_factor", 1 / 255)) if processor.get("do_rescale", True) else 255.0
    k = 1.0 if math.isclose(k, 1.0) else k
    if processor.get("do_normalize", "image_mean" in processor):
        return tuple(v / k for v in processor["image_mean"]), tuple(v / k for v in processor["image_std"])
    return None, None if k == 1 else (1 / k,)
