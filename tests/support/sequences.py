"""Networks of texts of varying length, and batches of them padded in every way."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.support.plain_hooks import capture
from tests.support.tiny import seeded


class Layer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        mask = None if kept is None else kept[:, None].expand(-1, x.shape[1], -1)
        return x + torch.tanh(self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=mask)))


class Text(nn.Module):
    """Ids (N, T) -> logits (N, 3); `pool` is a vector of the text."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.embed = nn.Embedding(30, width)
        self.blocks = nn.ModuleList([Layer(width), Layer(width)])
        self.pool, self.head = nn.Linear(width, 5), nn.Linear(5, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        kept = None if attention_mask is None else attention_mask.bool()
        h = self.embed(input_ids)
        for block in self.blocks:
            h = block(h, kept)
        weight = torch.ones_like(h[..., :1]) if kept is None else kept[..., None].float()
        return self.head(torch.tanh(self.pool((h * weight).sum(1) / weight.sum(1))))


def texts(n: int = 30, seed: int = 0) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randint(1, 30, (int(torch.randint(2, 10, (1,), generator=g)),), generator=g)
            for _ in range(n)]


def collated(of: Sequence[Tensor], size: int,
             length: int | None = None) -> list[tuple[dict[str, Tensor], Tensor]]:
    """Batches padded to a length, or each to its longest text, as collators do by default."""
    batches = []
    for k in range(0, len(of), size):
        part = of[k:k + size]
        longest = length or max(map(len, part))
        ids = torch.stack([F.pad(t, (0, longest - len(t))) for t in part])
        inputs = {"input_ids": ids, "attention_mask": (ids > 0).long()}
        batches.append((inputs, torch.arange(k, k + len(part)) % 3))
    return batches


TEXTS = texts()
PADDINGS = {"each batch its own": (7, None), "one long batch": (30, None), "two more": (11, 12)}


def two() -> tuple[Text, Text]:
    return seeded(Text).eval(), seeded(lambda: Text(6), 1).eval()


def alone(network: nn.Module, site: str) -> list[Tensor]:
    """Representations of the texts one by one, without padding: the slow reference."""
    return [capture(network, {"input_ids": t[None]}, [site])[site][0].double() for t in TEXTS]
