"""Where a training of a whole network stands: what a checkpoint holds beside network and optimiser."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class TrainingPosition:
    """Where a training stands: the epoch that runs, its order and sums, its batches that are done.

    `total` and `right` are summed on the device and read once, because reading each batch would make a GPU
    wait. `random` holds PyTorch's global random states, of the CPU and of the device, which dropout uses.
    """

    generator: torch.Generator
    total: Tensor
    right: Tensor
    epoch: int = 0
    batch: int = 0
    order: Tensor | None = None
    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    random: list[Tensor] = field(default_factory=list)

    def end_epoch(self, n: int) -> None:
        self.losses.append(float(self.total) / n)
        self.accuracies.append(int(self.right) / n)
        self.total, self.right = torch.zeros_like(self.total), torch.zeros_like(self.right)
        self.epoch, self.batch, self.order = self.epoch + 1, 0, None

    def note_random_state(self, device: torch.device) -> None:
        cuda = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
        self.random = [torch.get_rng_state(), *cuda]

    def set_random_state(self, device: torch.device) -> None:
        torch.set_rng_state(self.random[0])
        if device.type == "cuda":
            torch.cuda.set_rng_state(self.random[1], device)
