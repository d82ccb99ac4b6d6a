"""The search for sites passes about two times the examples that it is given, and finds what replays find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    ViTConfig,
    ViTForImageClassification,
)

from suture import find_sites, run_tail, zoo
from suture._base import count_examples
from suture.networks.sites.bypasses import BypassSearch
from tests.support.tiny import seeded


class Recurrent(nn.Module):
    """Three LSTMs, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.lstms = nn.ModuleList(nn.LSTM(8, 8, batch_first=True) for _ in range(3))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        for lstm in self.lstms:
            x = lstm(x)[0]
        out: Tensor = self.head(x[:, -1])
        return out


def make_ids(n: int) -> dict[str, Tensor]:
    ids = torch.randint(2, 50, (n, 7), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": (torch.arange(7) < 7 - torch.arange(n)[:, None] % 2).long()}


def make_inputs(*shape: int) -> Callable[[int], Tensor]:
    return lambda n: torch.rand(n, *shape, generator=torch.Generator().manual_seed(0))


SMALL: dict[str, Any] = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 3,
                         "num_attention_heads": 2, "intermediate_size": 16}
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Any]]] = {
    "ResNet": (lambda: zoo.build("resnet_digits"), make_inputs(1, 8, 8)),
    "ViT": (lambda: ViTForImageClassification(ViTConfig(
        image_size=8, patch_size=4, **{k: v for k, v in SMALL.items() if k != "vocab_size"})),
        make_inputs(3, 8, 8)),
    "BERT": (lambda: BertForSequenceClassification(BertConfig(**SMALL)), make_ids),
    "GPT-2": (lambda: GPT2LMHeadModel(GPT2Config(n_layer=3, n_embd=16, n_head=2, vocab_size=50)), make_ids),
    "LSTM": (Recurrent, make_inputs(5, 8))}
FEWEST = 6
"""Rows for one example or two: a batch of another size and order needs more than there are."""


@pytest.mark.parametrize("n", [1, 2, 4, 8, 16, 64])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_search_passes_at_most_two_times_the_rows_given(name: str, n: int) -> None:
    make, inputs = NETWORKS[name]
    network, rows = seeded(make), []

    class Counting(type(network)):  # type: ignore[misc]
        def forward(self, *args: Any, **named: Any) -> Any:
            rows.append(count_examples(args or named))
            return super().forward(*args, **named)

    Counting.__name__ = type(network).__name__
    network.__class__ = Counting
    assert len(find_sites(network, inputs(n))) >= 3
    assert sum(rows) <= max(FEWEST, 2 * n)


@pytest.mark.parametrize("name", NETWORKS)
def test_one_pass_finds_what_the_replay_of_each_tail_finds(name: str,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    make, inputs = NETWORKS[name]
    network, x = seeded(make), inputs(4)
    found = find_sites(network, x)
    monkeypatch.setattr(BypassSearch, "try_chain", lambda self, sites: None)
    assert find_sites(network, x) == found
    assert [i.has_gradient for i in found] == [True] * len(found)


class Skipping(nn.Module):
    """Blocks of which something goes around the second one, in one of several ways."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.stem = how, nn.Linear(4, 4)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(3))
        self.head, self.states = nn.Linear(4, 3), []

    def forward(self, x: Tensor) -> Tensor:
        start = self.stem(x)
        a = self.blocks[0](start)
        b = self.blocks[1](a)
        c = self.blocks[2](b)
        out: Tensor = self.head(c + {"input": x, "stem": start, "block": a, "none": 0}[self.how])
        return out


@pytest.mark.parametrize(("how", "around"), [
    ("input", [("inputs",)] * 3), ("stem", [("stem",)] * 3), ("none", [()] * 3),
    ("block", [(), ("blocks.0",), ("blocks.0",)])])
def test_what_goes_around_a_site_of_a_chain_is_named(how: str, around: list[tuple[str, ...]]) -> None:
    network = seeded(lambda: Skipping(how))
    x = make_inputs(4)(6)
    infos = find_sites(network, x, ["blocks.*"])
    assert [i.bypass for i in infos] == around
    torch.testing.assert_close(run_tail(network, x, "blocks.0", torch.zeros(6, 4), allow_bypass=True)[0],
                               network.head(network.blocks[2](network.blocks[1](torch.zeros(4)))
                                            + {"input": x[0], "stem": network.stem(x[0]), "block": 0,
                                               "none": 0}[how]))


class Late(Skipping):
    """Token ids that are embedded again between the first and the second block."""

    def __init__(self) -> None:
        super().__init__("")
        self.words, self.again = nn.Embedding(9, 4), nn.Embedding(9, 4)

    def forward(self, ids: Tensor) -> Tensor:
        a = self.blocks[0](self.words(ids)[:, 0])
        late = self.again(ids)[:, 0]
        out: Tensor = self.head(self.blocks[2](self.blocks[1](a)) + late)
        return out


def test_token_ids_that_enter_again_go_around_the_sites_after() -> None:
    infos = find_sites(seeded(Late), torch.arange(6)[:, None], ["blocks.*"])
    assert [i.bypass for i in infos] == [(), ("again",), ("again",)]


class Replacing(Skipping):
    """The blocks leave something in a list of the network, which stays as long."""

    def forward(self, x: Tensor) -> Tensor:
        self.states[:] = [x.shape]
        return super().forward(x)


class Counted(Skipping):
    """The blocks leave something in the network, so that a tail alone does something else."""

    def forward(self, x: Tensor) -> Tensor:
        self.passed = getattr(self, "passed", 0) + 1
        return super().forward(x)


def test_a_network_that_changes_itself_is_probed_tail_by_tail(monkeypatch: pytest.MonkeyPatch) -> None:
    probed: list[object] = []
    original = BypassSearch._probe
    monkeypatch.setattr(BypassSearch, "_probe",
                        lambda self, *args: probed.append(args) or original(self, *args))
    x = make_inputs(4)(6)
    assert len(find_sites(seeded(lambda: Skipping("none")), x, ["blocks.*"])) == 3
    assert not probed
    for kind in (Counted, Replacing):
        probed.clear()
        assert len(find_sites(seeded(lambda kind=kind: kind("none")), x, ["blocks.*"])) == 3
        assert len(probed) == 3
