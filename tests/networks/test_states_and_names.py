"""Sites with any name, sites in states of recurrent networks, and what finding sites costs and says."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import suture
from suture import SutureError
from suture.cli.console import split_names
from suture.networks.sites import Site, SitedNetwork, SiteInfo, capture, find_sites, run_tail
from tests.support.tiny import seeded

SIGNS = r"ab1:#@*?[],\ -é0"
X = torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(0))


class Blocks(nn.Module):
    """Blocks with the given names."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict({n: nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for n in names})
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks.values():
            x = block(x)
        out: Tensor = self.head(x)
        return out


def _draw_names(count: int) -> list[str]:
    draw = random.Random(0)
    return ["".join(draw.choices(SIGNS, k=draw.randint(1, 6))) for _ in range(count)]


def test_every_name_of_a_site_is_read_as_this_site_also_in_a_list_of_the_command_line() -> None:
    sites = [Site(name, call, slot, taken) for name in _draw_names(400) for call, slot, taken in (
        (0, None, ""), (2, 1, "tokens:1,14x14"), (0, name, ""), (0, "1", "map"), (0, -1, ""), (1, "1.0", ""))]
    for site in sites:
        assert Site.parse(str(site)) == site.point
        assert Site.parse(site.written) == site
    for k in range(len(sites) - 2):
        three = [s.written for s in sites[k:k + 3]]
        assert split_names(", ".join(three)) == three


def test_names_that_a_search_gives_find_the_same_sites_and_so_do_those_of_pytorch() -> None:
    names = ["a:b", "x@y", "c#1", "d*", "e?f", "[g]", "h,i", " j ", "k\\l", "é 1", "0"]
    network, x = seeded(lambda: Blocks(*names)), torch.randn(6, 4)
    found = [str(i.site) for i in find_sites(network, x)]
    assert [Site.parse(n).path for n in found] == [f"blocks.{n}" for n in names]
    assert [*capture(network, x, found)] == found
    for name, plain in zip(found, names, strict=True):
        assert [*capture(network, x, f"blocks.{plain}")] == [name]
        assert [*capture(network, x, f"blocks.{plain}@vector")] == [name]
    assert [*capture(network, x, r"blocks.*")] == found
    assert [*capture(network, x, r"blocks.d\*")] == [r"blocks.d\*"]
    result = suture.compare(network, None, [(x, torch.tensor([0, 1, 2, 0, 1, 2]))], sites=found, methods=[],
                            ood=None, indices=["cka"])
    assert [*result.matrix("cka").index] == found


class States(nn.Module):
    """A recurrent network whose head reads what `read` takes from the output of its LSTM or GRU."""

    def __init__(self, kind: type[nn.RNNBase], read: Any, width: int, **how: Any) -> None:
        super().__init__()
        self.lstm = kind(4, 6, num_layers=2, **how)
        self.head, self.read = nn.Linear(width, 3), read

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.lstm.batch_first else x.transpose(0, 1)
        out: Tensor = self.head(self.read(self.lstm(x)))
        return out


def _join(h: Tensor) -> Tensor:
    return h.transpose(0, 1).flatten(1)


@pytest.mark.parametrize(("site", "kind", "read", "width", "how", "shape", "pick"), [
    ("lstm:1", nn.LSTM, lambda o: _join(o[1][0]), 12, {}, "tokens 2x6", lambda o: o[1][0].transpose(0, 1)),
    ("lstm:1.1", nn.LSTM, lambda o: _join(o[1][1]), 12, {"proj_size": 3, "batch_first": True}, "tokens 2x6",
     lambda o: o[1][1].transpose(0, 1)),
    ("lstm:1.0.-1", nn.LSTM, lambda o: o[1][0][-1], 3, {"proj_size": 3}, "vector 3", lambda o: o[1][0][-1]),
    ("lstm:1", nn.GRU, lambda o: _join(o[1]), 24, {"bidirectional": True}, "tokens 4x6",
     lambda o: o[1].transpose(0, 1)),
    ("lstm:1.-1", nn.RNN, lambda o: o[1][-1], 6, {"batch_first": True}, "vector 6", lambda o: o[1][-1]),
    ("lstm", nn.GRU, lambda o: o[0][-1], 6, {}, "tokens 5x6", lambda o: o[0].transpose(0, 1)),
])
def test_states_of_recurrent_networks_are_sites_with_the_examples_first(
        site: str, kind: Any, read: Any, width: int, how: Any, shape: str, pick: Any) -> None:
    network = seeded(lambda: States(kind, read, width, **how)).eval()
    (info,) = find_sites(network, X, [site])
    assert (str(info.shape), info.bypass) == (shape, ())
    with torch.no_grad():
        given = X if network.lstm.batch_first else X.transpose(0, 1)
        wanted = pick(network.lstm(given))
        torch.testing.assert_close(capture(network, X, [site])[site], wanted)
        # Two copies in another order: the tail reads what it is given, example by example.
        twice = torch.cat([wanted, wanted.flip(0)])
        torch.testing.assert_close(run_tail(network, X, site, twice),
                                   torch.cat([network(X), network(X.flip(0))]))


def test_what_goes_around_one_layer_of_a_state_or_one_of_several_outputs_is_named() -> None:
    both = seeded(lambda: States(nn.LSTM, lambda o: _join(o[1][0]), 12))
    assert find_sites(both, X, ["lstm:1.0.-1"])[0].bypass == ("another output of lstm",)
    out_and_state = seeded(lambda: States(nn.GRU, lambda o: o[0][-1] + o[1][0], 6))
    assert find_sites(out_and_state, X, ["lstm"])[0].bypass == ("another output of lstm",)


def test_an_output_that_is_not_read_points_to_the_state() -> None:
    network = seeded(lambda: States(nn.LSTM, lambda o: o[1][0][-1], 6))
    with pytest.raises(SutureError, match="does not depend on site 'lstm'; choose its state, 'lstm:1'"):
        find_sites(network, X, ["lstm"])


class Bypassed(nn.Module):
    """Two LSTMs: a layer goes around the first, and the second is a site by its state alone."""

    def __init__(self) -> None:
        super().__init__()
        self.lstms = nn.ModuleList([nn.LSTM(4, 6, batch_first=True), nn.LSTM(6, 6, batch_first=True)])
        self.around, self.head = nn.Conv1d(5, 5, 1), nn.Bilinear(6, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.lstms[0](x)[0] + nn.functional.pad(self.around(x), (0, 2))
        state = self.lstms[1](hidden)[1][0][-1]
        out: Tensor = self.head(state, state)
        return out


def test_no_sites_are_explained_by_what_is_no_site() -> None:
    with pytest.raises(SutureError, match=r"'lstms\.0' .* does not cut the network: inputs goes around it"):
        find_sites(seeded(Bypassed), X)


def test_a_comparison_runs_through_a_state() -> None:
    network = seeded(lambda: States(nn.LSTM, lambda o: _join(o[1][0]), 12))
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    result = suture.compare(network, None, [(X, labels)], sites=["lstm:1"], methods=["dm"], ood=None,
                            indices=["cka"])
    assert float(result.matrix("cka").iloc[0, 0]) == pytest.approx(1)
    assert float(result.matrix("dm.relative_accuracy").iloc[0, 0]) == pytest.approx(1)


@pytest.mark.parametrize("inner", [nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True))])
def test_finding_sites_costs_two_passes_over_a_batch(inner: nn.Module) -> None:
    network, x, seen = seeded(lambda: Blocks(*"abcdefgh")), torch.randn(32, 4), []
    for block in network.blocks.values():
        block[0] = inner
    network.register_forward_pre_hook(lambda m, args: seen.append(len(args[0])))
    assert len(find_sites(network, x)) == 8
    assert sum(seen) <= 2 * len(x)
    seen.clear()
    SitedNetwork(network, x, ["blocks.a"])
    assert sum(seen) <= 24


class Around(nn.Module):
    """Blocks around which something goes."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(3)])
        self.how = how

    def forward(self, x: Tensor) -> Any:
        h = x
        for block in self.blocks:
            h = (block(h) if self.how != "detached" else block(h).detach()) + 0
        return x - h if self.how == "residual" else x if self.how == "unused" else h


@pytest.mark.parametrize(("how", "reason"), [
    ("residual", "site 'blocks.2' of the network does not cut the network: inputs goes around it; give"),
    ("unused", "the output of the network does not depend on site 'blocks.2'; choose another"),
])
def test_a_search_without_sites_says_what_was_in_the_way(how: str, reason: str) -> None:
    with pytest.raises(SutureError, match=reason):
        find_sites_that_cut(seeded(lambda: Around(how)))


def test_sites_without_gradients_are_found() -> None:
    found = find_sites_that_cut(seeded(lambda: Around("detached")))
    assert [(str(i.site), i.bypass, i.has_gradient) for i in found] == [
        (f"blocks.{k}", (), False) for k in range(3)]


def find_sites_that_cut(network: nn.Module) -> tuple[SiteInfo, ...]:
    return SitedNetwork(network, torch.randn(6, 4)).infos
