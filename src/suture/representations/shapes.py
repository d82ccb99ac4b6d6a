"""Shapes of representations: map, tokens or vector, recognised from a tensor or given by the user."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from torch import Tensor

from suture._base import SutureError, expect, walk_tensors

MOST_PREFIX_TOKENS = 8
"""Largest number of prefix tokens that is tried: a class token, a distillation token, registers."""
Size = tuple[int, int]
"""(height, width)."""


class Kind(Enum):
    """Kind of a representation: a map (C, H, W), tokens (T, D) or a vector (D)."""

    MAP = "map"
    TOKENS = "tokens"
    VECTOR = "vector"


@dataclass(frozen=True)
class Shape:
    """Shape of one example's representation. Equality ignores the length of sequences of varying length.

    Attributes:
        kind: map, tokens or vector.
        width: number of channels or token dimensions.
        size: positions: (H, W) of a map, (T,) of tokens, () of a vector.
        prefix: number of tokens at the start that are no positions (class token, registers).
        grid: (H, W) where the tokens after the prefix are the patches of an image, row by row.
        last: True for a map (N, H, W, C) with the channels as the last axis.
        varies: True for tokens of a text: each batch has its own number. `size` is that of the dry run.
        sequence: number of the input sequence that these tokens are of, such as 1 for a decoder's; else 0.
    """

    kind: Kind
    width: int
    size: tuple[int, ...] = ()
    prefix: int = 0
    grid: Size | None = None
    last: bool = False
    varies: bool = False
    sequence: int = 0

    def __str__(self) -> str:
        dims = (self.width, *self.size) if self.kind is Kind.MAP else (*self.size, self.width)
        parts = [f"{self.prefix} prefix"] if self.prefix else []
        parts += ["{}x{} patches".format(*self.grid)] if self.grid else []
        parts += ["channels last"] if self.last else []
        about = "~" * self.varies + "x".join(map(str, dims))
        return f"{self.kind.value} {about}" + (f" ({', '.join(parts)})" if parts else "")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shape) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[object, ...]:
        size = () if self.varies else self.size
        return self.kind, self.width, size, self.prefix, self.grid, self.last, self.varies, self.sequence

    @property
    def is_sequence(self) -> bool:
        """True for tokens that are no patches of an image."""
        return self.kind is Kind.TOKENS and self.grid is None

    @property
    def rows(self) -> int:
        """Number of rows that one example adds to a matrix; for varying lengths the number in the dry run."""
        return math.prod(self.size)

    @property
    def dims(self) -> tuple[int, ...]:
        """Axes of one example's tensor: (C, H, W) or (H, W, C), (T, D), (D,)."""
        first = self.kind is Kind.MAP and not self.last
        return (self.width, *self.size) if first else (*self.size, self.width)

    def fits(self, x: Tensor) -> bool:
        """Return True where `x` is a batch of such representations."""
        if self.varies:
            return x.ndim == 3 and x.shape[1] > self.prefix and x.shape[2] == self.width
        return tuple(x.shape[1:]) == self.dims

    def describe_tensor(self, x: Tensor) -> str:
        """Describe `x` as a representation of this kind, or by its axes if it cannot be one."""
        if x.ndim != len(self.dims) + 1:
            return f"shape {tuple(x.shape)}"
        axes = list(x.shape[1:])
        width = axes.pop(0 if self.kind is Kind.MAP and not self.last else -1)
        return str(replace(self, width=width, size=tuple(axes), prefix=0, grid=None))


def recognise_shape(x: Tensor, image: Size | None = None, lengths: Collection[int] = (),
                    inner: int | None = None) -> Shape:
    """Recognise the shape of a batch: (N, C, H, W) is a map, (N, T, D) tokens, (N, D) a vector.

    Args:
        image: (H, W) of the network's images, if any. Tokens are then patches after the shortest prefix, up
            to `MOST_PREFIX_TOKENS`, that leaves a grid of the image's proportions. Channels are last if axes
            1 and 2 have these proportions and axes 2 and 3 do not.
        lengths: lengths of the network's input sequences (`find_sequence_lengths`). Tokens of such a number
            are those of a text: they have no prefix, and each batch has its own number.
        inner: width of the last layer norm or linear layer in the module that returned `x`. If both pairs of
            axes have the proportions, channels are last if `inner` is the length of axis 3 and not of axis 1.

    Raises:
        SutureError: any other number of axes.
    """
    if x.ndim == 4:
        return _make_map_shape(x, image is not None and _is_channels_last(x, image, inner))
    if x.ndim == 3:
        if x.shape[1] in lengths:
            return Shape(Kind.TOKENS, x.shape[2], (x.shape[1],), varies=True)
        prefix, grid = (0, None) if image is None else _find_patches(x.shape[1], image)
        return Shape(Kind.TOKENS, x.shape[2], (x.shape[1],), prefix, grid)
    if x.ndim == 2:
        return Shape(Kind.VECTOR, x.shape[1])
    raise SutureError("expected a representation (N, C, H, W), (N, T, D) or (N, D), got shape "
                      f"{tuple(x.shape)}; choose another site or output slot")


def _make_map_shape(x: Tensor, last: bool) -> Shape:
    _, a, b, c = x.shape
    return Shape(Kind.MAP, c, (a, b), last=True) if last else Shape(Kind.MAP, a, (b, c))


def _is_channels_last(x: Tensor, image: Size, inner: int | None) -> bool:
    _, a, b, c = x.shape
    return (_has_proportions((a, b), image)
            and (not _has_proportions((b, c), image) or (inner == c and inner != a)))


def _has_proportions(size: Size, image: Size) -> bool:
    """Return True where both sides are the image's times one factor, each rounded up or down."""
    return abs(size[0] * image[1] - size[1] * image[0]) < max(image)


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
    """Shape of a site as the user gives it; without a `grid` it follows from the image's proportions."""

    kind: Kind
    prefix: int = 0
    grid: Size | None = None
    last: bool = False

    @classmethod
    def parse(cls, text: str) -> ShapeOverride:
        """Parse ``map``, ``map:last``, ``vector``, ``tokens``, ``tokens:1`` or ``tokens:1,14x14``.

        The last two give the number of prefix tokens and the grid (H x W) of the patches.

        Raises:
            SutureError: anything else.
        """
        m = re.fullmatch(r"(map|vector|tokens)|(map:last)|tokens:(\d+)(?:,(\d+)x(\d+))?", text)
        if m is None:
            raise SutureError(f"expected map, map:last, vector, tokens, tokens:1 or tokens:1,14x14 after the "
                              f"@ of a site, got {text!r}")
        if m[3] is None:
            return cls(Kind(m[1] or "map"), last=m[2] is not None)
        return cls(Kind.TOKENS, int(m[3]), (int(m[4]), int(m[5])) if m[4] else None)

    def build_shape(self, x: Tensor, image: Size | None = None, lengths: Collection[int] = ()) -> Shape:
        """Build the shape of a batch with the arguments of `recognise_shape`, or raise a `SutureError`."""
        axes = {Kind.MAP: "(N, H, W, C)" if self.last else "(N, C, H, W)", Kind.TOKENS: "(N, T, D)",
                Kind.VECTOR: "(N, D)"}[self.kind]
        expect(x.ndim == axes.count(",") + 1, f"{axes} for {self.kind.value}", f"shape {tuple(x.shape)}",
               "write another kind after @, or none")
        if self.kind is Kind.MAP:
            return _make_map_shape(x, self.last)
        if self.kind is Kind.VECTOR:
            return Shape(Kind.VECTOR, x.shape[1])
        count, varies = x.shape[1], x.shape[1] in lengths and self.grid is None
        patches = count - self.prefix
        if patches < 1 or (self.grid is not None and math.prod(self.grid) != patches):
            wanted = (f"more than {self.prefix} tokens" if self.grid is None else
                      f"{self.prefix} prefix tokens and {self.grid[0]}x{self.grid[1]} patches")
            raise SutureError(f"expected {wanted}, got {count} tokens, shape {tuple(x.shape)}; "
                              "write @tokens:PREFIX,HEIGHTxWIDTH that add up to these")
        grid = self.grid
        if grid is None and image is not None and not varies:
            grid = _find_patch_grid(patches, image) or _find_patch_grid(patches, image, cut=True)
        return Shape(Kind.TOKENS, x.shape[2], (count,), self.prefix, grid, varies=varies)


def find_image_size(inputs: Any) -> Size | None:
    """Return (H, W) of the images: "pixel_values", or the first input (N, C, H, W); None without any."""
    images = inputs["pixel_values"] if isinstance(inputs, Mapping) and "pixel_values" in inputs else inputs
    for t in walk_tensors(images):
        if t.ndim == 4 and t.is_floating_point():
            return t.shape[2], t.shape[3]
    return None
