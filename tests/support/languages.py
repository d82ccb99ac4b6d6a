"""Language models with attention, and texts with padding, for tests against slow loops over texts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import suture
from suture import TaskRecipe
from suture.representations.shapes import Kind, Shape
from suture.stitching.tasks import IGNORED_LABEL, Task

CPU = torch.device("cpu")
V, D, T = 13, 6, 12
SHAPE = Shape(Kind.TOKENS, D, (T,))
# Large steps make rounding grow.
RECIPE = TaskRecipe(epochs=2, batch_size=8, lr=1e-3, optimizer="sgd")


class Block(nn.Module):
    """Attention with one head and a residual, over the tokens that count."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.parts, self.out, self.causal = nn.Linear(D, 3 * D), nn.Linear(D, D), causal

    def forward(self, x: Tensor, kept: Tensor) -> Tensor:
        q, k, v = self.parts(x).chunk(3, -1)
        scores = (q @ k.transpose(1, 2)).masked_fill(~kept[:, None], -1e9)
        if self.causal:
            scores = scores.masked_fill(torch.ones(scores.shape[1:]).triu(1).bool(), -1e9)
        x = x + scores.softmax(-1) @ v
        return x + torch.tanh(self.out(x))


class Language(nn.Module):
    """(N, T) token ids and an attention mask -> logits (N, T, outputs), or hidden states where there is no
    head."""

    def __init__(self, causal: bool = True, outputs: int | None = V, named: bool = True,
                 words: int = V) -> None:
        super().__init__()
        self.places, self.words = nn.Embedding(40, D), nn.Embedding(words, D)
        self.blocks = nn.ModuleList([Block(causal) for _ in range(3)])
        self.head = nn.Linear(D, outputs) if outputs else nn.Identity()
        self.named = named

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        kept = torch.ones_like(input_ids).bool() if attention_mask is None else attention_mask.bool()
        x = self.words(input_ids) + self.places(torch.arange(input_ids.shape[1]))
        return self.behind(-1, x, kept)

    def behind(self, j: int, x: Tensor, kept: Tensor) -> Any:
        """What comes after block `j`."""
        for block in self.blocks[j + 1:]:
            x = block(x, kept)
        out = self.head(x)
        return {"logits": out} if self.named else out

    def representations(self, ids: Tensor) -> list[Tensor]:
        """What each block gives for one text (t,), (t, D) each."""
        kept = torch.ones(1, len(ids)).bool()
        x, found = self.words(ids[None]) + self.places(torch.arange(len(ids))), []
        for block in self.blocks:
            x = block(x, kept)
            found.append(x[0])
        return found


def made(causal: bool = True, seed: int = 0, **options: Any) -> Language:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Language(causal, **options).eval()
        for p in network.parameters():
            p.data *= 1.4
    return network


def texts(n: int = 21, seed: int = 0) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randint(V, (int(t),), generator=g) for t in torch.randint(2, T + 1, (n,), generator=g)]


def padded(some: list[Tensor], length: int, value: int = 0) -> Tensor:
    return torch.stack([torch.cat([t, t.new_full((length - len(t),), value)]) for t in some])


def stream(some: list[Tensor], length: int = T, size: int = 8,
           labels: list[Tensor] | None = None) -> list[Any]:
    """Batches as a tokenizer's collator makes them; what is in the padding is never the same token."""
    mask = padded([torch.ones_like(t) for t in some], length)
    noise = torch.randint(V, (len(some), length), generator=torch.Generator().manual_seed(length))
    whole = {"input_ids": torch.where(mask.bool(), padded(some, length), noise), "attention_mask": mask}
    if labels is not None:
        whole["labels"] = padded(labels, length, IGNORED_LABEL)
    return [{k: v[a:a + size] for k, v in whole.items()} for a in range(0, len(some), size)]


def wanted_labels(some: list[Tensor], seed: int = 5) -> list[Tensor]:
    """Half of the tokens count; a text may have none."""
    g = torch.Generator().manual_seed(seed)
    return [torch.where(torch.rand(len(t), generator=g) < 0.5, torch.randint(V, (len(t),), generator=g),
                        IGNORED_LABEL) for t in some]


def compared(network: nn.Module, some: list[Tensor], tests: list[Tensor],
             **options: Any) -> suture.Comparison:
    length, size = options.pop("length", T), options.pop("size", 8)
    labels = ([None, None] if not options.pop("labelled", False)
              else [wanted_labels(some), wanted_labels(tests)])
    data, test = (stream(t, length, size, y) for t, y in zip((some, tests), labels, strict=True))
    return suture.compare(network, data=data, test=test, **({"tlm": RECIPE, "device": "cpu"} | options))


IDS = padded([torch.arange(1, 6), torch.arange(3, 6), torch.arange(2, 4), torch.arange(5)], 6)
MASK = padded([torch.ones(k).long() for k in (5, 3, 2, 5)], 6)
INPUTS = {"input_ids": IDS, "attention_mask": MASK}
ALIGNED = IDS % 3


class Pooled(Language):
    def behind(self, j: int, x: Tensor, kept: Tensor) -> Any:
        return super().behind(j, x, kept)["logits"].mean(1)


def slow_rows(task: Task, ids: Tensor, labels: Tensor | None) -> list[tuple[int, int]]:
    """(position, label) of each token that counts in a text without padding."""
    says = ids if labels is None else labels
    found = [(t, int(says[t + 1])) for t in range(len(ids) - 1)] if task is Task.NEXT_TOKEN else list(
        enumerate(says.tolist()))
    return [(t, y) for t, y in found if y != IGNORED_LABEL]
