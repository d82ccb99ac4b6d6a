"""Representations of every kind, and networks that have one of them at `site`."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import torch
from torch import Tensor, nn

from suture.representations import Kind, Shape
from tests.support import references
from tests.support.tiny import seeded

N, CLASSES, SIDE = 120, 4, 8
SHAPES = {
    "map 8x8": Shape(Kind.MAP, 6, (8, 8)), "map 4x4": Shape(Kind.MAP, 6, (4, 4)),
    "map 3x5": Shape(Kind.MAP, 7, (3, 5)), "vector": Shape(Kind.VECTOR, 6),
    "patches 4x4": Shape(Kind.TOKENS, 6, (16,), 0, (4, 4)),
    "class token, 4x4": Shape(Kind.TOKENS, 6, (17,), 1, (4, 4)),
    "class token, 2x2": Shape(Kind.TOKENS, 7, (5,), 1, (2, 2)),
    "registers, 4x4": Shape(Kind.TOKENS, 6, (19,), 3, (4, 4)),
    "sequence 12": Shape(Kind.TOKENS, 6, (12,)), "sequence 7": Shape(Kind.TOKENS, 5, (7,)),
    "last 4x4": Shape(Kind.MAP, 6, (4, 4), last=True), "last 3x5": Shape(Kind.MAP, 7, (3, 5), last=True),
    "text 12": Shape(Kind.TOKENS, 6, (12,), varies=True),
    "text 12, prefix": Shape(Kind.TOKENS, 6, (12,), 1, varies=True),
}


class Kinded(nn.Module):
    """Images (N, 2, 8, 8) or, for a sequence, ids -> a representation of some shape at `site` -> logits.

    A sequence that varies is as long as its ids, another one is shorter.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.text = shape.kind is Kind.TOKENS and shape.grid is None
        self.embed = nn.Embedding(20, shape.width) if self.text else nn.Conv2d(2, shape.width, 3, padding=1)
        self.prefix = nn.Parameter(torch.randn(shape.prefix, shape.width))
        self.site, self.head = nn.Tanh(), nn.Linear(2 * shape.width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x if self.shape.varies or not self.text else x[:, 1:])
        size = self.shape.size if self.shape.kind is Kind.MAP else self.shape.grid
        if not self.text:
            h = nn.functional.adaptive_avg_pool2d(h, size or (1, 1))
        if self.shape.kind is Kind.VECTOR:
            h = h[:, :, 0, 0]
        if self.shape.grid:
            h = h.flatten(2).transpose(1, 2)
            # A class token that has seen the patches, as after attention.
            h = torch.cat([self.prefix + h.max(1, keepdim=True).values, h], 1)
        h = self.site(2 * h.permute(0, 2, 3, 1) if self.shape.last else 2 * h)
        h = h.permute(0, 3, 1, 2) if self.shape.last else h
        channels = 1 if self.shape.kind is not Kind.TOKENS else 2
        rows = (h.flatten(2).transpose(1, 2) if channels == 1 and h.ndim == 4 else h if h.ndim == 3
                else h[:, None])
        return self.head(torch.cat([rows[:, 0], rows.mean(1)], 1))


def inputs_for(shape: Shape, n: int = N, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    images = torch.randn(n, 2, SIDE, SIDE, generator=g)
    if shape.kind is Kind.TOKENS and shape.grid is None:
        return (images.flatten(1)[:, :shape.size[0] + (not shape.varies)] * 5).long().remainder(20)
    return images


def network(name: str, seed: int = 0) -> nn.Module:
    return seeded(lambda: Kinded(SHAPES[name]), seed).eval()


def batch(shape: Shape, n: int = 30, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, *shape.dims, generator=g) + 3


def allowed(source: Shape, target: Shape) -> bool:
    """A map and tokens that are no patches have no positions in common, a text and what does not vary
    neither."""
    kinds = {source.kind, target.kind}
    text = any(s.kind is Kind.TOKENS and s.grid is None for s in (source, target))
    if target.kind is Kind.TOKENS and (source.varies or target.varies):
        return source.varies and target.varies and source.prefix == target.prefix
    return not (text and kinds == {Kind.MAP, Kind.TOKENS})


PAIRS = [(a, b) for a, b in product(SHAPES, SHAPES) if allowed(SHAPES[a], SHAPES[b])]


def aligned(x: Tensor, y: Tensor, source: Shape, target: Shape, prefix: str = "map") -> tuple[Tensor, Tensor]:
    """`references.aligned`, which knows maps (N, C, H, W)."""
    x, y = (t.movedim(-1, 1) if s.last else t for t, s in ((x, source), (y, target)))
    return references.aligned(x, y, replace(source, last=False), replace(target, last=False), prefix)
