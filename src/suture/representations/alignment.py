"""Alignment: how two representations of any kinds are brought to the same rows."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import Tensor

from suture._base import SutureError, make_unknown_error
from suture.numbers import Resizing
from suture.representations.shapes import Kind, Shape
from suture.representations.views import View, describe_positions

Prefix = Literal["auto", "map", "keep", "drop", "learn", "add", "only"]


@dataclass(frozen=True)
class AlignmentRule:
    """Choices about how positions are matched, where there is more than one way.

    Attributes:
        resize: "bilinear" (default, as in the paper: corners not aligned, no antialiasing) or "nearest".
            Sequences that are not patches of an image are resized along their one axis.
        order: whether the resize comes "before" or "after" the affine map. "auto" (default) uses the cheaper
            order. The two orders give the same up to rounding, because the weights of the resize sum to one.
        prefix: how prefix tokens are aligned. "auto" (default) is "map" where both sides have equally many,
            else "drop".

            Tokens into tokens: "map" sends prefix tokens through the affine map with the rest, as in the
            paper. "keep" hands the source's prefix tokens on unchanged and fits the map to the rest. "drop"
            leaves the source's prefix tokens out and makes the target's from the mean of the other tokens.
            "learn" leaves them out too, but the target's are constants: their mean in direct matching,
            parameters in task loss matching.

            Maps and vectors into tokens: "drop" or "learn".

            Tokens into maps: "drop", "add" (add the first prefix token to every patch) or "only" (put the
            first prefix token at every position and use nothing else).

            Tokens into vectors: "drop" (mean of the other tokens) or "only".

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
                raise make_unknown_error(name, str(getattr(self, name)), known)


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

    - A map into a map is resized.
    - A map into tokens is resized to their patches.
    - Tokens into a map are read as the map of their patches.
    - Any representation into a vector is averaged over its positions.
    - A vector into any representation is repeated at every position.
    - Sequences of varying length are matched position by position.

    Each alignment is a linear map on positions whose weights sum to one. It therefore commutes with an affine
    map of the channels, and moments and stitching layers share it.

    Attributes:
        source, target: the two shapes.
        rule: choices where there is more than one way.

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
            raise SutureError(f"cannot align {self.source} with {self.target}: the tokens are no patches of "
                              "an image; stitch them to tokens or to a vector instead")
        if why := self._explain_mismatch():
            raise SutureError(f"cannot align {self.source} with {self.target}: {why}")

    def _explain_mismatch(self) -> str:
        """Say why positions of sequences of varying length do not match; return "" where they match."""
        s, t = self.source, self.target
        if t.kind is not Kind.TOKENS or not (s.varies or t.varies):
            return ""
        if not s.varies or not t.varies:
            fixed = "a vector has no positions" if s.kind is Kind.VECTOR else "the others are always as many"
            return (f"the tokens marked ~ are those of a text, another number in each batch, and {fixed}; "
                    "stitch sequences to sequences or into a vector")
        if s.prefix != t.prefix:
            return ("position by position they need equally many prefix tokens; write the same "
                    "behind the @ of both")
        if s.size != t.size:
            return (f"{s.size[0]} and {t.size[0]} tokens for the same examples; use one tokenizer and one "
                    "padding for both networks, or stitch into a vector")
        return ""

    @property
    def _choices(self) -> tuple[Prefix, ...]:
        """Possible values of `AlignmentRule.prefix`, the default first; empty without prefix tokens."""
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
        """How prefix tokens are aligned here; "auto" where there are none, whatever the comparison's rule."""
        if not self._choices:
            return "auto"
        return self._choices[0] if self.rule.prefix == "auto" else self.rule.prefix

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """The rows that go through the affine map. Other rows of the target are kept or learned."""
        s, t = self.source, self.target
        if t.kind is Kind.VECTOR:
            view = View.ALL if s.kind is Kind.VECTOR else View.ONLY if self.prefix == "only" else View.POOLED
            return (self._make_part(view, View.ALL),)
        if s.kind is Kind.VECTOR:
            return (self._make_part(View.ALL, View.GRID if self.learns_prefix else View.ALL),)
        if t.kind is Kind.MAP:
            views: dict[str, View] = {"add": View.SUM, "only": View.ONLY}
            return (self._make_part(views.get(self.prefix, View.GRID), View.ALL),)
        if s.prefix == t.prefix and self.prefix in ("map", "auto") and (s.size, s.grid) == (t.size, t.grid):
            return (self._make_part(View.ALL, View.ALL),)
        grid = self._make_part(View.GRID, View.GRID)
        if not t.prefix or self.prefix in ("keep", "learn"):
            return (grid,)
        return grid, self._make_part(View.PREFIX if self.prefix == "map" else View.POOLED, View.PREFIX)

    def _make_part(self, source: View, target: View) -> Part:
        # The same rows get one view, so that they are summed once.
        source, target = (View.ALL if v is View.GRID and not s.prefix else v
                          for v, s in ((source, self.source), (target, self.target)))
        (_, *small), (_, *large) = (describe_positions(self.source, source),
                                    describe_positions(self.target, target))
        return Part(source, target, Resizing((small[0], small[1]), (large[0], large[1]), self.rule.resize))

    @property
    def learns_prefix(self) -> bool:
        """True where the target's prefix tokens are constants of the stitching layer."""
        return self.prefix == "learn"

    @property
    def keeps_prefix(self) -> bool:
        """True where the source's prefix tokens are handed on unchanged."""
        return self.prefix == "keep"

    @property
    def source_rows(self) -> Hashable:
        """Key of the rows of the source's matrix: equal keys of one source mean the same rows."""
        return tuple((p.source, p.resizing) for p in self.parts)

    @property
    def target_rows(self) -> Hashable:
        """Key of the rows of the target's matrix: equal keys of one target mean the same rows."""
        return tuple(p.target for p in self.parts)

    def assemble(self, parts: list[Tensor], prefix: Tensor | None) -> Tensor:
        """Build the target's representation from the grids (N, H, W, C) of its `parts`.

        Prefix tokens (N, k, C) go before them, if there are any. If there are two parts, the second is the
        prefix.
        """
        first = parts[0]
        if self.target.kind is Kind.MAP:
            return first if self.target.last else first.permute(0, 3, 1, 2)
        if self.target.kind is Kind.VECTOR:
            return first[:, 0, 0]
        tokens = [] if prefix is None else [prefix]
        tokens += [p.flatten(1, 2) for p in parts[::-1]]
        return tokens[0] if len(tokens) == 1 else torch.cat(tokens, 1)
