"""A share of the tokens of texts, drawn once for every site of both networks."""

from __future__ import annotations

import torch
from torch import Tensor

from suture.numbers import draw_uniform
from suture.representations import Masks


class TokenShare:
    """A random share (`rate`) of the unpadded tokens, the same for every site of both networks.

    A draw depends on the seed, the number of the example, and the number of the token among the unpadded
    ones. Batches, padding and devices do not change it.
    """

    def __init__(self, rate: float, seed: int) -> None:
        self.rate, self.seed, self._seen = rate, seed, 0

    def start_at(self, number: int) -> None:
        """Begin with an example in the middle of the data."""
        self._seen = number

    def draw(self, counted: Tensor) -> Tensor:
        """Draw from the unpadded tokens of the next N examples; mask and result are (N, T) booleans."""
        n, length = counted.shape
        draws = draw_uniform(self.seed, range(self._seen, self._seen + n), length)
        self._seen += n
        drawn = torch.from_numpy(draws < self.rate).to(counted.device)
        return counted & drawn.gather(1, (counted.cumsum(1) - 1).clamp(min=0))

    def draw_masks(self, xs: list[Tensor], *masks: Tensor | None) -> list[Masks]:
        """Reduce the two sides' masks to the drawn tokens; `xs` are one side's representations (N, T, D)."""
        fitting = [m for m in masks if m is not None and m.shape == xs[0].shape[:2]]
        if len(fitting) == 2 and not torch.equal(*fitting):
            return list(masks)  # the accumulators refuse these masks
        unpadded = (fitting[0] if fitting
                    else torch.ones(xs[0].shape[:2], dtype=torch.bool, device=xs[0].device))
        return [self.draw(unpadded)] * 2
