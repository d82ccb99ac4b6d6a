"""Networks made ready: private, frozen, in a layout that changes nothing."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from suture import SutureError
from suture.networks.preparation import (
    CPU_BUDGET,
    choose_micro_batch,
    find_device,
    fold_batch_norms,
    prepare,
    take_first,
)
from suture.networks.sites import SitedNetwork
from tests.support.layouts import Normed, Views
from tests.support.tiny import Tiny, images, labels, network, seeded

CPU = torch.device("cpu")


class Strided(Tiny):
    """Reads memory as it lies: channels last gives another output, without an error."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.block2(self.block1(x))
        flat = torch.as_strided(h, (len(h), 64), (64, 1))
        return flat[:, :3] * torch.tensor([1.0, 2.0, 3.0])


def _layout(made: nn.Module) -> str:
    weight = made.block2.conv.weight
    return "last" if weight.is_contiguous(memory_format=torch.channels_last) else "usual"


@pytest.mark.parametrize(("make", "layout"), [(Tiny, "last"), (Views, "usual"), (Strided, "usual")])
def test_channels_last_where_it_changes_nothing(make: type[nn.Module], layout: str) -> None:
    given = seeded(make)
    made = prepare(given, images(4), CPU, "source")
    assert _layout(made) == layout
    with torch.no_grad():
        torch.testing.assert_close(made(images(9)), given.eval()(images(9)))


@pytest.mark.parametrize(("inputs", "advice"), [
    ({"image": images(4)}, "'image' is no argument of its forward (x)"),
    (images(4).double(), "its weights are float32, the inputs float64"),
])
def test_inputs_that_do_not_fit(inputs: Any, advice: str) -> None:
    with pytest.raises(SutureError, match=re.escape(advice)):
        prepare(network(), inputs, CPU, "source")


def test_the_copy_is_private_and_frozen() -> None:
    given = network().train()
    made = prepare(given, images(4), CPU, "source")
    assert not any(m.training for m in made.modules())
    assert not any(p.requires_grad for p in made.parameters())
    assert all(m.training for m in given.modules())
    assert all(p.requires_grad for p in given.parameters())
    with torch.no_grad():
        made.head.weight.zero_()
    assert given.head.weight.abs().sum() > 0


@pytest.mark.parametrize("name", ["auto", "cpu", torch.device("cpu"), "cpu:0"])
def test_devices_that_are_there(name: Any) -> None:
    wanted = "cuda" if name == "auto" and torch.cuda.is_available() else "cpu"
    if name != "auto" or not torch.backends.mps.is_available():
        assert find_device(name).type == wanted


def test_auto_prefers_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert find_device().type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_device().type == "cuda"
    assert find_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(SutureError, match="'cuda:2' is not available"):
        find_device("cuda:2")


@pytest.mark.parametrize(("name", "words"), [("gpu", "auto, cpu, cuda or mps, got 'gpu'"), ("", "got ''"),
                                             ("cuda", "'cuda' is not available"),
                                             ("mps", "'mps' is not available"),
                                             ("meta", "cuda or mps, got 'meta'"),
                                             ("xpu", "cuda or mps, got 'xpu'"), ("mps:1", "'mps:1' is not")])
def test_devices_that_are_not_there(name: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(SutureError, match=words):
        find_device(name)


def test_float64_is_refused_and_the_halves_are_not() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        made = prepare(network().to(dtype), images(4).to(dtype), CPU, "source")
        assert made.head.weight.dtype == dtype
    mixed = network()
    mixed.head.double()
    with pytest.raises(SutureError, match=r"the target in float32 .*float64 in 'head.weight'"):
        prepare(mixed, images(4), CPU, "target")


def test_few_examples_of_everything_that_has_them() -> None:
    scale = torch.tensor(2.0)
    got = take_first({"x": images(9), "pair": (labels(9), scale), "table": images(5)}, 3)
    assert torch.equal(got["x"], images(9)[:3])
    assert torch.equal(got["pair"][0], labels(3))
    assert got["pair"][1] is scale
    assert got["table"].shape[0] == 5


def test_a_micro_batch_keeps_the_largest_activation_within_the_budget() -> None:
    largest = 4 * max(3 * 8 * 8, 4 * 4 * 4)
    for n in (2, 9):
        sited = SitedNetwork(network(), images(n))
        assert sited.peak == largest
        assert choose_micro_batch(sited.peak, CPU) == CPU_BUDGET // largest
    assert choose_micro_batch(2 * CPU_BUDGET, CPU) == 1


def test_batch_norms_are_folded_where_nothing_else_reads_the_convolution() -> None:
    net = seeded(Normed).eval()
    wanted = net(images(5))
    made = prepare(net, images(5), CPU, "source")
    assert fold_batch_norms(made, images(5), unchanged={"wrapped"}) == 2
    assert {n for n, m in made.named_modules() if "forward" in m.__dict__} == {"plain_bn", "boxed.1"}
    torch.testing.assert_close(made(images(5)), wanted, rtol=1e-4, atol=1e-5)
    assert fold_batch_norms(made, images(5), unchanged={"wrapped"}) == 0, "a second time nothing is left"
    assert fold_batch_norms(prepare(net, images(5), CPU, "source"), images(5)) == 3


class ReadTwice(Normed):
    """The convolution's result is read beside the batch norm."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.plain(x)
        return torch.as_tensor(self.head((self.plain_bn(x) + x).mean((2, 3))))


class ReadLast(Normed):
    """The second reader is the network itself, with no module after it."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.plain(x)
        return torch.as_tensor((self.plain_bn(x) + x).mean((2, 3)))


@pytest.mark.parametrize("make", [ReadTwice, ReadLast])
def test_folding_is_undone_where_it_changes_a_result(make: type[Normed]) -> None:
    net = seeded(make).eval()
    made = prepare(net, images(5), CPU, "source")
    assert fold_batch_norms(made, images(5)) == 0
    torch.testing.assert_close(made(images(5)), net(images(5)), rtol=1e-5, atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(made.parameters(), net.parameters(), strict=True))
