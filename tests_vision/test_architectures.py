"""Law 1 and default sites on architectures of torchvision and timm, random weights, small images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import timm
import torch
from torch import nn
from torchvision import models

from suture.networks.calls import apply, extract_main_output
from suture.networks.sites import SitedNetwork

N = 5
Expected = tuple[tuple[str, int, str], ...]
"""(path with the number of the block left open, how many of them, shape), in order of execution."""


@dataclass(frozen=True)
class Architecture:
    """What makes a network, the size of its images, and its blocks."""

    make: Callable[[], nn.Module]
    size: int
    blocks: Expected

    @property
    def sites(self) -> list[tuple[str, str]]:
        return [(path.format(k), shape) for path, n, shape in self.blocks for k in range(n)]


def _tv(name: str, size: int, *blocks: tuple[str, int, str], **options: Any) -> Architecture:
    return Architecture(lambda: models.get_model(name, weights=None, **options), size, blocks)


def _timm(name: str, size: int, *blocks: tuple[str, int, str], **options: Any) -> Architecture:
    return Architecture(lambda: timm.create_model(name, pretrained=False, num_classes=5, **options), size,
                        blocks)


def _stages(path: str, counts: tuple[int, ...], widths: tuple[int, ...], first: int = 1,
            size: int = 8) -> tuple[tuple[str, int, str], ...]:
    """Stages that halve the map: `path` has the number of the stage, then that of the block."""
    return tuple((path.replace("{s}", str(first + s)), n, f"map {w}x{size >> s}x{size >> s}")
                 for s, (n, w) in enumerate(zip(counts, widths, strict=True)))


RESNET18 = _stages("layer{s}.{}", (2, 2, 2, 2), (64, 128, 256, 512))
RESNET50 = _stages("layer{s}.{}", (3, 4, 6, 3), (256, 512, 1024, 2048))
DENSENET = (("features.denseblock1", 1, "map 256x8x8"), ("features.transition1", 1, "map 128x4x4"),
            ("features.denseblock2", 1, "map 512x4x4"), ("features.transition2", 1, "map 256x2x2"),
            ("features.denseblock3", 1, "map 1024x2x2"), ("features.transition3", 1, "map 512x1x1"),
            ("features.denseblock4", 1, "map 1024x1x1"))
CONVNEXT = tuple((f"features.{1 + 2 * s}.{{}}", n, f"map {96 << s}x{8 >> s}x{8 >> s}")
                 for s, n in enumerate((3, 3, 9, 3)))
LAST = " (channels last)"
SWIN = tuple(block for s, n in enumerate((2, 2, 6, 2)) for block in (
    *(((f"features.{2 * s}", 1, f"map {96 << s}x{8 >> s}x{8 >> s}{LAST}"),) if s else ()),
    (f"features.{2 * s + 1}.{{}}", n, f"map {96 << s}x{8 >> s}x{8 >> s}{LAST}")))
TIMM_SWIN = tuple(block for s, n in enumerate((2, 2, 6, 2)) for block in (
    *(((f"layers.{s}.downsample", 1, f"map {96 << s}x{8 >> s}x{8 >> s}{LAST}"),) if s else ()),
    (f"layers.{s}.blocks.{{}}", n, f"map {96 << s}x{8 >> s}x{8 >> s}{LAST}")))
INCEPTION = tuple((f"inception{name}", 1, f"map {shape}") for name, shape in (
    ("3a", "256x8x8"), ("3b", "480x8x8"), ("4a", "512x4x4"), ("4b", "512x4x4"), ("4c", "512x4x4"),
    ("4d", "528x4x4"), ("4e", "832x4x4"), ("5a", "832x2x2"), ("5b", "1024x2x2")))
EFFICIENTNET = (("blocks.0.{}", 1, "map 16x16x16"), ("blocks.1.{}", 2, "map 24x8x8"),
                ("blocks.2.{}", 2, "map 40x4x4"), ("blocks.3.{}", 3, "map 80x2x2"),
                ("blocks.4.{}", 3, "map 112x2x2"), ("blocks.5.{}", 4, "map 192x1x1"),
                ("blocks.6.{}", 1, "map 320x1x1"))
TV_EFFICIENTNET = (("features.0", 1, "map 32x16x16"),
                   *((f"features.{k}.{{}}", n, shape) for k, (_, n, shape) in enumerate(EFFICIENTNET, 1)),
                   ("features.8", 1, "map 1280x1x1"))

ARCHITECTURES = {
    "torchvision resnet18": _tv("resnet18", 32, *RESNET18),
    "torchvision resnet50": _tv("resnet50", 32, *RESNET50),
    "torchvision convnext_tiny": _tv("convnext_tiny", 32, *CONVNEXT),
    "torchvision densenet121": _tv("densenet121", 32, *DENSENET),
    "torchvision efficientnet_b0": _tv("efficientnet_b0", 32, *TV_EFFICIENTNET),
    "torchvision swin_t": _tv("swin_t", 32, *SWIN),
    "torchvision vit_b_16": _tv("vit_b_16", 32, ("encoder.layers.encoder_layer_{}", 12,
                                                 "tokens 5x768 (1 prefix, 2x2 patches)"), image_size=32),
    "torchvision shufflenet_v2": _tv("shufflenet_v2_x0_5", 32,
                                     *_stages("stage{s}.{}", (4, 8, 4), (48, 96, 192), 2, 4)),
    "torchvision googlenet": _tv("googlenet", 64, *INCEPTION, init_weights=False),
    "timm resnet18": _timm("resnet18", 32, *RESNET18),
    "timm seresnet18": _timm("seresnet18", 32, *RESNET18),
    "timm densenet121": _timm("densenet121", 32, *DENSENET),
    "timm efficientnet_b0": _timm("efficientnet_b0", 32, *EFFICIENTNET),
    "timm convnext_atto": _timm("convnext_atto", 32,
                                *_stages("stages.{s}.blocks.{}", (2, 2, 6, 2), (40, 80, 160, 320), 0)),
    "timm swin_tiny": _timm("swin_tiny_patch4_window7_224", 32, *TIMM_SWIN, img_size=32, window_size=4),
    "timm vit_tiny": _timm("vit_tiny_patch16_224", 32,
                           ("blocks.{}", 3, "tokens 5x192 (1 prefix, 2x2 patches)"), img_size=32, depth=3),
    "timm deit, distilled": _timm("deit_tiny_distilled_patch16_224", 32,
                                  ("blocks.{}", 3, "tokens 6x192 (2 prefix, 2x2 patches)"), img_size=32,
                                  depth=3),
    "timm vit with registers": _timm("vit_small_patch14_reg4_dinov2", 42,
                                     ("blocks.{}", 3, "tokens 14x384 (5 prefix, 3x3 patches)"), img_size=42,
                                     depth=3),
    "timm beit": _timm("beit_base_patch16_224", 32, ("blocks.{}", 3, "tokens 5x768 (1 prefix, 2x2 patches)"),
                       img_size=32, depth=3),
    "timm mixer": _timm("mixer_s32_224", 64, ("blocks.{}", 8, "tokens 4x512 (2x2 patches)"), img_size=64),
    "timm regnet": _timm("regnetx_002", 32, ("s1.b1", 1, "map 24x8x8"), ("s2.b1", 1, "map 56x4x4"),
                         *((f"s3.b{k}", 1, "map 152x2x2") for k in range(1, 5)),
                         *((f"s4.b{k}", 1, "map 368x1x1") for k in range(1, 8))),
}


def _random(make: Callable[[], nn.Module]) -> nn.Module:
    """Without the zeros and tiny scales that fresh networks have, and that make every law hold."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        network = make().eval()
        for p in network.parameters():
            if p.ndim == 1 or not p.any():
                p.add_(0.1 * torch.randn(p.shape))
    return network


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.no_grad()
def test_law_1_at_the_blocks_which_are_found_in_order(name: str) -> None:
    of = ARCHITECTURES[name]
    network = _random(of.make)
    x = torch.rand(N, 3, of.size, of.size, generator=torch.Generator().manual_seed(1))
    wanted = apply(network, x)
    state = [(p, m.training, sorted(m.__dict__), len(m._forward_hooks)) for p, m in network.named_modules()]
    sited = SitedNetwork(network, x)
    assert [(str(i.site), str(i.shape)) for i in sited.infos] == of.sites
    front, done = sited.front(x), sited.run_full(x)
    torch.testing.assert_close(done.output, wanted)
    for k, r in enumerate(front):
        torch.testing.assert_close(sited.tail(k, r, done), wanted, rtol=1e-4, atol=1e-5)
    middle = len(front) // 2
    other = front[middle] + 0.1 * torch.randn(front[middle].shape, generator=torch.Generator().manual_seed(2))
    together = extract_main_output(sited.tail(middle, torch.cat([front[middle], other]), done))
    assert together is not None
    for part, r in zip(together.split(N), (front[middle], other), strict=True):
        torch.testing.assert_close(part, sited.tail(middle, r, done), rtol=1e-4, atol=1e-5)
    assert not torch.equal(*together.split(N))
    assert [(p, m.training, sorted(m.__dict__), len(m._forward_hooks))
            for p, m in network.named_modules()] == state
    torch.testing.assert_close(apply(network, x), wanted)
