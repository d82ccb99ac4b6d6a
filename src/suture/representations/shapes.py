"""Shapes of representations: map, tokens or vector, and what a batch of inputs says about them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from torch import Tensor

from suture._base import walk_tensors

Size = tuple[int, ...]
"""(time,), (height, width) or (depth, height, width)."""


class Kind(Enum):
    """Kind of a representation: a map (C, T), (C, H, W) or (C, D, H, W), tokens (T, D) or a vector (D)."""

    MAP = "map"
    TOKENS = "tokens"
    VECTOR = "vector"


@dataclass(frozen=True)
class Shape:
    """Shape of one example's representation. Equality ignores the length of sequences of varying length.

    Attributes:
        kind: map, tokens or vector.
        width: number of channels or token dimensions.
        size: positions: (T,), (H, W) or (D, H, W) of a map, (T,) of tokens, () of a vector.
        prefix: number of tokens at the start that are no positions (class token, registers).
        grid: (H, W) or (D, H, W) where the positions of one axis, after the prefix, are the patches of an
            image or a volume, row by row.
        last: True for a map with the channels as the last axis.
        varies: True for positions of a text: each batch has its own number. `size` is that of the dry run.
        sequence: number of the input sequence that these tokens are of, such as 1 for a decoder's; else 0.
    """

    kind: Kind
    width: int
    size: Size = ()
    prefix: int = 0
    grid: Size | None = None
    last: bool = False
    varies: bool = False
    sequence: int = 0

    def __str__(self) -> str:
        parts = [f"{self.prefix} prefix"] if self.prefix else []
        parts += [f"{format_size(self.grid)} patches"] if self.grid else []
        parts += ["channels last"] if self.last else []
        about = "~" * self.varies + format_size(self.dims if not self.last else (self.width, *self.size))
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
        """True for positions along one axis that are no patches: tokens of a text, a map of a signal."""
        return len(self.size) == 1 and self.grid is None

    @property
    def rows(self) -> int:
        """Number of rows that one example adds to a matrix; for varying lengths the number in the dry run."""
        return math.prod(self.size)

    @property
    def channels_first(self) -> bool:
        """True for maps (N, C, ...)."""
        return self.kind is Kind.MAP and not self.last

    @property
    def dims(self) -> tuple[int, ...]:
        """Axes of one example's tensor: (C, H, W) or (H, W, C), (T, D), (D,)."""
        return (self.width, *self.size) if self.channels_first else (*self.size, self.width)

    def get_size(self, x: Tensor) -> Size:
        """Return the positions of a batch along each axis."""
        return tuple(x.shape[2:] if self.channels_first else x.shape[1:-1])

    def fits(self, x: Tensor) -> bool:
        """Return True where `x` is a batch of such representations."""
        if self.varies:
            return (x.ndim == 3 and self.get_size(x)[0] > self.prefix
                    and x.shape[1 if self.channels_first else 2] == self.width)
        return tuple(x.shape[1:]) == self.dims

    def describe_tensor(self, x: Tensor) -> str:
        """Describe `x` as a representation of this kind, or by its axes if it cannot be one."""
        if x.ndim != len(self.dims) + 1:
            return f"shape {tuple(x.shape)}"
        width = x.shape[1 if self.channels_first else -1]
        return str(replace(self, width=width, size=self.get_size(x), prefix=0, grid=None))


def format_size(size: Size) -> str:
    return "x".join(map(str, size))


def find_image_size(inputs: Any) -> Size | None:
    """Return (H, W) of the images: "pixel_values", or the first input (N, C, H, W); None without any."""
    images = inputs["pixel_values"] if isinstance(inputs, Mapping) and "pixel_values" in inputs else inputs
    for t in walk_tensors(images):
        if t.ndim == 4 and t.is_floating_point():
            return t.shape[2], t.shape[3]
    return None
