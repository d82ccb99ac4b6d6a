"""Multilayer perceptrons for vectors."""

from __future__ import annotations

from torch import Tensor, nn

from suture._base import SutureError


class MLP(nn.Module):
    """One hidden layer of ReLUs: (N, width) -> logits (N, classes).

    Args:
        width: features of one example.
        classes: number of logits.
        hidden: units of the hidden layer. Default 128.

    Raises:
        SutureError: one of them is below 1.
    """

    def __init__(self, width: int, classes: int, hidden: int = 128) -> None:
        super().__init__()
        if min(width, classes, hidden) < 1:
            raise SutureError(f"width, classes and hidden must be at least 1, got {width}, "
                              f"{classes} and {hidden}")
        self.hidden = nn.Linear(width, hidden)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.hidden(x).relu())
        return logits
