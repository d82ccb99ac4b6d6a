"""Where a training of detectors stands: all that a checkpoint holds beside classifiers and optimisers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor

from suture._base import KeptPass
from suture.data import Batch, Batches, go_on_in_epoch


@dataclass
class TrainingPosition:
    """The epoch that runs, the number of its batches that are done, and the summed losses of its sites.

    Attributes:
        steps: batches of an epoch.
        order: state of the data's order at the start of the epoch; None before the first, and where suture
            does not shuffle.
    """

    epoch: int = 0
    batch: int = 0
    steps: int = 0
    totals: dict[int, Tensor] = field(default_factory=dict)
    order: Tensor | None = None

    def read(self, stream: Iterable[Batch], kept: KeptPass) -> Iterator[tuple[int, Batch]]:
        """Yield the rest of the epoch's batches in the epoch's order, with their numbers."""
        if not isinstance(stream, Batches):
            yield from islice(enumerate(stream), self.batch, None)
            return
        if stream.order is not None:
            if self.order is not None:
                stream.order.set_state(self.order)
            self.order = stream.order.get_state()
        yield from go_on_in_epoch(stream, kept, self.batch)

    def end_epoch(self, stream: Iterable[Batch]) -> None:
        self.epoch, self.batch, self.totals = self.epoch + 1, 0, {}
        order = stream.order if isinstance(stream, Batches) else None
        self.order = None if order is None else order.get_state()


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
