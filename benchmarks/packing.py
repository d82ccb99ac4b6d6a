"""What the change of weight layout costs in each stage of ResNet-18 at 32x32, with and without packing.

Times one 3x3 convolution of each stage per image, in channels-last layout: as it is, and with the weight in
oneDNN's own layout (`suture.networks.preparation.pack_convolutions`).
"""

from __future__ import annotations

import torch
from torch import nn

from common import header, seconds
from suture.networks.preparation import pack_convolutions

STAGES = ((64, 32), (128, 16), (256, 8), (512, 4))


@torch.no_grad()
def main() -> None:
    """Print milliseconds per image."""
    header("packing", 100)
    for channels, side in STAGES:
        for n in (25, 50, 100):
            x = torch.rand(n, channels, side, side).contiguous(memory_format=torch.channels_last)
            box = nn.Sequential(nn.Conv2d(channels, channels, 3,
                                          padding=1)).to(memory_format=torch.channels_last)
            plain = seconds(lambda box=box, x=x: box(x), 15)
            packed = pack_convolutions(box, x[:4])
            after = seconds(lambda box=box, x=x: box(x), 15)
            print(f"  {channels} channels at {side}x{side}, micro-batch {n}: {1e3 * plain / n:.3f} ms, "
                  f"packed {1e3 * after / n:.3f} ms "
                  f"({after / plain:.2f}){'' if packed else ' (too small, left as it is)'}")


if __name__ == "__main__":
    main()
