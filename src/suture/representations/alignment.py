"""Representations of any two kinds brought to the same rows."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator
from torch import Tensor
from typing_extensions import Doc

from suture._base import SutureError, options
from suture.numbers import Resizing
from suture.representations.shapes import Kind, Shape
from suture.representations.token_masks import Masks
from suture.representations.views import View, describe_positions, to_grid

_DROPPED = {"keep": "map", "learn": "drop", "add": "drop", "only": "drop"}
"""Former values of `AlignmentRule.prefix`, each with the nearest present one."""


class AlignmentError(SutureError):
    """Error for two representations that cannot be aligned."""


def _refuse_dropped(prefix: Any) -> Any:
    if isinstance(prefix, str) and prefix in _DROPPED:
        raise SutureError(f"prefix={prefix!r} is no longer offered; write prefix={_DROPPED[prefix]!r}")
    return prefix


@options
class AlignmentRule:
    """Choices about how positions are matched, where there is more than one way.

    Attributes:
        {options}

    Raises:
        SutureError: an unknown value.
    """

    resize: Annotated[Literal["bilinear", "nearest"], Doc(
        'Resize of maps to the size of the target: "bilinear" or "nearest". Bilinear is the paper\'s: '
        "corners not aligned, no antialiasing. Sequences that are not patches of an image are resized along "
        "their one axis.")] = "bilinear"
    order: Annotated[Literal["auto", "before", "after"], Doc(
        'Order of resize and affine map: the resize comes "before" or "after", or "auto". Auto uses the '
        "cheaper order. Both give the same up to rounding, because the weights of the resize sum to "
        'one.')] = "auto"
    prefix: Annotated[Literal["auto", "map", "drop"], BeforeValidator(_refuse_dropped), Doc(
        'Prefix tokens (class token, registers): "auto", "map" or "drop". Map sends them through the affine '
        "map with the rest, as in the paper; it needs equally many on both sides. Drop leaves the source's "
        "out, and makes the target's from the mean of the other tokens. Auto is map where both sides have "
        'equally many, else drop.')] = "auto"


DEFAULT_RULE = AlignmentRule()


@dataclass(frozen=True)
class Part:
    """Rows of the source that become rows of the target through a linear map on positions."""

    source: View
    target: View
    resizing: Resizing


@dataclass(frozen=True)
class Alignment:
    """Alignment of a source's representation to the target's positions.

    - A map into a map with as many axes is resized.
    - A map into tokens is resized to the grid of their patches, a map (C, T) along the sequence.
    - Tokens into a map are read as the map of their patches, or as a map (C, T).
    - Any representation into a vector is averaged over its positions.
    - A vector into any representation is repeated at every position.
    - Sequences of varying length are matched position by position.

    Each alignment is a linear map on positions whose weights sum to one. It therefore commutes with an affine
    map of the channels, and moments and stitching layers share it.

    Raises:
        SutureError: the two cannot be aligned.
    """

    source: Shape
    target: Shape
    rule: AlignmentRule = DEFAULT_RULE

    def __post_init__(self) -> None:
        if why := self._explain_mismatch():
            raise AlignmentError(f"cannot align {self.source} with {self.target}: {why}")

    def _explain_mismatch(self) -> str:
        """Return why the source's representation cannot be aligned with the target's; "" where it can."""
        s, t = self.source, self.target
        if self.rule.prefix == "map" and s.prefix != t.prefix:
            return "prefix='map' needs equally many prefix tokens on both sides; write prefix='drop'"
        if not _have_equal_axes(s, t):
            tokens = any(x.kind is Kind.TOKENS and x.grid is None for x in (s, t))
            return ("the tokens are no patches of an image; stitch sequences to sequences or to a vector"
                    if tokens else "their positions lie along another number of axes; stitch to a vector, or "
                    "choose another site")
        if s.is_sequence and t.is_sequence and s.varies == t.varies and s.sequence != t.sequence:
            return "they are tokens of two input sequences, such as an encoder's and a decoder's"
        if not t.is_sequence or not (s.varies or t.varies):
            return ""
        if not s.varies or not t.varies:
            return "only one of them has another length in each batch (~); stitch sequences to sequences"
        if s.prefix != t.prefix:
            return "sequences need equally many prefix tokens; write the same @tokens:PREFIX at both sites"
        if s.size != t.size:
            return (f"{s.size[0]} and {t.size[0]} tokens for the same examples; use one tokenizer and one "
                    "padding for both networks")
        return ""

    @property
    def maps_prefix(self) -> bool:
        """True if prefix tokens go through the affine map with the rest."""
        return self.source.prefix == self.target.prefix and self.rule.prefix != "drop"

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """One part, or two: positions, then the target's prefix tokens."""
        s, t = self.source, self.target
        if Kind.VECTOR in (s.kind, t.kind):
            return (self._make_part(View.ALL if s.kind is Kind.VECTOR else View.POOLED, View.ALL),)
        if self.maps_prefix and (s.kind, s.size, s.grid) == (t.kind, t.size, t.grid):
            return (self._make_part(View.ALL, View.ALL),)
        grid = self._make_part(View.GRID, View.GRID)
        if not t.prefix:
            return (grid,)
        return grid, self._make_part(View.PREFIX if self.maps_prefix else View.POOLED, View.PREFIX)

    def _make_part(self, source: View, target: View) -> Part:
        # The same rows get one view, so that they are summed once.
        source, target = (View.ALL if v is View.GRID and not s.prefix else v
                          for v, s in ((source, self.source), (target, self.target)))
        before, after = describe_positions(self.source, source), describe_positions(self.target, target)
        return Part(source, target, Resizing(before[1:], after[1:], self.rule.resize))

    @property
    def takes_rows_as_they_are(self) -> bool:
        """True if each row of the target is the source's at the same position, between two equal shapes.

        With ``prefix="drop"`` the target's prefix tokens are made from other tokens.
        """
        return all(part.source is part.target for part in self.parts)

    @property
    def has_example_rows(self) -> bool:
        """True if each example is one row."""
        return not self.target.varies and sum(math.prod(p.resizing.target) for p in self.parts) == 1

    @property
    def has_pooled_rows(self) -> bool:
        """True if each example is one row, the mean of its positions; a resized grid of one position is not.
        """
        return self.has_example_rows and all(math.prod(p.resizing.source) == 1 for p in self.parts)

    @property
    def independent_share(self) -> float:
        """Share of the rows that are independent: upsampling adds rows, but no information."""
        if self.target.varies:
            return 1.0
        resizings = [p.resizing for p in self.parts]
        return sum(math.prod(r.small) for r in resizings) / sum(math.prod(r.target) for r in resizings)

    @property
    def source_rows(self) -> Hashable:
        """Key of the rows of the source's matrix: equal keys of one source mean the same rows."""
        # The target's kind of positions too: it decides whose mask leaves out rows.
        return tuple((p.source, describe_positions(self.target, p.target), p.resizing) for p in self.parts)

    @property
    def target_rows(self) -> Hashable:
        """Key of the rows of the target's matrix: equal keys of one target mean the same rows."""
        return tuple(p.target for p in self.parts)

    def apply(self, x: Tensor, masks: Masks = None) -> Tensor:
        """Bring a batch of the source's representations to the target's positions, with its own channels."""
        return self.assemble([part.resizing.resize_grid(to_grid(x, self.source, part.source, masks))
                              for part in self.parts])

    def assemble(self, parts: list[Tensor]) -> Tensor:
        """Build the target's representation from the grids (N, D, H, W, C) of its `parts`."""
        if len(self.target.size) == 1:
            tokens = [p.flatten(1, -2) for p in parts[::-1]]
            made = tokens[0] if len(tokens) == 1 else torch.cat(tokens, 1)
        else:
            made = parts[0].flatten(1, 4 - (len(self.target.size) or 1))
        if self.target.kind is Kind.VECTOR:
            return made[:, 0]
        return made.movedim(-1, 1) if self.target.channels_first else made


def _have_equal_axes(*shapes: Shape) -> bool:
    """Return True where positions can correspond: one is a vector, or both have as many axes.

    Axes of one position in front do not count, as in a map 1xT beside one of length T.
    """
    sizes = [shape.grid or shape.size for shape in shapes]
    least = [next((size[k:] for k, n in enumerate(size) if n > 1), size[-1:]) for size in sizes]
    return (any(shape.kind is Kind.VECTOR for shape in shapes)
            or any(len(one) == len(other) for one, other in (sizes, least)))
