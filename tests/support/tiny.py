"""The smallest networks and data that can be compared, by `tests.support.tiny:NAME` also on a command
line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from suture import StitchedNetwork, TaskRecipe, cli, stitch, zoo
from suture.zoo import ImageSet

RECIPE = TaskRecipe(epochs=1, batch_size=16)
SITES = ("block1", "block2")


class Block(nn.Module):
    def __init__(self, inner: int, outer: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inner, outer, 3, stride, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x))


class Tiny(nn.Module):
    """(N, channels, 8, 8) -> two blocks -> logits (N, 3)."""

    def __init__(self, channels: int = 2) -> None:
        super().__init__()
        self.block1, self.block2 = Block(channels, 3), Block(3, 4, stride=2)
        self.head = nn.Linear(4, 3)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.block2(self.block1(x)).mean((2, 3)))


def seeded(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def network() -> nn.Module:
    return seeded(Tiny)


def other() -> nn.Module:
    return seeded(Tiny, 1)


def images(n: int = 24, channels: int = 2, seed: int = 0) -> Tensor:
    return torch.rand(n, channels, 8, 8, generator=torch.Generator().manual_seed(seed))


def labels(n: int = 24) -> Tensor:
    return torch.arange(n) % 3


def batches(inputs: Tensor, given: Tensor, size: int = 8) -> list[tuple[Tensor, Tensor]]:
    return list(zip(inputs.split(size), given.split(size), strict=True))


def data() -> tuple[Any, Any]:
    return (images(), labels()), (images(12, seed=1), labels(12))


def rgb() -> torch.nn.Module:
    return seeded(lambda: Tiny(3))


def twice_as_large(raw: Tensor) -> Tensor:
    return torch.nn.functional.interpolate(raw.float(), scale_factor=2)


def image_sets() -> tuple[ImageSet, ImageSet]:
    return ImageSet(images(), labels(), 3, "train"), ImageSet(images(12, seed=1), labels(12), 3, "test")


def small_digits() -> tuple[ImageSet, ImageSet]:
    return zoo.digits("train").subset(60), zoo.digits("test").subset(30)


def stitched(**options: Any) -> StitchedNetwork:
    return stitch(network(), "block1", other(), "block2", data()[0], **{"device": "cpu"} | options)


def suture(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
           *args: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command, run in this process."""
    monkeypatch.setattr(sys, "argv", ["suture", *map(str, args)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err
