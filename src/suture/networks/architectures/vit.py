"""Vision transformers that read tokens instead of images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suture._base import Count, checked, expect


class Block(nn.Module):
    """Pre-norm self-attention and a perceptron of width 4 dim, both with a skip: (N, T, dim) -> (N, T, dim).
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """Apply the block; `kept` (N, T) is True at the tokens that may be attended to."""
        x = x + self._attend(self.norm1(x), kept)
        deeper: Tensor = self.down(F.gelu(self.up(self.norm2(x))))
        return x + deeper

    def _attend(self, x: Tensor, kept: Tensor | None) -> Tensor:
        n, t, dim = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        mask = None if kept is None else kept[:, None, None, :]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        attended: Tensor = self.out(mixed.transpose(1, 2).reshape(n, t, dim))
        return attended


class ViT(nn.Module):
    """A vision transformer on given tokens: (N, tokens, width) -> logits (N, classes) from a class token.

    Source: Dosovitskiy et al., ICLR 2021 (arXiv 2010.11929); ViT-Ti: Touvron et al., 2021 (arXiv 2012.12877).

    Args:
        width: dimensions of a given token; a linear embedding brings them to `dim`.
        tokens: number of tokens, each with a position vector. None: any number, without position vectors.
        dim: width of the blocks; a multiple of `heads`. Default 192 (ViT-Ti).
        depth, heads: numbers of blocks (default 12) and of attention heads (default 3).

    Raises:
        SutureError: a number below 1, or heads that do not divide `dim`.
    """

    @checked
    def __init__(self, width: Count, tokens: Count | None, classes: Count, dim: Count = 192,
                 depth: Count = 12, heads: Count = 3) -> None:
        super().__init__()
        expect(dim % heads == 0, "a dim that is a multiple of heads", f"{dim} and {heads}",
               f"write dim={heads * max(1, dim // heads)}")
        self.embed = nn.Linear(width, dim)
        self.token = nn.Parameter(torch.zeros(1, 1, dim))
        self.positions = None if tokens is None else nn.Parameter(torch.zeros(1, tokens + 1, dim))
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, classes)
        own = [self.token] if self.positions is None else [self.token, self.positions]
        for weight in (*own, *(m.weight for m in self.modules() if isinstance(m, nn.Linear))):
            nn.init.trunc_normal_(weight, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compute the logits; `mask` (N, tokens) is False at padding tokens, None if there are none."""
        x = torch.cat([self.token.expand(len(x), -1, -1), self.embed(x)], 1)
        if self.positions is not None:
            x = x + self.positions
        # The class token is never masked, so no row of attention is empty.
        kept = None if mask is None else F.pad(mask, (1, 0), value=True)
        for block in self.blocks:
            x = block(x, kept)
        logits: Tensor = self.head(self.norm(x[:, 0]))
        return logits
