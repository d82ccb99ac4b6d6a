"""Outputs that depend on the other examples of a batch, or on chance: found, and nothing else is."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import suture
from suture import SutureError
from suture.networks.sites import capture, find_sites
from tests.support.states import same_state, state_of
from tests.support.tiny import seeded

X = torch.randn(40, 5, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(40) % 3
SITES = ("1", "2")


class Layer(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.linear, self.inner = nn.Linear(6, 6), inner

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.inner(self.linear(x)))


class Does(nn.Module):
    """Module of one function."""

    def __init__(self, fn: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(x)


class Stubborn(nn.BatchNorm1d):
    """Stays in train mode."""

    def train(self, mode: bool = True) -> Any:
        return super().train(True)


class Experts(nn.Module):
    """Two experts; `capacity` is the share of a batch that one of them takes, None for no limit."""

    def __init__(self, capacity: float | None) -> None:
        super().__init__()
        self.capacity, self.gate = capacity, nn.Linear(6, 2)
        self.experts = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        most = len(x) if self.capacity is None else math.ceil(self.capacity * len(x))
        out, chosen = x.clone(), self.gate(x).argmax(1)
        for k, expert in enumerate(self.experts):
            rows = (chosen == k).nonzero()[:most, 0]
            out[rows] = out[rows] + expert(x[rows])
        return out


def pairs(x: Tensor) -> Tensor:
    return x + x.unflatten(0, (-1, 2)).sum(1).repeat_interleave(2, 0) if len(x) % 2 == 0 else x


def network(inner: Callable[[], nn.Module], behind: bool = False) -> nn.Module:
    parts = (nn.Identity, inner) if behind else (inner, nn.Identity)
    return seeded(lambda: nn.Sequential(nn.Linear(5, 6), *(Layer(p()) for p in parts), nn.Linear(6, 3)))


MIXING: dict[str, Callable[[], nn.Module]] = {
    "BatchNorm1d": lambda: nn.BatchNorm1d(6, track_running_stats=False), "Stubborn": lambda: Stubborn(6),
    "Experts": lambda: Experts(0.25)} | {name: lambda fn=fn: Does(fn) for name, fn in {  # type: ignore[misc]
        "softmax": lambda x: x * (x @ x.T).softmax(1).sum(1, keepdim=True) + (x @ x.T).softmax(0) @ x,
        "mean": lambda x: x - x.mean(0), "first": lambda x: x - x[:1], "last": lambda x: x - x[-1:],
        "neighbour": lambda x: x + x.roll(1, 0), "size": lambda x: x * len(x), "pairs": pairs}.items()}
SOUND: dict[str, Callable[[], nn.Module]] = {
    "norm": lambda: nn.BatchNorm1d(6), "layer norm": lambda: nn.LayerNorm(6), "dropout": nn.Dropout,
    "experts": lambda: Experts(None), "rounded": lambda: Does(lambda x: (x * 8).round() / 8),
    "instance norm": lambda: Does(lambda x: F.instance_norm(x[:, None])[:, 0]),
    "nan": lambda: Does(lambda x: torch.where(x > 1, torch.nan, x))}


@pytest.mark.parametrize("n", [40, 3, 2, 1])
@pytest.mark.parametrize("name", MIXING)
@pytest.mark.parametrize("behind", [False, True])
def test_what_mixes_examples_is_refused_by_its_name(name: str, n: int, behind: bool) -> None:
    made = network(MIXING[name], behind).train()
    before = state_of(made)
    kind = type(MIXING[name]())
    words = rf"depends on the others .* first at {1 + behind}.inner \({kind.__name__}\)"
    if n == 1 and issubclass(kind, nn.BatchNorm1d):
        words = "more than 1 value per channel"  # PyTorch's own words
    with pytest.raises(SutureError, match=words):
        find_sites(made, X[:n], SITES)
    assert same_state(before, state_of(made))


@pytest.mark.parametrize("n", [40, 3, 2, 1])
@pytest.mark.parametrize("name", SOUND)
def test_what_treats_each_example_alone_is_not_refused(name: str, n: int) -> None:
    made = network(SOUND[name])
    assert [str(i.site) for i in find_sites(made, X[:n], SITES)] == [*SITES]


@pytest.mark.parametrize("inner", [lambda: Does(lambda x: F.dropout(x, training=True)),
                                   lambda: Does(lambda x: x + torch.randn_like(x))])
def test_chance_has_its_own_words(inner: Callable[[], nn.Module]) -> None:
    with pytest.raises(SutureError, match=r"another one in each pass, first at 1.inner \(Does\); switch off"):
        find_sites(network(inner), X, SITES)


class Centred(nn.Module):
    """The mean of the batch is taken off before the site and put back behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.site, self.head = nn.Linear(5, 6), nn.Identity(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Any:
        x = self.linear(x)
        return self.head(self.site(x - x.mean(0)) + x.mean(0))


class WithLoss(nn.Module):
    """A loss over the batch, beside logits that do not depend on it."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm = network(nn.Identity), nn.BatchNorm1d(3, track_running_stats=False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        logits = self.body(x)
        return {"balance": self.norm(logits).square().mean(), "contrast": self.norm(logits), "logits": logits}


def test_sites_and_outputs_are_judged_and_nothing_beside_them() -> None:
    made = seeded(Centred)
    assert capture(made, X, ["linear"])["linear"].shape == (40, 6)
    with pytest.raises(SutureError, match=r"site 'site' of the network for an example .* first at site \(Id"):
        capture(made, X, ["site"])
    assert len(find_sites(seeded(WithLoss), X, ["body.1", "body.2"])) == 2


PLAIN = network(nn.Identity)
BAD = network(MIXING["BatchNorm1d"])
CALLS: dict[str, Callable[[nn.Module, nn.Module], Any]] = {
    "compare": lambda a, b: suture.compare(a, b, (X, LABELS), methods=["dm"], ood=None, sites=SITES),
    "dry_run": lambda a, b: suture.dry_run(a, b, (X, LABELS), methods=[], ood=None, sites=SITES),
    "stitch": lambda a, b: suture.stitch(a, "1", b, "2", (X, LABELS))}


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("call", CALLS)
def test_both_networks_are_judged_by_every_call(call: str, side: str) -> None:
    with pytest.raises(SutureError, match=f"the output of the {side} for an example depends"):
        CALLS[call](*((BAD, PLAIN) if side == "source" else (PLAIN, BAD)))


def test_batches_of_one_example_show_it_too() -> None:
    data = DataLoader(TensorDataset(X[:12], LABELS[:12]))
    made = network(MIXING["mean"])
    with pytest.raises(SutureError, match="the output of the source for an example depends"):
        suture.compare(made, PLAIN, data, methods=["dm"], ood=None, sites=SITES)
    sound = suture.compare(PLAIN, data=data, methods=["dm"], ood=None, sites=SITES)
    assert sound.matrix("cka").shape == (2, 2)


class Packed(nn.Module):
    """Packs sequences, which it wants sorted by length."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(5, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: Tensor, lengths: Tensor) -> Any:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths.cpu(), batch_first=True)
        return self.head(nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0].sum(1))


def test_a_network_that_accepts_one_order_only_is_sound() -> None:
    inputs = {"x": torch.randn(6, 7, 5), "lengths": torch.tensor([7, 6, 5, 4, 3, 2])}
    assert [str(i.site) for i in find_sites(seeded(Packed), inputs, ["head"])] == ["head"]
