"""Seeds derived from names, and a context that seeds PyTorch's random state."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(seed: int, *names: str) -> int:
    """Derive a seed from `seed` and names. It does not depend on any other draw."""
    return int.from_bytes(hashlib.sha256("/".join([str(seed), *names]).encode()).digest()[:7], "big")


@contextmanager
def seed_torch(seed: int, device: str | torch.device = "cpu") -> Iterator[None]:
    """Seed PyTorch's global random state of the CPU and of `device` for a block, then restore it."""
    device = torch.device(device)
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        # torch.manual_seed would also reseed devices whose state is not restored.
        torch.default_generator.manual_seed(seed)
        for card in cuda:
            with torch.cuda.device(card):
                torch.cuda.manual_seed(seed)
        yield
