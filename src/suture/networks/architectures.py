"""Architectures of suture: networks of the zoo, and bodies of trained detectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suture._base import Count, checked, expect


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


def resnet18_unstrided(classes: int = 10, in_channels: int = 3) -> ResNet:
    """Build `resnet18` without strides, for 32x32 images: all eight blocks keep the size of the image.

    The paper's variant (arXiv 2412.11299, figure 3), to compare blocks without resizing.
    """
    return ResNet((64, 128, 256, 512), (2, 2, 2, 2), (1, 1, 1, 1), in_channels, classes)


def resnet20(classes: int = 10, in_channels: int = 3) -> ResNet:
    """Build ResNet-20 without strides, for 32x32 images: all nine blocks keep the size of the image.

    The paper's variant (arXiv 2412.11299), to compare blocks without resizing. Original: `resnet20_strided`.
    """
    return ResNet((16, 32, 64), (3, 3, 3), (1, 1, 1), in_channels, classes)


def resnet20_strided(classes: int = 10, in_channels: int = 3) -> ResNet:
    """Build ResNet-20 as in He et al. 2016, section 4.2, but with 1x1 shortcuts, for 32x32 images."""
    return ResNet((16, 32, 64), (3, 3, 3), (1, 2, 2), in_channels, classes)


def resnet20_8x8(classes: int = 10, in_channels: int = 3) -> ResNet:
    """Build ResNet-20 whose first block has stride 4, for 32x32 images: all nine blocks have 8x8 positions.

    Compares blocks without resizing at a fifteenth of the cost of `resnet20`.
    """
    return ResNet((16, 32, 64), (3, 3, 3), (4, 1, 1), in_channels, classes)


def resnet_digits(classes: int = 10, in_channels: int = 1) -> ResNet:
    """Build a small network for the 8x8 handwritten digits: six blocks at 8, 4 and 2 pixels."""
    return ResNet((16, 32, 64), (2, 2, 2), (1, 2, 2), in_channels, classes)


def resnet_digits_unstrided(classes: int = 10, in_channels: int = 1) -> ResNet:
    """Build `resnet_digits` without strides: all six blocks keep the size of the image."""
    return ResNet((16, 32, 64), (2, 2, 2), (1, 1, 1), in_channels, classes)


class Block(nn.Module):
    """Pre-norm self-attention and a perceptron of width 4 dim, both with a skip: (N, T, dim) -> (N, T, dim).
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """Apply the block; `kept` (N, T) is True at the tokens that may be attended to."""
        x = x + self._attend(self.norm1(x), kept)
        deeper: Tensor = self.down(F.gelu(self.up(self.norm2(x))))
        return x + deeper

    def _attend(self, x: Tensor, kept: Tensor | None) -> Tensor:
        n, t, dim = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        mask = None if kept is None else kept[:, None, None, :]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        attended: Tensor = self.out(mixed.transpose(1, 2).reshape(n, t, dim))
        return attended


class ViT(nn.Module):
    """A vision transformer on given tokens: (N, tokens, width) -> logits (N, classes) from a class token.

    Source: Dosovitskiy et al., ICLR 2021 (arXiv 2010.11929); ViT-Ti: Touvron et al., 2021 (arXiv 2012.12877).

    Args:
        width: dimensions of a given token; a linear embedding brings them to `dim`.
        tokens: number of tokens, each with a position vector. None: any number, without position vectors.
        dim: width of the blocks; a multiple of `heads`. Default 192 (ViT-Ti).
        depth, heads: numbers of blocks (default 12) and of attention heads (default 3).

    Raises:
        SutureError: a number below 1, or heads that do not divide `dim`.
    """

    @checked
    def __init__(self, width: Count, tokens: Count | None, classes: Count, dim: Count = 192,
                 depth: Count = 12, heads: Count = 3) -> None:
        super().__init__()
        expect(dim % heads == 0, "a dim that is a multiple of heads", f"{dim} and {heads}",
               f"write dim={heads * max(1, dim // heads)}")
        self.embed = nn.Linear(width, dim)
        self.token = nn.Parameter(torch.zeros(1, 1, dim))
        self.positions = None if tokens is None else nn.Parameter(torch.zeros(1, tokens + 1, dim))
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, classes)
        own = [self.token] if self.positions is None else [self.token, self.positions]
        for weight in (*own, *(m.weight for m in self.modules() if isinstance(m, nn.Linear))):
            nn.init.trunc_normal_(weight, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compute the logits; `mask` (N, tokens) is False at padding tokens, None if there are none."""
        x = torch.cat([self.token.expand(len(x), -1, -1), self.embed(x)], 1)
        if self.positions is not None:
            x = x + self.positions
        # The class token is never masked, so no row of attention is empty.
        kept = None if mask is None else F.pad(mask, (1, 0), value=True)
        for block in self.blocks:
            x = block(x, kept)
        logits: Tensor = self.head(self.norm(x[:, 0]))
        return logits


class ImageViT(ViT):
    """A vision transformer on images cut into square patches: (N, in_channels, size, size) -> logits.

    Its modules are those of `ViT`; a patch is a given token of `in_channels` times `patch` squared values.

    Args:
        size, patch: pixels of a side of the image and of a patch.
        others: as for `ViT`.

    Raises:
        SutureError: a size that is no multiple of `patch`, or images of another size.
    """

    @checked
    def __init__(self, size: Count, patch: Count, in_channels: Count = 3, classes: Count = 10,
                 **others: Any) -> None:
        expect(size % patch == 0, "a size that is a multiple of patch", f"{size} and {patch}",
               f"write size={patch * max(1, size // patch)}")
        super().__init__(in_channels * patch**2, (size // patch)**2, classes, **others)
        self.image = (in_channels, size, size)
        self.patch = patch

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compute the logits; `mask` (N, tokens) is False at patches to leave out, None if there are none."""
        expect(x.shape[1:] == self.image, "images {}x{}x{}".format(*self.image), x, "resize them")
        # Not a convolution, because a linear embedding of patches is the same map and serves ViT as it is.
        patches = F.unfold(x, self.patch, stride=self.patch).transpose(1, 2)
        return super().forward(patches, mask)


def vit_tiny(classes: int = 10, in_channels: int = 3) -> ImageViT:
    """Build ViT-Ti with patches of 4 pixels, for 32x32 images: 5.36 M parameters in twelve blocks.

    The paper's network (arXiv 2412.11299, section 4); ViT-Ti: Touvron et al., 2021 (arXiv 2012.12877).
    """
    return ImageViT(32, 4, in_channels, classes)
