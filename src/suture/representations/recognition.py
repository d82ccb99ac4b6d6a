"""Recognition of shapes: by the operations that made a representation, by its axes, or as a user says."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from suture._base import SutureError, expect
from suture.representations.shapes import Kind, Shape, Size, format_size

MOST_PREFIX_TOKENS = 8
"""Largest number of prefix tokens that is tried: a class token, a distillation token, registers."""
NO_CHANNELS = -1
"""Value in place of the axis of the channels: a product of two representations, such as attention weights."""


@dataclass(frozen=True)
class Evidence:
    """What a forward pass shows about a representation.

    Attributes:
        channels: axis of the channels by the operations that made the representation: 1 after Conv1d or
            BatchNorm1d, the last one after a linear layer or LayerNorm. None: unknown. `NO_CHANNELS`: a
            product of two representations.
        merged: by number of positions, the sizes of the axes that the network merged into so many; () where
            it cut an image into so many patches.
        has_signals: True if the network has representations (N, C, T).
    """

    channels: int | None = None
    merged: Mapping[int, Collection[Size]] = field(default_factory=dict)
    has_signals: bool = False

    def find_patches(self, count: int, image: Size | None) -> tuple[int, Size | None]:
        """Find (prefix, grid) of `count` tokens; (0, None) if they are no patches."""
        for prefix in range(min(MOST_PREFIX_TOKENS, count - 1) + 1):
            if grid := self._find_grid(count - prefix, image):
                return prefix, grid
        return 0, None

    def _find_grid(self, count: int, image: Size | None) -> Size | None:
        """Find the axes that were merged into `count` positions. Two of them are patches in images only."""
        found = {size or (_find_patch_grid(count, image) if image else None)
                 for size in self.merged.get(count, ())}
        fit = [size for size in found if size and (len(size) == 3 or (len(size) == 2 and image))]
        alike = [size for size in fit if image and _has_proportions(size, image)]
        return fit[0] if len(fit) == 1 else alike[0] if len(alike) == 1 else None


UNKNOWN = Evidence()


def recognise_shape(x: Tensor, image: Size | None = None, lengths: Collection[int] = (),
                    seen: Evidence = UNKNOWN) -> Shape:
    """Recognise the shape of a batch by what made it, and else by its axes.

    (N, D) is a vector, (N, C, T) or (N, T, C), (N, C, H, W) or (N, H, W, C), (N, C, D, H, W) or
    (N, D, H, W, C) are maps, and (N, T, D) are tokens.

    Args:
        image: (H, W) of the network's images, if any. Without evidence, channels are last if axes 1 and 2
            have its proportions and axes 2 and 3 do not, and tokens are patches after the shortest prefix, up
            to `MOST_PREFIX_TOKENS`, that leaves a grid of its proportions.
        lengths: lengths of the network's input sequences (`find_sequence_lengths`). Tokens of such a number
            are those of a text: they have no prefix, and each batch has its own number.
        seen: evidence from a forward pass.

    Raises:
        SutureError: another number of axes, or nothing that tells where the channels are.
    """
    if x.ndim == 2:
        return Shape(Kind.VECTOR, x.shape[1])
    if x.ndim == 3:
        return _recognise_sequence(x, image, lengths, seen)
    if x.ndim in (4, 5):
        return _make_map_shape(x, _is_channels_last(x, image, seen))
    raise SutureError("expected a representation (N, C, H, W), (N, T, D) or (N, D), got shape "
                      f"{tuple(x.shape)}; choose another site or output slot")


def _recognise_sequence(x: Tensor, image: Size | None, lengths: Collection[int], seen: Evidence) -> Shape:
    """Recognise tokens (N, T, D), or a map (N, C, T), also of the patches of an image."""
    if seen.channels == 1:
        return _make_map_shape(x, False, image, lengths, seen)
    if seen.channels != 2 and seen.has_signals and x.shape[1] not in lengths:
        raise SutureError(f"cannot tell where the channels of shape {tuple(x.shape)} are; write @map behind "
                          "the site for (N, C, T), or @tokens for (N, T, D)")
    if x.shape[1] in lengths:
        return Shape(Kind.TOKENS, x.shape[2], (x.shape[1],), varies=True)
    prefix, grid = (seen.find_patches(x.shape[1], image) if seen.channels == 2
                    else (0, None) if image is None else _find_patches(x.shape[1], image))
    return Shape(Kind.TOKENS, x.shape[2], (x.shape[1],), prefix, grid)


def _make_map_shape(x: Tensor, last: bool, image: Size | None = None, lengths: Collection[int] = (),
                    seen: Evidence = UNKNOWN) -> Shape:
    width, *size = (x.shape[-1], *x.shape[1:-1]) if last else x.shape[1:]
    if len(size) > 1:
        return Shape(Kind.MAP, width, tuple(size), last=last)
    prefix, grid = seen.find_patches(size[0], image)
    return Shape(Kind.MAP, width, tuple(size), grid=None if prefix else grid, last=last,
                 varies=size[0] in lengths)


def _is_channels_last(x: Tensor, image: Size | None, seen: Evidence) -> bool:
    """Return True for (N, H, W, C): by the evidence, else by the image's proportions."""
    if seen.channels in (1, x.ndim - 1):
        return seen.channels != 1
    if x.ndim == 4 and image is not None and seen.channels is None:
        first, last = (_has_proportions(tuple(size), image) for size in (x.shape[2:], x.shape[1:3]))
        if first or last:
            return not first
    what = ("is a product of two representations, such as attention weights" if seen.channels == NO_CHANNELS
            else "does not tell where the channels are")
    raise SutureError(f"shape {tuple(x.shape)} {what}; write @map behind the site for (N, C, ...), @map:last "
                      "for (N, ..., C), or leave it out")


def _has_proportions(size: Size, image: Size) -> bool:
    """Return True where both sides are the image's times one factor, each rounded up or down."""
    return len(size) == 2 and abs(size[0] * image[1] - size[1] * image[0]) < max(image)


def _find_patches(count: int, image: Size) -> tuple[int, Size | None]:
    """Find (prefix, grid) of `count` patches; exact proportions of the image come first."""
    for cut in (False, True):
        for prefix in range(min(MOST_PREFIX_TOKENS, count - 1) + 1):
            grid = _find_patch_grid(count - prefix, image, cut)
            if grid is not None:
                return prefix, grid
    return 0, None


def _find_patch_grid(count: int, image: Size, cut: bool = False) -> Size | None:
    """Find the grid of `count` patches, or None; with `cut`, of square patches that leave a margin."""
    if cut:
        found = ((image[0] // p, image[1] // p) for p in range(2, min(image) + 1))
        return next((g for g in found if g[0] * g[1] == count), None)
    shrink = math.gcd(*image)
    tall, wide = image[0] // shrink, image[1] // shrink
    side = math.isqrt(count // (tall * wide))
    return (tall * side, wide * side) if side and side * side * tall * wide == count else None


@dataclass(frozen=True)
class ShapeOverride:
    """Shape of a site as the user gives it; without a `grid` it follows from the image."""

    kind: Kind
    prefix: int = 0
    grid: Size | None = None
    last: bool = False

    @classmethod
    def parse(cls, text: str) -> ShapeOverride:
        """Parse ``map``, ``map:last``, ``vector``, ``tokens``, ``tokens:1`` or ``tokens:1,14x14``.

        The last two give the number of prefix tokens and the grid (H x W or D x H x W) of the patches.

        Raises:
            SutureError: anything else.
        """
        m = re.fullmatch(r"(map|vector|tokens)|(map:last)|tokens:(\d+)(?:,(\d+(?:x\d+){1,2}))?", text)
        if m is None:
            raise SutureError(f"expected map, map:last, vector, tokens, tokens:1 or tokens:1,14x14 after the "
                              f"@ of a site, got {text!r}")
        if m[3] is None:
            return cls(Kind(m[1] or "map"), last=m[2] is not None)
        return cls(Kind.TOKENS, int(m[3]), tuple(map(int, m[4].split("x"))) if m[4] else None)

    def build_shape(self, x: Tensor, image: Size | None = None, lengths: Collection[int] = (),
                    seen: Evidence = UNKNOWN) -> Shape:
        """Build the shape of a batch with the arguments of `recognise_shape`, or raise a `SutureError`."""
        axes, most = {Kind.MAP: ("(N, ..., C)" if self.last else "(N, C, ...)", 5),
                      Kind.TOKENS: ("(N, T, D)", 3), Kind.VECTOR: ("(N, D)", 2)}[self.kind]
        least = 3 if self.kind is Kind.MAP else most
        expect(least <= x.ndim <= most, f"{axes} for {self.kind.value}", f"shape {tuple(x.shape)}",
               "write another kind, or none")
        if self.kind is Kind.MAP:
            return _make_map_shape(x, self.last, image, lengths, seen)
        if self.kind is Kind.VECTOR:
            return Shape(Kind.VECTOR, x.shape[1])
        count, varies = x.shape[1], x.shape[1] in lengths and self.grid is None
        patches = count - self.prefix
        if patches < 1 or (self.grid is not None and math.prod(self.grid) != patches):
            wanted = (f"more than {self.prefix} tokens" if self.grid is None else
                      f"{self.prefix} prefix tokens and {format_size(self.grid)} patches")
            raise SutureError(f"expected {wanted}, got {count} tokens, shape {tuple(x.shape)}; "
                              "write @tokens:PREFIX,HEIGHTxWIDTH that add up to these")
        grid = self.grid
        if grid is None and image is not None and not varies:
            grid = _find_patch_grid(patches, image) or _find_patch_grid(patches, image, cut=True)
        return Shape(Kind.TOKENS, x.shape[2], (count,), self.prefix, grid, varies=varies)
