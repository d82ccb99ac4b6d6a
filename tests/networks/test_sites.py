"""A network with its sites: what runs, what is left behind, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from suture import SutureError
from suture.networks.calls import freeze
from suture.networks.sites import SitedNetwork
from tests.support import tiny
from tests.support.networks import NETWORKS
from tests.support.sequences import TEXTS, Text, collated, two
from tests.support.states import same_state, state_of
from tests.support.tiny import images, network, seeded


@pytest.mark.parametrize("when", ["capture", "tail"])
def test_hooks_are_gone_after_the_forward_raises(when):
    network, inputs = NETWORKS["awkward"]()
    sited = SitedNetwork(network, inputs, ["blocks.0"])
    before = state_of(network)
    with torch.no_grad(), freeze(network):
        done = sited.run_full(inputs)
        bad = done.results["blocks.0", 0]["hidden"][:, :3]
        act = ((lambda: sited.run_full(inputs[:, :1])) if when == "capture"
               else (lambda: sited.tail(0, bad, done)))
        with pytest.raises(RuntimeError):
            act()
    assert same_state(before, state_of(network))


def test_capture_stops_after_the_last_site_needed():
    network, inputs = NETWORKS["awkward"]()
    calls = []
    network.head.register_forward_hook(lambda *a: calls.append(1))
    sited = SitedNetwork(network, inputs, ["blocks.0"])
    calls.clear()
    with torch.no_grad(), freeze(network):
        sited.front(inputs)
    assert not calls


def test_the_tail_does_not_run_what_lies_before_the_site():
    network, inputs = NETWORKS["resnet_digits"]()
    ran = []
    sited = SitedNetwork(network, inputs, ["layer2.0"])
    with torch.no_grad(), freeze(network):
        done = sited.run_full(inputs)
        original = nn.Conv2d.forward
        nn.Conv2d.forward = lambda self, x: (ran.append(x.shape), original(self, x))[1]
        try:
            sited.tail(0, sited.pick_representations(done)[0], done)
        finally:
            nn.Conv2d.forward = original
    after = [k for k, m in network.named_modules()
             if k.startswith(("layer2.1", "layer3")) and isinstance(m, nn.Conv2d)]
    assert len(ran) == len(after) > 0


class Contrastive(nn.Module):
    """An output that holds no examples on its own: each entry is of two of them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(self.a(x))
        return y @ y.T


def test_outputs_that_mix_examples_are_refused_in_one_line() -> None:
    with pytest.raises(SutureError, match="expected an output for each example") as error:
        SitedNetwork(Contrastive(), torch.rand(4, 4))
    assert "\n" not in str(error.value)


def test_late_tails_take_more_examples_at_once() -> None:
    sited = SitedNetwork(network(), images(4), ["block1", "block2"])
    with torch.no_grad():
        sizes = [sited.front(images(4))[k][0].numel() * 4 for k in range(2)]
    assert list(sited.peaks) == sizes
    assert [sited.count_at_once(k, 10, 5) for k in range(2)] == [10 * sited.peak // (s * 5) for s in sizes]
    assert sited.count_at_once(0, 1, 1000) == 1


def test_representations_come_out_in_float32_and_are_those_of_half_precision() -> None:
    network, x = tiny.network().eval(), tiny.images()
    sited = SitedNetwork(network, x, autocast=torch.bfloat16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        wanted = network.block1(x)
    found = sited.front(x)[0]
    assert wanted.dtype == torch.bfloat16
    assert found.dtype == torch.float32
    assert torch.equal(found, wanted.float())
    assert not torch.equal(found, SitedNetwork(network, x).front(x)[0])


def test_the_tail_runs_in_half_precision_too() -> None:
    network, x = tiny.network().eval(), tiny.images()
    sited = SitedNetwork(network, x, autocast=torch.bfloat16)
    with torch.no_grad():
        done = sited.run_full(x)
        assert done.output.dtype == torch.bfloat16
        assert torch.equal(sited.tail(0, sited.pick_representations(done)[0], done), done.output)


def test_the_tail_of_a_text_is_its_network_at_every_length_and_for_copies() -> None:
    network = two()[0]
    for sites in ("blocks.*", "embed"):
        sited = SitedNetwork(network, collated(TEXTS[:4], 4)[0][0], sites)
        lengths = set()
        for inputs, _ in collated(TEXTS, 7):
            with freeze(network), torch.no_grad():
                done = sited.run_full(inputs)
                for j, x in enumerate(sited.pick_representations(done)):
                    lengths.add(x.shape[1])
                    torch.testing.assert_close(sited.tail(j, x, done), done.output)
                    torch.testing.assert_close(sited.tail(j, torch.cat([x, x, x]), done),
                                               done.output.repeat(3, 1))
        assert len(lengths) > 1


class Halved(Text):
    """Gives every other token, so that no number of tokens but the first batch's is the inputs'."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        h = self.blocks[0](self.embed(input_ids)[:, :6])
        return self.head(torch.tanh(self.pool(h.mean(1))))


def test_tokens_that_are_not_those_of_the_text_are_refused_where_the_text_is_another() -> None:
    network = seeded(Halved).eval()
    ids = torch.ones(4, 9, dtype=torch.int64)
    sited = SitedNetwork(network, {"input_ids": ids[:, :6]}, ["blocks.0"])
    assert sited.shapes[0].varies
    with pytest.raises(SutureError, match=r"as many tokens at site 'blocks.0' of the network as its inputs "
                                          "have, 9, got 6; leave this site out"):
        sited.front({"input_ids": ids})


SMALL = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
PIXELS = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
VISION: dict[str, Any] = {
    "DeiT": (lambda t: t.DeiTForImageClassification(t.DeiTConfig(**SMALL, image_size=32, patch_size=8)),
             {"pixel_values": PIXELS}, "deit.layers.0", "tokens 18x8 (2 prefix, 4x4 patches)"),
    "registers": (lambda t: t.Dinov2WithRegistersForImageClassification(t.Dinov2WithRegistersConfig(
        **SMALL, mlp_ratio=1, image_size=32, patch_size=8, num_register_tokens=4)), {"pixel_values": PIXELS},
        "dinov2_with_registers.encoder.layer.0", "tokens 21x8 (5 prefix, 4x4 patches)"),
    "not square":
    (lambda t: t.ViTForImageClassification(t.ViTConfig(**SMALL, image_size=(32, 20), patch_size=8)),
     {"pixel_values": PIXELS[..., :20]}, "vit.layers.0", "tokens 9x8 (1 prefix, 4x2 patches)"),
    "masked": (lambda t: t.ViTModel(t.ViTConfig(**SMALL, image_size=32, patch_size=8), use_mask_token=True),
               {"bool_masked_pos": torch.ones(4, 16, dtype=torch.bool), "pixel_values": PIXELS}, "layers.0",
               "tokens 17x8 (1 prefix, 4x4 patches)"),
    "ConvNeXt": (lambda t: t.ConvNextForImageClassification(t.ConvNextConfig(
        hidden_sizes=[6, 8], depths=[1, 1], num_stages=2, patch_size=2)), {"pixel_values": PIXELS},
                 "convnext.encoder.stages.0.layers.0.pwconv1", "map 24x16x16 (channels last)"),
}


@pytest.mark.parametrize("name", VISION)
def test_vision_transformers_are_recognised(name: str) -> None:
    make, inputs, site, shape = VISION[name]
    network = seeded(lambda: make(pytest.importorskip("transformers")))
    sited = SitedNetwork(network, inputs, [site], allow_bypass=True)
    assert str(sited.shapes[0]) == shape
    with freeze(network), torch.no_grad():
        done = sited.run_full(inputs)
        x = sited.pick_representations(done)[0]
        mine, own = (next(iter(o.values())) for o in (sited.tail(0, x, done), done.output))
    torch.testing.assert_close(mine, own, rtol=1e-4, atol=1e-5)


class SumOfAll(nn.Module):
    """The logits are of the sum of six outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.ModuleDict({name: nn.Linear(3, 3) for name in "abcdef"})
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Any:
        found = []
        for step in self.steps.values():
            x = step(x)
            found.append(x)
        return self.head(torch.stack(found).sum(0))


def test_what_bypasses_a_site_is_named_in_the_order_of_the_pass() -> None:
    """Keys of comparisons hold the names: in another order a result could not be gone on with."""
    info = SitedNetwork(seeded(SumOfAll), torch.rand(4, 3), ["steps.f"], allow_bypass=True).infos[0]
    assert info.bypass == tuple(f"steps.{name}" for name in "abcde")
