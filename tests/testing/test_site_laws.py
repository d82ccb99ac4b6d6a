"""The laws of networks hold for networks that suture can cut, and find those that it cannot."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from suture import testing, zoo
from tests.support.tiny import Tiny


@pytest.mark.parametrize("network", [zoo.build("resnet_digits"), Tiny()], ids=["resnet", "tiny"])
def test_networks_that_can_be_cut_keep_the_laws(network: nn.Module) -> None:
    channels = 1 if isinstance(network, zoo.build("resnet_digits").__class__) else 2
    testing.verify(testing.site_laws(network, torch.rand(4, channels, 8, 8)))


class Counts(Tiny):
    """Its output depends on how often it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        found: Tensor = super().forward(x) + self.calls
        return found


class Mixes(Tiny):
    """Subtracts the mean of the batch."""

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = super().forward(x)
        return found - found.mean(0)


class MixesFive(Tiny):
    """Subtracts the mean of a batch of five, which the dry run does not try."""

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = super().forward(x)
        return found - found.mean(0) if len(x) == 5 else found


class Remembers(Tiny):
    """Adds what the first block saw at the call before."""

    def __init__(self) -> None:
        super().__init__()
        self.before: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        h = self.block1(x)
        kept, self.before = self.before, h.detach().mean()
        last: Tensor = self.head(self.block2(h).mean((2, 3)))
        return last if kept is None else last + kept


@pytest.mark.parametrize(("network", "law"), [
    (Counts(), "sites"), (Remembers(), "sites"), (Mixes(), "sites"), (MixesFive(), "examples alone"),
])
def test_a_wrong_network_is_found(network: nn.Module, law: str) -> None:
    with pytest.raises(AssertionError) as found:
        testing.verify(testing.site_laws(network, torch.rand(6, 2, 8, 8), ["block1", "block2"]))
    assert any(line.startswith(f"{law}: ") for line in str(found.value).splitlines())
