"""Inputs of networks that are no two alike: images, bytes, ids and padded sentences."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CLS, SEP, PAD = 101, 102, 0


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photos_of(n: int, c: int = 3, h: int = 12, w: int = 10) -> Tensor:
    """Images in [0, 1] no two of which, and no two channels or patches of which, are equal."""
    return torch.rand(n, c, h, w, generator=draws())


def sentences(n: int = 30, t: int = 12) -> dict[str, Any]:
    """CLS, 2 to t - 2 words, SEP, padding."""
    ids, mask = torch.full((n, t), PAD), torch.zeros(n, t, dtype=torch.int64)
    g = draws()
    for i in range(n):
        words = torch.randint(200, 260, (2 + i % (t - 3),), generator=g)
        row = torch.cat([torch.tensor([CLS]), words, torch.tensor([SEP])])
        ids[i, :len(row)], mask[i, :len(row)] = row, 1
    # Which words the padding hides is the same in no two examples.
    ids[mask == 0] = torch.randint(900, 1000, (int((mask == 0).sum()),), generator=g)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.arange(n * t).view(n, t),
            "return_dict": True}


BYTES = (photos_of(20) * 256).byte()
IDS = torch.arange(12).view(3, 4)
