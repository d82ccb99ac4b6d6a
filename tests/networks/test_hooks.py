"""Hooks and functions of the user: a site is what the next module receives, also in suture's copies."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import suture
from suture import SutureError
from suture.networks.calls import freeze
from suture.networks.preparation import fold_batch_norms, prepare
from suture.networks.sites import capture, find_sites, run_tail
from tests.support.states import same_state, state_of
from tests.support.tiny import seeded

CPU = torch.device("cpu")
X = torch.randn(40, 5, generator=torch.Generator().manual_seed(1))
GIVEN = torch.randn(40, 6, generator=torch.Generator().manual_seed(2))
LABELS = torch.arange(40) % 3
SITES = ("blocks.0", "blocks.1", "blocks.2")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter, self.head, self.alpha = nn.Linear(5, 6), nn.Linear(6, 3), 0.5
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(3))

    def forward(self, x: Tensor) -> Any:
        x = self.enter(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Adapter:
    """A forward hook that is an object with state, as libraries of interventions have."""

    def __init__(self) -> None:
        self.shift = torch.arange(6) / 6

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return output + self.shift


ENCODER = seeded(lambda: nn.Sequential(nn.Linear(6, 9), nn.Dropout(0.5), nn.ReLU(), nn.Linear(9, 6))).eval()


def ablate(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    return output * torch.tensor([0.0, 1, 0, 1, 1, 1])


def write(module: nn.Module, args: Any, output: Tensor) -> None:
    output[:, :2] = 0


def halve(module: nn.Module, args: Any) -> Tensor:
    return args[0] / 2  # type: ignore[no-any-return]


def halve_named(module: nn.Module, args: Any, kwargs: Any) -> Any:
    return (args[0] / 2,), kwargs


def scale_named(module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> Tensor:
    return output * 3


def quantise(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    return (output * 8).round() / 8


def only_one(net: Any) -> None:
    chosen = net.blocks[1]
    for block in net.blocks:
        block.register_forward_hook(lambda m, a, o: o / 5 if m is chosen else None)


def replaced(net: Any) -> None:
    old = net.blocks[1].forward
    net.blocks[1].forward = lambda x: old(x) / 2


def method(net: Any) -> None:
    net.blocks[1].forward = MethodType(lambda self, x: self[1](self[0](x)) / 2, net.blocks[1])


def wrapped(net: Any) -> None:
    """As `accelerate` wraps a module."""
    def forward(module: Any, *args: Any) -> Any:
        return module._old_forward(*args) / 2

    block = net.blocks[1]
    block._old_forward = block.forward
    block.forward = functools.update_wrapper(functools.partial(forward, block), block.forward)


CHANGES: dict[str, Callable[[Any], Any]] = {
    "at the site": lambda n: n.blocks[1].register_forward_hook(ablate),
    "in place": lambda n: n.blocks[1].register_forward_hook(write),
    "quantised": lambda n: n.blocks[1].register_forward_hook(quantise),
    "two in turn": lambda n: [n.blocks[1].register_forward_hook(h) for h in (ablate, quantise)],
    "always": lambda n: n.blocks[1].register_forward_hook(scale_named, with_kwargs=True, always_call=True),
    "before it": lambda n: n.blocks[0].register_forward_hook(ablate),
    "behind it": lambda n: n.blocks[2].register_forward_hook(ablate),
    "in it": lambda n: n.blocks[1][0].register_forward_hook(ablate),
    "its input": lambda n: n.blocks[1].register_forward_pre_hook(halve),
    "its named input": lambda n: n.blocks[1].register_forward_pre_hook(halve_named, with_kwargs=True),
    "input behind it": lambda n: n.blocks[2].register_forward_pre_hook(halve),
    "the network": lambda n: [n.register_forward_hook(scale_named, with_kwargs=True),
                              n.register_forward_pre_hook(halve)],
    "nothing": lambda n: n.blocks[1].register_forward_hook(lambda m, a, o: None),
    "an object": lambda n: n.blocks[1].register_forward_hook(Adapter()),
    "a method": lambda n: n.blocks[1].register_forward_hook(Adapter().__call__),
    "a partial": lambda n: n.blocks[1].register_forward_hook(functools.partial(lambda k, m, a, o: k * o, 2)),
    "an attribute": lambda n: n.blocks[1].register_forward_hook(lambda m, a, o: o * n.alpha),
    "its own forward": lambda n: n.blocks[1].register_forward_hook(lambda m, a, o: m.forward(a[0] / 3)),
    "another encoder": lambda n: n.blocks[1].register_forward_hook(lambda m, a, o: ENCODER(o)),
    "by identity": only_one, "forward": replaced, "forward method": method, "forward as accelerate": wrapped,
}


def _make(change: str) -> Any:
    net = seeded(Net)
    CHANGES[change](net)
    return net


@contextmanager
def _spy(net: Any, k: int) -> Iterator[list[Tensor]]:
    """List what the module behind site `k` receives, before its own hooks."""
    seen: list[Tensor] = []
    behind = net.blocks[k + 1] if k < 2 else net.head
    handle = behind.register_forward_pre_hook(lambda m, a: seen.append(a[0].detach().clone()), prepend=True)
    yield seen
    handle.remove()


@pytest.mark.parametrize("change", CHANGES)
def test_a_site_is_what_the_next_module_receives_and_a_tail_hands_on_what_it_is_given(change: str) -> None:
    net = _make(change)
    before = state_of(net)
    with torch.no_grad(), freeze(net):
        wanted = net(X)
    got = capture(net, X, SITES)
    for k, site in enumerate(SITES):
        with _spy(net, k) as seen, torch.no_grad(), freeze(net):
            net(X)
        assert torch.equal(got[site], seen[0])
        torch.testing.assert_close(run_tail(net, X, site, got[site]), wanted)
        with _spy(net, k) as seen:
            run_tail(net, X, site, GIVEN)
        assert torch.equal(seen[-1], GIVEN)
    assert same_state(before, state_of(net))


@pytest.mark.parametrize("change", CHANGES)
def test_copies_keep_hooks_and_call_nothing_of_the_original(change: str) -> None:
    net = _make(change)
    with torch.no_grad(), freeze(net):
        wanted = net(X)
    mine = prepare(net, X[:4], CPU, "source")
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    torch.testing.assert_close(mine(X), wanted)
    assert all(p.grad is None for p in net.parameters())


def _cka(x: Tensor, y: Tensor) -> float:
    a, b = (np.asarray(t.double() - t.double().mean(0)) for t in (x, y))
    return float(np.linalg.norm(a.T @ b) ** 2 / np.linalg.norm(a.T @ a) / np.linalg.norm(b.T @ b))


@pytest.mark.parametrize("change", ["at the site", "in place", "before it"])
def test_numbers_of_a_comparison_are_those_behind_the_hooks(change: str) -> None:
    net, plain = _make(change), seeded(Net)
    result = suture.compare(net, plain, (X, LABELS), methods=["dm"], ood=None)
    with _spy(net, 1) as mine, _spy(plain, 1) as theirs, torch.no_grad(), freeze(net, plain):
        net(X), plain(X)
    got, wanted = result.matrix("cka").loc["blocks.1", "blocks.1"], _cka(mine[0], theirs[0])
    assert got == pytest.approx(wanted, abs=1e-5)
    assert wanted < 0.999


@contextmanager
def _everywhere(hook: Callable[..., Any]) -> Iterator[None]:
    handle = nn.modules.module.register_module_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def test_global_hooks_belong_to_each_module() -> None:
    net = seeded(Net)
    with _everywhere(lambda m, a, o: o / 2 if isinstance(m, nn.Tanh) else None):
        with torch.no_grad():
            wanted = net.blocks[0](net.enter(X))
        assert torch.equal(capture(net, X, ["blocks.0"])["blocks.0"], wanted)
        assert torch.equal(capture(prepare(net, X[:4], CPU, "source"), X, ["blocks.0"])["blocks.0"], wanted)


def test_a_global_hook_that_looks_for_a_module_of_the_original_is_refused() -> None:
    net = seeded(Net)
    with _everywhere(lambda m, a, o: o / 2 if m is net.blocks[1] else None), \
            pytest.raises(SutureError, match="a hook changes the target, but not suture's copy"):
        suture.compare(seeded(Net), net, (X, LABELS), methods=["dm"], ood=None)


def test_an_object_that_calls_modules_of_the_original_is_refused() -> None:
    net = seeded(Net)
    holder = SimpleNamespace(net=net)
    net.blocks[1].register_forward_hook(lambda m, a, o: o + holder.net.head(o).mean(1, keepdim=True))
    with pytest.raises(SutureError, match="the source calls module 'head' of the original"):
        suture.compare(net, seeded(Net), (X, LABELS), methods=["dm"], ood=None)


def test_hooks_run_as_often_as_in_the_network_and_collect_in_the_list_of_the_user() -> None:
    net, shapes = seeded(Net), list[Any]()
    for block in net.blocks:
        block.register_forward_hook(lambda m, a, o: shapes.append(o.shape))
    stitched = suture.stitch(seeded(Net), "blocks.0", net, "blocks.1", (X, LABELS))
    shapes.clear()
    stitched(X)
    assert shapes == [(40, 6)] * 3, "two up to the target's site, and one behind it"


@pytest.mark.parametrize("call", [lambda n: find_sites(n, X), lambda n: capture(n, X, ["blocks.0"]),
                                  lambda n: suture.compare(n, data=(X, LABELS), methods=["dm"], ood=None)])
def test_a_hook_that_fails_is_reported_in_one_line(call: Callable[[nn.Module], Any]) -> None:
    net = seeded(Net)

    def fail(module: nn.Module, args: Any, output: Tensor) -> None:
        raise KeyError("no\nvector")

    net.blocks[1].register_forward_hook(fail)
    before = state_of(net)
    with pytest.raises(SutureError, match=r"fails on .*KeyError") as error:
        call(net)
    assert "\n" not in str(error.value)
    assert same_state(before, state_of(net))


@pytest.mark.parametrize("hooked", [0, 1])
def test_batch_norms_are_not_folded_where_a_hook_stands_between(hooked: int) -> None:
    net = seeded(lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(),
                                       nn.Linear(108, 2)))
    net[hooked].register_forward_hook(lambda m, a, o: o * torch.tensor([1.0, 0.0, 1.0]).view(3, 1, 1))
    net[1].running_mean.fill_(0.3)
    images = torch.rand(4, 2, 8, 8)
    mine = prepare(net, images, CPU, "source")
    assert fold_batch_norms(mine, images) == 0
    torch.testing.assert_close(mine(images), copy.deepcopy(net).eval()(images), rtol=1e-5, atol=1e-6)
