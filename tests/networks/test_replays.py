"""Replays: what they run, what they need, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from suture import SutureError, run_tail
from suture.networks.calls import freeze, record, walk
from suture.networks.sites import Site, SitedNetwork
from suture.networks.sites.capture_and_replay import RecordedPass, ReplayPlan, capture_calls, replay
from tests.support.tiny import images, network, seeded


def _plan(made: nn.Module, x: Tensor, site: str) -> tuple[ReplayPlan, RecordedPass]:
    parsed = Site.parse(site)
    call = next(c for c in walk(record(made, x)) if c.id == parsed.id)
    plan = ReplayPlan.of(parsed, call)
    return plan, capture_calls(made, x, plan.remembered, set())


@torch.no_grad()
def test_a_replay_needs_the_site_and_the_calls_beside_its_path() -> None:
    made, x = network().eval(), images(4)
    plan, done = _plan(made, x, "block2.conv")
    assert plan.remembered == {("block1", 0), ("block2.conv", 0)}
    own = done.results["block2.conv", 0]
    assert torch.equal(replay(made, plan, own, done, set()), made(x))
    assert not torch.equal(replay(made, plan, own + 1, done, set()), made(x))
    assert torch.equal(replay(made, plan, torch.cat([own, own]), done, set()), torch.cat([made(x)] * 2))


@torch.no_grad()
def test_representations_that_are_no_whole_batches_are_refused() -> None:
    made, x = network().eval(), images(4)
    plan, done = _plan(made, x, "block1")
    with pytest.raises(SutureError, match="multiple of 4 representations for site 'block1', got 6"):
        replay(made, plan, done.results["block1", 0].repeat(2, 1, 1, 1)[:6], done, set())


class Either(nn.Module):
    """Calls one of two modules first, by the mean of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high, self.last = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last((self.high if x.mean() > 0 else self.low)(x))


def test_a_forward_that_calls_other_modules_is_refused() -> None:
    made = seeded(Either).eval()
    sited = SitedNetwork(made, torch.ones(4, 3), ["last"], allow_bypass=True)
    with freeze(made), torch.no_grad():
        done = sited.run_full(torch.ones(4, 3))
        away = RecordedPass(-torch.ones(4, 3), None, done.results, 4)
        with pytest.raises(SutureError, match="a call of 'high' before site 'last'"):
            sited.tail(0, done.results["last", 0], away)
    with pytest.raises(SutureError, match="1 calls of module 'high' in each batch, got 0"):
        sited.run_full(-torch.ones(4, 3))


def test_a_module_under_two_names_is_a_site_under_the_first() -> None:
    made = seeded(Either).eval()
    made.again = made.high
    with pytest.raises(SutureError, match=r"'again' of the network is never called .*choose 'high'"):
        SitedNetwork(made, torch.ones(4, 3), ["again"])


class Scaled(nn.Module):
    """A block with a computed weight of its own, before the layer in it."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.inner = nn.Parameter(torch.randn(3)), nn.Linear(3, 3)
        parametrize.register_parametrization(self, "scale", nn.Softplus())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x * self.scale)
        return out


def test_a_replay_into_a_block_needs_the_weight_that_the_block_computes() -> None:
    made, x = seeded(lambda: nn.Sequential(Scaled(), nn.Tanh(), nn.Linear(3, 2))).eval(), torch.randn(4, 3)
    (info,) = SitedNetwork(made, x, ["0.inner"]).infos
    assert info.bypass == ()
    given = torch.randn(8, 3)
    torch.testing.assert_close(run_tail(made, x, "0.inner", given), made[2](made[1](given)))
