"""Networks as users have them: what only computes or stores a network in another way gives its numbers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, weight_norm
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.utils.checkpoint import checkpoint

import suture
from suture import SutureError, TaskRecipe
from suture.networks import Recipe, capture, find_sites, prepare, run_tail, train
from suture.results import Comparison
from tests.support.interruptions import assert_same_numbers
from tests.support.states import same_state, state_of
from tests.support.tiny import seeded

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning",
                                        "ignore:None of the inputs:UserWarning")
X = torch.randn(48, 5, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(48) % 3
BRIEF: dict[str, Any] = {"methods": ["dm", "tlm"], "tlm": TaskRecipe(epochs=1, batch_size=16), "ood": None,
                         "indices": ["cka"]}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter, self.head = nn.Linear(5, 6), nn.Linear(6, 3)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(3))

    def run(self, first: int, last: int, x: Tensor) -> Tensor:
        for block in self.blocks[first:last]:
            x = block(x)
        return x

    def forward(self, x: Tensor) -> Any:
        return self.head(self.run(0, 3, self.enter(x)))


class Low(nn.Module):
    """A layer with a low-rank update beside it, as LoRA trains it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.a, self.b = (nn.Parameter(torch.randn(n, m) / 3) for n, m in ((2, 6), (6, 2)))

    def forward(self, x: Tensor) -> Tensor:
        low: Tensor = self.base(x) + x @ self.a.T @ self.b.T
        return low


def _each_layer(net: Net, change: Callable[[nn.Linear], nn.Module | None]) -> None:
    for block in net.blocks:
        block[0] = change(block[0]) or block[0]


def _merge(layer: Any) -> nn.Linear:
    made: nn.Linear = copy.deepcopy(layer.base)
    made.weight.data += layer.b.detach() @ layer.a.detach()
    return made


def lora() -> tuple[nn.Module, nn.Module]:
    net = seeded(Net)
    _each_layer(net, Low)
    plain = copy.deepcopy(net)
    _each_layer(plain, _merge)
    return net, plain


def normed(norm: Callable[[nn.Linear], nn.Module]) -> tuple[nn.Module, nn.Module]:
    """A weight that a parametrization computes, or in older networks a hook, with a history after a pass."""
    net, plain = seeded(Net), seeded(Net)
    _each_layer(net, norm)
    net.eval()(X)
    for block, other in zip(net.blocks, plain.blocks, strict=True):
        other[0].weight.data = block[0].weight.detach().clone()
    return net.train(), plain


class Checkpointed(Net):
    """Every block in a checkpoint of its own."""

    reentrant = False

    def run(self, first: int, last: int, x: Tensor) -> Tensor:
        for block in self.blocks[first:last]:
            x = checkpoint(block, x, use_reentrant=self.reentrant)
        return x


class Reentrant(Checkpointed):
    reentrant = True


class Stage(Net):
    """Two blocks within one checkpoint, so that a site lies in it."""

    def forward(self, x: Tensor) -> Any:
        x = self.run(0, 1, self.enter(x))
        return self.head(checkpoint(super().run, 1, 3, x, use_reentrant=False))


class View(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(len(x), -1)


def viewed(last: Callable[[], nn.Module]) -> tuple[nn.Module, nn.Module]:
    net = seeded(Net)
    for block in net.blocks:
        block.append(last())
    return net, seeded(Net)


def tied() -> tuple[nn.Module, nn.Module]:
    """The second and third layers share their weights; in the other network they are equal only."""
    net = seeded(Net)
    net.blocks[2][0].weight = net.blocks[1][0].weight
    plain = copy.deepcopy(net)
    plain.blocks[2][0].weight = nn.Parameter(plain.blocks[1][0].weight.detach().clone())
    return net, plain


PAIRS: dict[str, Callable[[], tuple[nn.Module, nn.Module]]] = {
    "tied": tied,
    "spectral norm": lambda: normed(parametrizations.spectral_norm),
    "weight norm": lambda: normed(parametrizations.weight_norm),
    "orthogonal": lambda: normed(parametrizations.orthogonal),
    "old weight norm": lambda: normed(weight_norm), "old spectral norm": lambda: normed(old_spectral_norm),
    "checkpoints": lambda: (seeded(Checkpointed), seeded(Net)),
    "reentrant": lambda: (seeded(Reentrant), seeded(Net)), "a stage": lambda: (seeded(Stage), seeded(Net)),
    "identity": lambda: viewed(nn.Identity), "view": lambda: viewed(View),
    "flatten": lambda: viewed(nn.Flatten),
}


def _compare(net: nn.Module, other: nn.Module, **options: Any) -> Comparison:
    return suture.compare(net, other, (X, LABELS), **{**BRIEF, **options})


def _assert_equal(one: Comparison, other: Comparison) -> None:
    for measure in set(one.measures) & {"cka", "dm.accuracy", "tlm.accuracy", "tlm.r2"}:
        torch.testing.assert_close(torch.tensor(one.matrix(measure).values),
                                   torch.tensor(other.matrix(measure).values), rtol=1e-3, atol=1e-4)


OTHER = seeded(Net, 5)


@pytest.mark.parametrize("name", PAIRS)
def test_sites_and_tails_are_those_of_the_plain_network(name: str) -> None:
    net, plain = PAIRS[name]()
    before = state_of(net)
    mine = prepare(net, X[:4], torch.device("cpu"), "target")
    for made in (net, mine):
        got, wanted = capture(made, X), capture(plain, X)
        assert list(got) == list(wanted) == ["blocks.0", "blocks.1", "blocks.2"]
        for site, x in got.items():
            torch.testing.assert_close(x, wanted[site])
            torch.testing.assert_close(run_tail(made, X, site, 2 * x), run_tail(plain, X, site, 2 * x))
    assert same_state(before, state_of(net))


@pytest.mark.parametrize("name", ["tied", "old weight norm", "reentrant", "a stage"])
def test_trained_layers_are_those_of_the_plain_network(name: str) -> None:
    net, plain = PAIRS[name]()
    _assert_equal(*(_compare(OTHER, n, target_sites=["blocks.1", "blocks.2"]) for n in (net, plain)))


def test_a_wrapper_changes_nothing() -> None:
    net = seeded(Net)
    result = _compare(OTHER, nn.DataParallel(net), methods=["dm"])
    _assert_equal(result, _compare(OTHER, net, methods=["dm"]))
    assert list(result.matrix("cka").columns) == ["blocks.0", "blocks.1", "blocks.2"]


def test_a_low_rank_update_counts() -> None:
    net, merged = lora()
    how: dict[str, Any] = {"sites": ["blocks.0", "blocks.1", "blocks.2"], "methods": ["dm"]}
    result, plain = (_compare(OTHER, n, **how) for n in (net, seeded(Net)))
    _assert_equal(result, _compare(OTHER, merged, **how))
    assert abs(result.matrix("cka") - plain.matrix("cka")).values.max() > 1e-3


class Recurrent(nn.Module):
    """Two LSTMs over (N, T, D), which run with the time or the batch first."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.first, self.second = (nn.LSTM(6, 6, batch_first=batch_first) for _ in range(2))
        self.head, self.batch_first = nn.Linear(6, 3), batch_first

    def forward(self, x: Tensor) -> Any:
        x = x if self.batch_first else x.transpose(0, 1)
        x = self.second(self.first(x)[0])[0]
        return self.head(x[:, -1] if self.batch_first else x[-1])


@pytest.mark.parametrize("length", [3, 4, 7])
def test_recurrent_networks_with_the_batch_second_have_sites_also_for_as_many_steps(length: int) -> None:
    x = torch.randn(12, length, 6)
    first, second = seeded(lambda: Recurrent(True)), seeded(lambda: Recurrent(False))
    second.load_state_dict(first.state_dict())
    for network in (first, second):
        shapes = [str(i.shape) for i in find_sites(network, x, ["first", "second"])]
        assert shapes == [f"tokens {length}x6"] * 2
    a, b = (capture(n, x, ["first", "second"]) for n in (first, second))
    assert all(torch.allclose(a[k], b[k], atol=1e-6) for k in a)


def test_checkpoints_over_time_are_told_apart() -> None:
    net, steps, found = seeded(Net), [], []
    for _ in range(2):
        train(net, X, LABELS, Recipe(epochs=2, batch_size=16, lr=1e-2))
        steps.append(copy.deepcopy(net))
        found.append(_compare(net, OTHER, methods=["dm"]))
    for step, result in zip(steps, found, strict=True):
        assert_same_numbers(result, _compare(step, OTHER, methods=["dm"]))
    assert len({r.meta["key"] for r in found}) == 2
    assert len({float(r.matrix("cka").values[2, 2]) for r in found}) == 2
    with pytest.raises(SutureError):
        _compare(net, OTHER, methods=["dm"], previous=found[0])
