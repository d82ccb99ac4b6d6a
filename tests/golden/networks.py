"""Networks and data of the golden cases; weights are stored, because training differs between processors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suture import zoo

WEIGHTS = Path(__file__).parent / "weights"
WORDS, LENGTH = 40, 12
SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


class Block(nn.Module):
    """A convolution and a leaky ReLU, so that no unit is dead."""

    def __init__(self, inner: int, outer: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inner, outer, 3, stride, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.conv(x), 0.1)


class Small(nn.Module):
    """(N, 1, any, any) -> two blocks -> logits (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.block1, self.block2 = Block(1, 6), Block(6, 8, stride=2)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block2(self.block1(x)).mean((2, 3)))


class Skipping(nn.Module):
    """Like `Small`, but the head sees both blocks, so that a path leads around the second."""

    def __init__(self) -> None:
        super().__init__()
        self.block1, self.block2 = Block(1, 6), Block(6, 8, stride=2)
        self.head = nn.Linear(14, 10)

    def forward(self, x: Tensor) -> Tensor:
        first = self.block1(x)
        return self.head(torch.cat([first.mean((2, 3)), self.block2(first).mean((2, 3))], 1))


class Vectors(nn.Module):
    """(N, 1, 8, 8) -> two hidden layers of vectors -> logits (N, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 12), nn.Linear(12, 9)
        self.head = nn.Linear(9, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.second(torch.relu(self.first(x.flatten(1))))))


def vit() -> nn.Module:
    """Make a vision transformer of 16 patches and a class token, for the digits."""
    import transformers

    return transformers.ViTForImageClassification(
        transformers.ViTConfig(
            **SIZES, image_size=8, patch_size=2, num_channels=1, num_labels=10, initializer_range=0.1
        )
    )


def bert() -> nn.Module:
    """Make a text encoder of three classes."""
    import transformers

    return transformers.BertForSequenceClassification(
        transformers.BertConfig(
            **SIZES, vocab_size=WORDS, max_position_embeddings=LENGTH, num_labels=3, initializer_range=0.3
        )
    )


def masked() -> nn.Module:
    """Make a masked language model."""
    import transformers

    return transformers.BertForMaskedLM(
        transformers.BertConfig(
            **SIZES, vocab_size=WORDS, max_position_embeddings=LENGTH, initializer_range=0.3
        )
    )


def gpt() -> nn.Module:
    """Make a causal language model."""
    import transformers

    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=WORDS,
            n_positions=LENGTH,
            n_embd=16,
            n_layer=2,
            n_head=2,
            initializer_range=0.3,
            bos_token_id=None,
            eos_token_id=None,
        )
    )


MAKERS = {
    "digits0": lambda: zoo.build("resnet_digits"),
    "digits1": lambda: zoo.build("resnet_digits"),
    "small0": Small,
    "small1": Small,
    "skipping": Skipping,
    "vectors": Vectors,
    "vit": vit,
    "bert": bert,
    "masked": masked,
    "gpt": gpt,
}
"""What makes each network; its weights are those of the file of the same name."""


def network(name: str) -> nn.Module:
    """Load a network with its stored weights, in eval mode."""
    made = MAKERS[name]()
    zoo.load_weights(made, WEIGHTS / f"{name}.safetensors")
    return made.eval()


def images(n: int, split: str = "train") -> tuple[Tensor, Tensor]:
    """Give some digits, evenly over the classes: inputs (N, 1, 8, 8) and labels."""
    return zoo.digits(split).subset(n).tensors


def texts(n: int, seed: int) -> dict[str, Tensor]:
    """Make token ids with padding on the right, by a generator of whole numbers."""
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, WORDS, (n, LENGTH), generator=g)
    lengths = torch.randint(4, LENGTH + 1, (n, 1), generator=g)
    mask = (torch.arange(LENGTH) < lengths).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


def batches(
    inputs: dict[str, Tensor], labels: Tensor | None = None, size: int = 16
) -> list[dict[str, Tensor]]:
    """Cut texts into batches as a collator makes them."""
    whole = inputs if labels is None else inputs | {"labels": labels}
    count = len(inputs["input_ids"])
    return [{k: v[at : at + size] for k, v in whole.items()} for at in range(0, count, size)]


def classes(inputs: dict[str, Tensor]) -> Tensor:
    """Label texts by their first two tokens, in three classes."""
    return (inputs["input_ids"][:, 0] + inputs["input_ids"][:, 1]) % 3


def masked_labels(inputs: dict[str, Tensor]) -> Tensor:
    """Label every third token that counts with itself, the others with -100."""
    wanted = (torch.arange(LENGTH) % 3 == 1) & inputs["attention_mask"].bool()
    return torch.where(wanted, inputs["input_ids"], -100)
