"""Encoder-decoders and texts in pairs, padded, for tests against each pair alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

N, WORDS, D = 14, 20, 8


class Layer(nn.Module):
    """Self-attention, cross-attention where there is a context, and a perceptron."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.mine, self.other = nn.Linear(D, 3 * D), nn.Linear(D, 3 * D)
        self.up, self.causal = nn.Linear(D, D), causal

    def forward(self, x: Tensor, kept: Tensor, context: Tensor | None = None,
                seen: Tensor | None = None) -> Tensor:
        mask = kept[:, None].expand(-1, x.shape[1], -1)
        if self.causal:
            mask = mask & torch.ones(mask.shape[1:]).tril().bool()
        x = x + F.scaled_dot_product_attention(*self.mine(x).chunk(3, -1), attn_mask=mask)
        if context is not None and seen is not None:
            _, k, v = self.other(context).chunk(3, -1)
            x = x + F.scaled_dot_product_attention(self.other(x)[..., :D], k, v, attn_mask=seen[:, None])
        return x + torch.tanh(self.up(x))


class Translator(nn.Module):
    """src (N, S), tgt (N, T) and their masks -> logits (N, T, words)."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(WORDS, D), nn.Linear(D, WORDS)
        self.readers = nn.ModuleList(Layer(False) for _ in range(2))
        self.writers = nn.ModuleList(Layer(True) for _ in range(3))

    def forward(self, src: Tensor, tgt: Tensor, src_attention_mask: Tensor | None = None,
                tgt_attention_mask: Tensor | None = None) -> Tensor:
        seen, kept = (torch.ones_like(ids).bool() if m is None else m.bool()
                      for ids, m in ((src, src_attention_mask), (tgt, tgt_attention_mask)))
        context, x = self.words(src), self.words(tgt)
        for layer in self.readers:
            context = layer(context, seen)
        for layer in self.writers:
            x = layer(x, kept, context, seen)
        return self.head(x)


def seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make().eval()


def make_t5() -> nn.Module:
    from transformers import T5Config, T5ForConditionalGeneration

    return T5ForConditionalGeneration(T5Config(
        vocab_size=WORDS, d_model=D, d_kv=4, d_ff=8, num_layers=2, num_decoder_layers=3, num_heads=2,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=1))


def make_bart() -> nn.Module:
    from transformers import BartConfig, BartForConditionalGeneration

    return BartForConditionalGeneration(BartConfig(
        vocab_size=WORDS, d_model=D, encoder_layers=2, decoder_layers=3, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=8, decoder_ffn_dim=8, max_position_embeddings=32,
        pad_token_id=1, bos_token_id=0, eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=2))


HF = ("input_ids", "decoder_input_ids"), ("attention_mask", "decoder_attention_mask")
OWN = ("src", "tgt"), ("src_attention_mask", "tgt_attention_mask")
KINDS = {"own": (Translator, OWN, 0, "readers.{}", "writers.{}"),
         "t5": (make_t5, HF, 0, "encoder.block.{}", "decoder.block.{}"),
         "bart": (make_bart, HF, 1, "model.encoder.layers.{}", "model.decoder.layers.{}")}
"""Function to make one, names of its inputs, its padding id, and its blocks."""


def draw_texts(longest: int, seed: int) -> list[Tensor]:
    """One text of the full length, and others of three tokens or more."""
    g = torch.Generator().manual_seed(seed)
    sizes = [longest, *torch.randint(3, longest + 1, (N - 1,), generator=g).tolist()]
    return [torch.randint(3, WORDS, (n,), generator=g) for n in sizes]


def pad(texts: list[Tensor], value: int) -> Tensor:
    longest = max(map(len, texts))
    return torch.stack([F.pad(t, (0, longest - len(t)), value=value) for t in texts])


def pad_pairs(names: tuple[str, str], masks: tuple[str, str], a: list[Tensor], b: list[Tensor],
              value: int) -> dict[str, Any]:
    """A batch of pairs, each side padded with a token and masked."""
    ids = {name: pad(texts, value) for name, texts in zip(names, (a, b), strict=True)}
    return ids | {name: pad([torch.ones_like(t) for t in texts], 0)
                  for name, texts in zip(masks, (a, b), strict=True)}


@torch.no_grad()
def capture_alone(network: nn.Module, names: tuple[str, str], a: list[Tensor], b: list[Tensor],
                  site: str) -> Tensor:
    """Representations of all tokens by a plain forward hook, each pair alone and without padding."""
    seen: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: object) -> None:
        seen.append((output[0] if isinstance(output, tuple) else output)[0].double())

    handle = network.eval().get_submodule(site).register_forward_hook(keep)
    for x, y in zip(a, b, strict=True):
        network(**{names[0]: x[None], names[1]: y[None]})
    handle.remove()
    return torch.cat(seen)


def compute_cka(x: Tensor, y: Tensor) -> float:
    x, y = x - x.mean(0), y - y.mean(0)
    return float((x.T @ y).norm() ** 2 / (x.T @ x).norm() / (y.T @ y).norm())
