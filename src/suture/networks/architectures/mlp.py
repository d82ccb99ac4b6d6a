"""Multilayer perceptrons for vectors."""

from __future__ import annotations

from torch import Tensor, nn

from suture._base import Count, checked


class MLP(nn.Module):
    """One hidden layer of `hidden` ReLUs (default 128): (N, width) -> logits (N, classes).

    Raises:
        SutureError: a number below 1.
    """

    @checked
    def __init__(self, width: Count, classes: Count, hidden: Count = 128) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, hidden)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.hidden(x).relu())
        return logits
