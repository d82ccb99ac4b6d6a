"""The zoo's architectures: blocks, shapes, and what a residual network is made of."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from suture import zoo
from suture._base import SutureError
from suture.networks.architectures import BasicBlock, ResNet


def test_resnet18_has_the_papers_11_17_million_parameters() -> None:
    assert sum(weight.numel() for weight in zoo.build("resnet18").parameters()) == 11_173_962


SHAPES = {
    "resnet18": [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)],
    "resnet20": [(16, 32, 32), (32, 32, 32), (64, 32, 32)],
    "resnet20_strided": [(16, 32, 32), (32, 16, 16), (64, 8, 8)],
    "resnet_digits": [(16, 8, 8), (32, 4, 4), (64, 2, 2)],
}
BLOCKS = {"resnet18": 2, "resnet20": 3, "resnet20_strided": 3, "resnet_digits": 2}


@pytest.mark.parametrize("name", SHAPES)
def test_stages_have_their_blocks_and_shapes(name: str) -> None:
    network = zoo.build(name).eval()
    found: dict[str, tuple[int, ...]] = {}

    def note(path: str) -> Callable[..., None]:
        return lambda _, __, out: found.update({path: tuple(out.shape[1:])})

    for path, module in network.named_modules():
        if isinstance(module, BasicBlock):
            module.register_forward_hook(note(path))
    with torch.no_grad():
        network(torch.zeros(1, *zoo.networks[name].input_shape))
    assert found == {
        f"layer{stage}.{block}": shape
        for stage, shape in enumerate(SHAPES[name], start=1)
        for block in range(BLOCKS[name])
    }


@pytest.mark.parametrize(("inner", "outer", "stride"), [(4, 4, 1), (4, 6, 1), (4, 4, 2)])
def test_a_block_is_its_formula(inner: int, outer: int, stride: int) -> None:
    """Written out with functional calls: the addition comes before the last ReLU."""
    block = BasicBlock(inner, outer, stride).eval()
    x = torch.randn((2, inner, 6, 6), generator=torch.Generator().manual_seed(0))

    def norm(bn: nn.Module, y: torch.Tensor) -> torch.Tensor:
        return F.batch_norm(y, bn.running_mean, bn.running_var, bn.weight, bn.bias)

    inside = F.relu(norm(block.bn1, F.conv2d(x, block.conv1.weight, stride=stride, padding=1)))
    inside = norm(block.bn2, F.conv2d(inside, block.conv2.weight, padding=1))
    around = x
    if (inner, stride) != (outer, 1):
        conv, bn = block.shortcut
        around = norm(bn, F.conv2d(x, conv.weight, stride=stride))
    else:
        assert isinstance(block.shortcut, nn.Identity)
    assert torch.allclose(block(x), F.relu(inside + around), atol=1e-6)
    assert (block(x) >= 0).all()


def test_the_head_is_global_average_pooling() -> None:
    network = zoo.build("resnet_digits").eval()
    x = torch.rand((3, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    y = F.relu(network.bn1(network.conv1(x)))
    y = network.layer3(network.layer2(network.layer1(y)))
    assert torch.allclose(network(x), network.fc(y.mean((2, 3))), atol=1e-6)


def test_a_resnet_needs_lists_of_one_length() -> None:
    with pytest.raises(SutureError, match="got 2, 1 and 2"):
        ResNet((4, 8), (1,), (1, 2))
    with pytest.raises(SutureError, match="got 0, 0 and 0"):
        ResNet((), (), ())
    with pytest.raises(SutureError, match="blocks: expected at least 1, got 0"):
        ResNet((4,), (0,), (1,))
