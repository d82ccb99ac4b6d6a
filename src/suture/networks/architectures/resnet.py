"""Residual networks for small images (8x8 to 32x32)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from suture._base import Count, checked, expect


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut: (N, inner, H, W) -> (N, outer, H / stride, W / stride).

    The shortcut is the identity, or a 1x1 convolution with batch norm where the shape changes (option B of He
    et al. 2016, section 3.3). The output comes after the last ReLU.
    """

    def __init__(self, inner: int, outer: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inner != outer:
            self.shortcut = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False),
                                          nn.BatchNorm2d(outer))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """A residual network with a 3x3 stem: (N, in_channels, H, W) -> logits (N, classes).

    Its modules are `conv1`, `bn1`, `relu` (the stem), `layer1` ... `layerK` (each an `nn.Sequential` of
    `BasicBlock`), `pool` and `fc`. Source: He et al., CVPR 2016 (arXiv 1512.03385).

    Args:
        widths, blocks: channels and number of blocks of each stage; the stem has the first stage's channels.
        strides: stride of the first block of each stage.
        in_channels, classes: channels of the images (default 3), and number of logits (default 10).

    Raises:
        SutureError: lists that are empty or differ in length, or a number below 1.
    """

    @checked
    def __init__(self, widths: Sequence[Count], blocks: Sequence[Count], strides: Sequence[Count],
                 in_channels: Count = 3, classes: Count = 10) -> None:
        super().__init__()
        lengths = (len(widths), len(blocks), len(strides))
        expect(min(lengths) == max(lengths) > 0, "one width, number of blocks and stride per stage",
               "{}, {} and {}".format(*lengths))
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        self.stages = len(widths)
        inner = widths[0]
        for stage, (outer, count, stride) in enumerate(zip(widths, blocks, strides, strict=True), start=1):
            first = BasicBlock(inner, outer, stride)
            rest = [BasicBlock(outer, outer) for _ in range(count - 1)]
            self.add_module(f"layer{stage}", nn.Sequential(first, *rest))
            inner = outer
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inner, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        for stage in range(1, self.stages + 1):
            x = self.get_submodule(f"layer{stage}")(x)
        return self.fc(self.pool(x).flatten(1))  # type: ignore[no-any-return]


def resnet18(classes: int = 10, in_channels: int = 3) -> ResNet:
    """Build ResNet-18 with a 3x3 stem and no max pooling, for 32x32 images: 11.17 M parameters.

    The paper's network (arXiv 2412.11299, section 4), with eight blocks at 32, 16, 8 and 4 pixels.
    """
    return ResNet((64, 128, 256, 512), (2, 2, 2, 2), (1, 2, 2, 2), in_channels, classes)


def resnet20(classes: int = 10, in_channels: int = 3) -> ResNet:
    """Build ResNet-20 without strides, for 32x32 images: all nine blocks keep the size of the image.

    The paper's variant (arXiv 2412.11299), to compare blocks without resizing. Original: `resnet20_strided`.
    """
    return ResNet((16, 32, 64), (3, 3, 3), (1, 1, 1), in_channels, classes)


def resnet20_strided(classes: int = 10, in_channels: int = 3) -> ResNet:
    """Build ResNet-20 as in He et al. 2016, section 4.2, but with 1x1 shortcuts, for 32x32 images."""
    return ResNet((16, 32, 64), (3, 3, 3), (1, 2, 2), in_channels, classes)


def resnet_digits(classes: int = 10, in_channels: int = 1) -> ResNet:
    """Build a small network for the 8x8 handwritten digits: six blocks at 8, 4 and 2 pixels."""
    return ResNet((16, 32, 64), (2, 2, 2), (1, 2, 2), in_channels, classes)
