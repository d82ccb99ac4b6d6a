"""Seeds: one for each thing that draws, and PyTorch's random state for a block."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(seed: int, *names: str) -> int:
    """A seed for what these names name, whatever else there is beside it (law 7)."""
    return int.from_bytes(hashlib.sha256("/".join([str(seed), *names]).encode()).digest()[:7], "big")


@contextmanager
def seed_torch(seed: int, device: str | torch.device = "cpu") -> Iterator[None]:
    """Seed PyTorch's global random state of the CPU and of `device` for a block, and put it back after it."""
    device = torch.device(device)
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        # Not torch.manual_seed: it would also reseed the devices that are not put back.
        torch.default_generator.manual_seed(seed)
        for card in cuda:
            with torch.cuda.device(card):
                torch.cuda.manual_seed(seed)
        yield
