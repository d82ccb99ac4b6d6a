"""Networks whose forward looks at how maps lie in memory, or meets batch norms in every way."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.support.tiny import Tiny


class Views(Tiny):
    """Calls `.view` on a map, which a map in channels-last layout refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.block2(self.block1(x))
        return self.head(h.view(h.size(0), -1))


class Normed(nn.Module):
    """Every way in which a convolution meets a batch norm; only `plain` and `boxed` may be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.plain_bn = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)
        self.boxed = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.BatchNorm2d(3, affine=False),
                                   nn.ReLU(inplace=True))
        self.twice, self.twice_bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.wrapped, self.wrapped_bn = nn.Sequential(nn.Conv2d(3, 3, 1)), nn.BatchNorm2d(3)
        self.batch, self.batch_bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)
        self.head = nn.Linear(3, 3)
        for m in self.modules():
            if isinstance(m, nn.BatchNorm2d) and m.running_mean is not None and m.running_var is not None:
                m.running_mean.normal_()
                m.running_var.uniform_(0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.boxed(self.plain_bn(self.plain(x)))
        for _ in range(2):
            x = self.twice_bn(self.twice(x))
        x = self.batch_bn(self.batch(self.wrapped_bn(self.wrapped(x))))
        return torch.as_tensor(self.head(x.mean((2, 3))))
