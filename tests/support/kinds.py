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
    "signal 12": Shape(Kind.MAP, 6, (12,)), "signal 7": Shape(Kind.MAP, 5, (7,)),
    "signal 12, last": Shape(Kind.MAP, 6, (12,), last=True),
    "flat 4x4": Shape(Kind.MAP, 6, (16,), grid=(4, 4)),
    "volume 2x4x4": Shape(Kind.MAP, 6, (2, 4, 4)), "volume 3x2x5": Shape(Kind.MAP, 5, (3, 2, 5)),
    "volume 3x2x5, last": Shape(Kind.MAP, 5, (3, 2, 5), last=True),
    "patches 2x2x2": Shape(Kind.TOKENS, 6, (9,), 1, (2, 2, 2)),
}


class Kinded(nn.Module):
    """Images (N, 2, 8, 8) or, for a sequence, ids -> a representation of some shape at `site` -> logits.

    A sequence that varies is as long as its ids, another one is shorter.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.text = shape.is_sequence
        self.axes = 3 if len(shape.grid or shape.size) == 3 else 2
        convolution = nn.Conv3d if self.axes == 3 else nn.Conv2d
        self.embed = nn.Embedding(20, shape.width) if self.text else convolution(2, shape.width, 3, padding=1)
        self.prefix = nn.Parameter(torch.randn(shape.prefix, shape.width))
        self.site, self.head = nn.Tanh(), nn.Linear(2 * shape.width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x if self.shape.varies or not self.text else x[:, 1:])
        size = self.shape.grid or (self.shape.size if self.shape.kind is Kind.MAP else None)
        if not self.text:
            pool = nn.functional.adaptive_avg_pool3d if self.axes == 3 else nn.functional.adaptive_avg_pool2d
            h = pool(h, size or (1, 1)).flatten(2)  # (N, C, positions)
            h = h.transpose(1, 2)
        if self.shape.prefix and not self.text:
            # A class token that has seen the patches, as after attention.
            h = torch.cat([self.prefix + h.max(1, keepdim=True).values, h], 1)
        if self.shape.kind is Kind.VECTOR:
            h = h[:, 0]
        elif self.shape.kind is Kind.MAP:
            h = h.transpose(1, 2).unflatten(2, self.shape.size)
            h = h.movedim(1, -1) if self.shape.last else h
        h = self.site(2 * h)
        h = h.movedim(-1, 1) if self.shape.last else h
        rows = (h[:, None] if h.ndim == 2 else h if self.shape.kind is Kind.TOKENS
                else h.flatten(2).transpose(1, 2))
        return self.head(torch.cat([rows[:, 0], rows.mean(1)], 1))


def inputs_for(shape: Shape, n: int = N, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    images = torch.randn(n, 2, SIDE, SIDE, generator=g)
    if len(shape.grid or shape.size) == 3:
        return torch.randn(n, 2, 4, SIDE, SIDE, generator=g)
    if shape.is_sequence:
        return (images.flatten(1)[:, :shape.size[0] + (not shape.varies)] * 5).long().remainder(20)
    return images


def network(name: str, seed: int = 0) -> nn.Module:
    return seeded(lambda: Kinded(SHAPES[name]), seed).eval()


def batch(shape: Shape, n: int = 30, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, *shape.dims, generator=g) + 3


def allowed(source: Shape, target: Shape) -> bool:
    """Positions along another number of axes have nothing in common, nor a text and what does not vary."""
    if target.is_sequence and (source.varies or target.varies):
        return source.varies and target.varies and source.prefix == target.prefix
    axes = {len(s.grid or s.size) for s in (source, target) if s.kind is not Kind.VECTOR}
    return len(axes) < 2


PAIRS = [(a, b) for a, b in product(SHAPES, SHAPES) if allowed(SHAPES[a], SHAPES[b])]


def aligned(x: Tensor, y: Tensor, source: Shape, target: Shape, prefix: str = "map") -> tuple[Tensor, Tensor]:
    """`references.aligned`, which knows maps (N, C, H, W)."""
    x, y = (t.movedim(-1, 1) if s.last else t for t, s in ((x, source), (y, target)))
    return references.aligned(x, y, replace(source, last=False), replace(target, last=False), prefix)
