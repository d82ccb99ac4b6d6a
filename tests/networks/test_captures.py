"""Captured values and tails by the name of a site: those at its time, calls and slots."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from suture import SutureError
from suture.networks.calls import apply, extract_main_output, freeze
from suture.networks.sites import Site, capture, find_sites, run_tail
from suture.representations import Kind
from tests.support.networks import NETWORKS
from tests.support.states import same_state, state_of
from tests.support.tiny import seeded
from tests.support.windows import IMAGES, Windows


@pytest.mark.parametrize(("name", "site"),
                         [("awkward", "blocks.0:hidden"), ("twice", "pair:0"), ("twice", "block#1"),
                          ("mlp", "3"), ("resnet_digits", "layer2.0")])
def test_capture_and_run_tail_take_calls_and_slots(name, site):
    network, inputs = NETWORKS[name]()
    before = state_of(network)
    x = capture(network, inputs, [site])[site]
    with torch.no_grad(), freeze(network):
        own = extract_main_output(apply(network, inputs))
    assert torch.equal(extract_main_output(run_tail(network, inputs, site, x)), own)
    assert not torch.equal(extract_main_output(run_tail(network, inputs, site, x * 2)), own)
    assert same_state(before, state_of(network))


def test_captured_values_are_those_at_the_time_of_the_site():
    """The in-place ReLU and the in-place sum come later; a hook that clones at once is the reference."""
    network, inputs = NETWORKS["awkward"]()
    seen = {}
    network.eval()
    handles = [m.register_forward_hook(lambda m, a, out, k=k: seen.update({k: out.clone()}))
               for k, m in network.named_modules() if k in ("stem", "blocks.0.bn", "blocks.1.bn")]
    with torch.no_grad():
        network(inputs)
    for h in handles:
        h.remove()
    got = capture(network, inputs, list(seen))
    for k, v in seen.items():
        assert torch.equal(got[k], v), k
        assert (v < 0).any(), "the case tests nothing unless the ReLU changes it"


def test_every_call_of_a_reused_module_is_its_own_site():
    network, inputs = NETWORKS["twice"]()
    got = capture(network, inputs, ["block#0", "block#1", "block#2"])
    h = network.enter(inputs["x"].flatten(1)) * inputs["scale"][:, None]
    for name in ("block", "block#1", "block#2"):
        h = network.block(h)
        torch.testing.assert_close(got[name], h.detach())


class Strided(nn.Module):
    """Views a map in the layout that its own block gives, whatever the order of its axes."""

    def __init__(self, block: nn.Module, order: Sequence[int]) -> None:
        super().__init__()
        self.block, self.order, self.head = block, order, nn.Linear(128, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(x).permute(*self.order).view(len(x), -1))


class Turned(nn.Module):
    def __init__(self, *order: int) -> None:
        super().__init__()
        self.order, self.conv = order, nn.Conv2d(2, 8, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).contiguous().permute(*self.order)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1), (0, 3, 1, 2), (0, 3, 2, 1), (0, 2, 1, 3)])
def test_a_given_map_lies_in_memory_as_the_networks_own(order: tuple[int, ...]) -> None:
    back = tuple(order.index(d) for d in range(4))
    network = seeded(lambda: Strided(Turned(*order), back)).eval()
    x = capture(network, IMAGES[:6], ["block@map"])["block"]
    with torch.no_grad():
        wanted = network(IMAGES[:6])
    for given in (x, x.contiguous(), x.clone(memory_format=torch.channels_last)):
        torch.testing.assert_close(run_tail(network, IMAGES[:6], "block@map", given), wanted)
    torch.testing.assert_close(run_tail(network, IMAGES[:6], "block@map", torch.cat([x, x])),
                               torch.cat([wanted, wanted]))


def test_nothing_behind_the_at_is_refused() -> None:
    with pytest.raises(SutureError, match=r"'blocks.\*@'.*write 'blocks.\*@tokens:1'"):
        find_sites(seeded(Windows), IMAGES[:4], "blocks.*@")


def test_overrides_of_sites_and_globs() -> None:
    network, x = seeded(Windows), IMAGES[:4]
    shapes = {str(i.site): str(i.shape) for i in find_sites(network, x, ["blocks.*@map", "stem"])}
    assert shapes == {"stem": "map 6x4x4", "blocks.0": "map 4x4x6", "blocks.1": "map 4x4x6"}
    found = find_sites(network, x, ["blocks.1@map", "blocks.*"])
    assert [(str(i.site), i.shape.last) for i in found] == [("blocks.0", True), ("blocks.1", False)]
    assert [i.kind for i in find_sites(network, x, [Site("blocks.0", taken="map:last")])] == [Kind.MAP]
    with pytest.raises(SutureError,
                       match=r"site 'blocks.1' of the network, got map and map:last"):
        find_sites(network, x, ["blocks.*@map", "blocks.1@map:last"])
    with pytest.raises(SutureError, match=r"site 'stem' of the network: expected \(N, D\) for vector, got "
                                          r"shape \(4, 6, 4, 4\)"):
        find_sites(network, x, ["stem@vector"])


class SequenceFirst(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.transpose(0, 1)).transpose(0, 1).mean(1)


def test_sites_with_the_batch_second_give_the_examples_first() -> None:
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 8), 2, enable_nested_tensor=False)
    network, x = SequenceFirst(encoder).eval(), torch.randn(4, 9, 8)
    assert str(find_sites(network, x, ["inner.layers.0"])[0].shape) == "tokens 9x8"
    with torch.no_grad():
        wanted = encoder.layers[0](x.transpose(0, 1)).transpose(0, 1)
    torch.testing.assert_close(capture(network, x, ["inner.layers.0"])["inner.layers.0"], wanted)
