"""The kinds of representation and how two of them are brought to the same rows. The only place that knows shapes.

Inside suture a representation is seen as *grids* (N, H, W, C), channels last. A map (N, C, H, W) is one by a
permutation that copies nothing where the network runs channels last; tokens (N, T, D) are one of height 1, or the
map that their patches form; a vector (N, D) is a grid of one position.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from suture._errors import SutureError, unknown
from suture.resampling import Resampling

MOST_PREFIX = 8
"""Prefix tokens that are looked for: a class token, a distillation token, registers."""


class Kind(Enum):
    """What a site outputs: a map (C, H, W), tokens (T, D) or a vector (D)."""

    MAP = "map"
    TOKENS = "tokens"
    VECTOR = "vector"


@dataclass(frozen=True)
class Shape:
    """Shape of one example's representation.

    Attributes:
        kind: map, tokens or vector.
        width: number of channels or token dimensions.
        size: positions: (H, W) of a map, (T,) of tokens, () of a vector.
        prefix: tokens only: how many of them, at the start, are no positions (class token, registers).
        grid: tokens only: (H, W) where the tokens after the prefix are the patches of an image, row by row.
    """

    kind: Kind
    width: int
    size: tuple[int, ...] = ()
    prefix: int = 0
    grid: tuple[int, int] | None = None

    def __str__(self) -> str:
        dims = (self.width, *self.size) if self.kind is Kind.MAP else (*self.size, self.width)
        parts = [f"{self.prefix} prefix"] if self.prefix else []
        parts += ["{}x{} patches".format(*self.grid)] if self.grid else []
        return f"{self.kind.value} {'x'.join(map(str, dims))}" + (f" ({', '.join(parts)})" if parts else "")

    @property
    def rows(self) -> int:
        """Rows that one example gives to a matrix."""
        return math.prod(self.size)


def shape_of(x: Tensor, image: tuple[int, int] | None = None) -> Shape:
    """The shape of a batch of representations: (N, C, H, W) is a map, (N, T, D) tokens, (N, D) a vector.

    Args:
        x: the representations.
        image: (H, W) of the images that the network was given, if any. Tokens are then taken for patches: the
            prefix is the smallest, up to `MOST_PREFIX`, that leaves a grid of the image's proportions.

    Raises:
        SutureError: any other number of axes.
    """
    if x.ndim == 4:
        return Shape(Kind.MAP, x.shape[1], (x.shape[2], x.shape[3]))
    if x.ndim == 3:
        prefix, grid = (0, None) if image is None else _patches(x.shape[1], *image)
        return Shape(Kind.TOKENS, x.shape[2], (x.shape[1],), prefix, grid)
    if x.ndim == 2:
        return Shape(Kind.VECTOR, x.shape[1])
    raise SutureError(f"expected a representation (N, C, H, W), (N, T, D) or (N, D), got shape {tuple(x.shape)}; "
                      "choose another site or output slot")


def _patches(count: int, height: int, width: int) -> tuple[int, tuple[int, int] | None]:
    shrink = math.gcd(height, width)
    tall, wide = height // shrink, width // shrink
    for prefix in range(min(MOST_PREFIX, count - 1) + 1):
        side = math.isqrt((count - prefix) // (tall * wide))
        if side and side * side * tall * wide == count - prefix:
            return prefix, (tall * side, wide * side)
    return 0, None


def image_size(inputs: Any) -> tuple[int, int] | None:
    """(H, W) where the first tensor among a network's inputs is a batch of images (N, C, H, W)."""
    if isinstance(inputs, Mapping):
        inputs = next(iter(inputs.values()), None)
    while isinstance(inputs, tuple | list) and inputs:
        inputs = inputs[0]
    images = isinstance(inputs, Tensor) and inputs.ndim == 4 and inputs.is_floating_point()
    return (inputs.shape[2], inputs.shape[3]) if images else None


def mask_of(inputs: Any) -> Tensor | None:
    """(N, T) booleans, True at the tokens that count: ``inputs["attention_mask"]`` where there is one."""
    mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
    return mask.bool() if isinstance(mask, Tensor) and mask.ndim == 2 else None


class View(Enum):
    """Which rows of a representation: all; tokens without their prefix; the prefix; the mean of all that are no
    prefix; the first prefix token; that one added to every patch."""

    ALL = "all"
    GRID = "grid"
    PREFIX = "prefix"
    POOLED = "pooled"
    ONLY = "only"
    SUM = "sum"


def positions(shape: Shape, view: View) -> tuple[str, int, int]:
    """(what the positions are, height, width) of a view: equal for two views whose rows correspond one to one."""
    if view in (View.POOLED, View.ONLY) or shape.kind is Kind.VECTOR:
        return "grid", 1, 1
    if shape.kind is Kind.MAP:
        return "grid", shape.size[0], shape.size[1]
    if view is View.PREFIX:
        return "prefix", 1, shape.prefix
    if view is View.ALL and shape.prefix:
        return "tokens", 1, shape.size[0]
    return ("grid", *shape.grid) if shape.grid else ("tokens", 1, shape.size[0] - shape.prefix)


def look(x: Tensor, shape: Shape, view: View, mask: Tensor | None = None) -> Tensor:
    """A view of a batch of representations as a grid (N, H, W, C).

    Args:
        x: (N, C, H, W), (N, T, D) or (N, D).
        shape: its shape.
        view: which rows.
        mask: (N, T) for tokens: the mean is taken over those that count. One of another length, such as that of the
            text beside an image, is none of these tokens.
    """
    if shape.kind is Kind.VECTOR:
        return x[:, None, None, :]
    if shape.kind is Kind.MAP:
        return x.mean((2, 3))[:, None, None, :] if view is View.POOLED else x.permute(0, 2, 3, 1)
    k = shape.prefix
    if view is View.PREFIX:
        return x[:, None, :k]
    if view is View.ONLY:
        return x[:, None, :1]
    if view is View.POOLED:
        kept = mask[:, k:] if mask is not None and _masks(mask, shape) else None
        return _mean(x[:, k:], kept)[:, None, None, :]
    rows = x if view is View.ALL else x[:, k:] + x[:, :1] if view is View.SUM else x[:, k:]
    return rows.reshape(len(x), *positions(shape, view)[1:], shape.width)


def _mean(x: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return x.mean(1)
    kept = mask[..., None]
    return x.masked_fill(~kept, 0).sum(1) / kept.sum(1).clamp_min(1)


def _masks(mask: Tensor, shape: Shape) -> bool:
    return shape.kind is Kind.TOKENS and mask.shape[1:] == shape.size


def row_mask(shape: Shape, view: View, mask: Tensor | None) -> Tensor | None:
    """(N, H, W) booleans: which rows of a view count; None where all do, or the mask is not of these tokens."""
    if mask is None or not _masks(mask, shape) or view in (View.POOLED, View.ONLY):
        return None
    k = shape.prefix
    kept = mask if view is View.ALL else mask[:, :k] if view is View.PREFIX else mask[:, k:]
    return kept.reshape(len(mask), *positions(shape, view)[1:])


Prefix = Literal["auto", "map", "keep", "drop", "learn", "add", "only"]


@dataclass(frozen=True)
class AlignmentRule:
    """How positions are matched, where there is a choice.

    Attributes:
        resize: "bilinear" (default, the paper's: corners not aligned, no antialiasing) or "nearest". Sequences that
            are no patches of an image are resized along their one axis.
        order: whether the resize comes "before" or "after" the affine map. They commute up to rounding, because the
            weights of the resize sum to one; "auto" (default) takes the cheaper order.
        prefix: what happens to prefix tokens. "auto": "map" where both sides have equally many, else "drop".
            Tokens into tokens: "map" (they go through the affine map with the rest, as in the paper), "keep" (they
            are handed on as they are, the map is fitted to the rest), "drop" (the source's are left out; the
            target's are made from the mean of the other tokens), "learn" (likewise, but the target's are constants:
            their mean in direct matching, parameters in task loss matching). Maps and vectors into tokens: "drop" or
            "learn".
            Tokens into maps: "drop", "add" (the first prefix token is added to every patch) or "only" (nothing but
            the first prefix token, at every position). Tokens into vectors: "drop" (mean of the others) or "only".

    Raises:
        SutureError: an unknown value.
    """

    resize: Literal["bilinear", "nearest"] = "bilinear"
    order: Literal["auto", "before", "after"] = "auto"
    prefix: Prefix = "auto"

    def __post_init__(self) -> None:
        for name, known in (("resize", ("bilinear", "nearest")), ("order", ("auto", "before", "after")),
                            ("prefix", get_args(Prefix))):
            if getattr(self, name) not in known:
                raise unknown(name, str(getattr(self, name)), known)


DEFAULT_RULE = AlignmentRule()


@dataclass(frozen=True)
class Part:
    """Rows of the source that become rows of the target, by a linear map on positions."""

    source: View
    target: View
    resampling: Resampling


@dataclass(frozen=True)
class Alignment:
    """How a source's representation gets the target's positions.

    A map into a map is resized; a map into tokens is resized to their patches; tokens into a map are taken as the
    map of their patches; anything into a vector is averaged over its positions; a vector into anything is repeated
    at every position. Every one of them is a linear map on positions whose weights sum to one, so it commutes with
    an affine map of the channels, and moments and stitching layers share it.

    Attributes:
        source, target: the two shapes.
        rule: where there is a choice.

    Raises:
        SutureError: the two cannot be aligned; it names both shapes and the options.
    """

    source: Shape
    target: Shape
    rule: AlignmentRule = DEFAULT_RULE

    def __post_init__(self) -> None:
        if self._choices and self.prefix not in self._choices:
            options = ", ".join(dict.fromkeys(("auto", *self._choices)))
            raise SutureError(f"cannot align {self.source} with {self.target} with prefix={self.prefix!r}; "
                              f"choose from {options}")
        kinds = {self.source.kind, self.target.kind}
        tokens = self.source if self.source.kind is Kind.TOKENS else self.target
        if kinds == {Kind.MAP, Kind.TOKENS} and tokens.grid is None and self.prefix != "only":
            raise SutureError(f"cannot align {self.source} with {self.target}: the tokens are no patches of an image; "
                              "stitch them to tokens or to a vector instead")

    @property
    def _choices(self) -> tuple[Prefix, ...]:
        """What may be done with prefix tokens, the default first; empty where none takes part."""
        s, t = self.source, self.target
        if s.kind is Kind.TOKENS and t.kind is Kind.TOKENS and s.prefix + t.prefix:
            same: tuple[Prefix, ...] = ("map",) if s.prefix == t.prefix else ()
            keep: tuple[Prefix, ...] = ("keep",) if same and s.width == t.width else ()
            learn: tuple[Prefix, ...] = ("learn",) if t.prefix else ()
            return (*same, "drop", *learn, *keep)
        if s.kind is not Kind.TOKENS and t.kind is Kind.TOKENS and t.prefix:
            return "drop", "learn"
        if s.kind is Kind.TOKENS and s.prefix and t.kind is not Kind.TOKENS:
            return ("drop", "add", "only") if t.kind is Kind.MAP else ("drop", "only")
        return ()

    @property
    def prefix(self) -> Prefix:
        """What happens to prefix tokens here; "auto" where none takes part, whatever the rule of the comparison."""
        if not self._choices:
            return "auto"
        return self._choices[0] if self.rule.prefix == "auto" else self.rule.prefix

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The rows that go through the affine map. Rows of the target that are in none are kept or learned."""
        s, t = self.source, self.target
        if t.kind is Kind.VECTOR:
            view = View.ALL if s.kind is Kind.VECTOR else View.ONLY if self.prefix == "only" else View.POOLED
            return (self._part(view, View.ALL),)
        if s.kind is Kind.VECTOR:
            return (self._part(View.ALL, View.GRID if self.learns_prefix else View.ALL),)
        if t.kind is Kind.MAP:
            views: dict[str, View] = {"add": View.SUM, "only": View.ONLY}
            return (self._part(views.get(self.prefix, View.GRID), View.ALL),)
        if s.prefix == t.prefix and self.prefix in ("map", "auto") and (s.size, s.grid) == (t.size, t.grid):
            return (self._part(View.ALL, View.ALL),)
        grid = self._part(View.GRID, View.GRID)
        if not t.prefix or self.prefix in ("keep", "learn"):
            return (grid,)
        return grid, self._part(View.PREFIX if self.prefix == "map" else View.POOLED, View.PREFIX)

    def _part(self, source: View, target: View) -> Part:
        # One name for the same rows, so that they are summed once.
        source, target = (View.ALL if v is View.GRID and not s.prefix else v
                          for v, s in ((source, self.source), (target, self.target)))
        (_, *small), (_, *large) = positions(self.source, source), positions(self.target, target)
        return Part(source, target, Resampling((small[0], small[1]), (large[0], large[1]), self.rule.resize))

    @property
    def learns_prefix(self) -> bool:
        """Whether the target's prefix tokens are constants of the stitching layer."""
        return self.prefix == "learn"

    @property
    def keeps_prefix(self) -> bool:
        """Whether the source's prefix tokens are handed on as they are."""
        return self.prefix == "keep"

    @property
    def source_rows(self) -> Hashable:
        """Equal for two alignments of one source in which its matrix has the same rows."""
        return tuple((p.source, p.resampling) for p in self.parts)

    @property
    def target_rows(self) -> Hashable:
        """Equal for two alignments of one target in which its matrix has the same rows."""
        return tuple(p.target for p in self.parts)

    def assemble(self, parts: list[Tensor], prefix: Tensor | None) -> Tensor:
        """The target's representation from the grids (N, H, W, C) of its `parts`, and prefix tokens (N, k, C).

        Of two parts the second is the prefix.
        """
        first = parts[0]
        if self.target.kind is Kind.MAP:
            return first.permute(0, 3, 1, 2)
        if self.target.kind is Kind.VECTOR:
            return first[:, 0, 0]
        tokens = [] if prefix is None else [prefix]
        tokens += [p.flatten(1, 2) for p in parts[::-1]]
        return tokens[0] if len(tokens) == 1 else torch.cat(tokens, 1)
