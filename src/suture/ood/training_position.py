"""Where a training of detectors stands: all that a checkpoint holds beside classifiers and optimisers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from suture.data import Batch, EpochPosition


@dataclass(kw_only=True)
class TrainingPosition(EpochPosition):
    """The position of a training, with the batches of an epoch (`steps`) and the summed losses of its sites.
    """

    steps: int = 0
    totals: dict[int, Tensor] = field(default_factory=dict)

    def end_epoch(self, stream: Iterable[Batch]) -> None:
        super().end_epoch(stream)
        self.totals = {}


class RandomRows:
    """The numbers below `n` without end, in a new random order each time."""

    def __init__(self, n: int, seed: int) -> None:
        self._n, self._generator = n, torch.Generator().manual_seed(seed)
        self._left: list[int] = []

    def draw(self, count: int) -> Tensor:
        while len(self._left) < count:
            self._left += torch.randperm(self._n, generator=self._generator).tolist()
        drawn, self._left = self._left[:count], self._left[count:]
        return torch.tensor(drawn)
