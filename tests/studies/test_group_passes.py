"""Passes that pairs share: the numbers of a pass of each pair's own, and one forward pass of each network."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import suture
from suture import Study, SutureError
from suture.networks import SitedNetwork
from suture.studies.network_study.options import parse_size
from suture.studies.running.group_passes import order_by_blocks
from suture.studies.running.tasks import PairTask
from tests.support import tiny

HOW: dict[str, Any] = {"methods": [], "indices": ["cka"], "device": "cpu", "batch_size": 9}


class Wide(nn.Module):
    """Another architecture, with other sizes of maps."""

    def __init__(self) -> None:
        super().__init__()
        self.block1 = nn.Conv2d(2, 3, 3, stride=2)
        self.block2 = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 5, 2))
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block2(self.block1(x)).mean((2, 3)))


class Words(nn.Module):
    """Tokens with an attention mask."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.block1 = nn.Embedding(9, 4), nn.Sequential(nn.Linear(4, 4), nn.Tanh())
        self.block2 = nn.Linear(4, 6)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.block2(self.block1(self.embed(input_ids)))


def make_wide() -> nn.Module:
    return tiny.seeded(Wide, 3)


def texts() -> list[dict[str, Tensor]]:
    g = torch.Generator().manual_seed(0)
    mask = torch.ones(8, 5, dtype=torch.int64)
    mask[::3, 3:] = 0
    return [{"input_ids": torch.randint(0, 9, (8, 5), generator=g), "attention_mask": mask} for _ in range(2)]


def run(given: Any = None, folder: Path | None = None, data: Any = None, **more: Any) -> Study:
    own = {"a": tiny.seeded(tiny.Tiny, 0), "w": make_wide} if given is None else given
    return suture.study(own, tiny.data()[0] if data is None else data, folder=folder, sites=["block*"],
                        **{**HOW, **more})


@pytest.fixture
def fronts(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How often the front of each prepared network ran."""
    seen: Counter[int] = Counter()
    whole = SitedNetwork.front

    def count(self: SitedNetwork, inputs: Any) -> list[Tensor]:
        seen[id(self.network)] += 1
        return whole(self, inputs)

    monkeypatch.setattr(SitedNetwork, "front", count)
    return seen


def assert_same(made: Study, wanted: Study) -> None:
    assert made.pairs == wanted.pairs
    for pair in wanted.pairs:
        one, other = made.comparison(*pair), wanted.comparison(*pair)
        assert one.table.equals(other.table)
        assert one.meta["made_from"] == other.meta["made_from"]
        assert one.meta["notes"] == other.meta["notes"]
        assert one.arrays.keys() == other.arrays.keys()
        for name, array in one.arrays.items():
            np.testing.assert_array_equal(array, other.arrays[name])


@pytest.mark.parametrize("more", [
    {"methods": ["dm"], "indices": ["cka", "opd@pool"], "jackknife": 5, "ood": None,
     "pairs": [("a", "w"), ("w", "w")]},
    pytest.param({"methods": ["dm"], "ood": suture.OOD(("mahalanobis",))}, marks=pytest.mark.slow),
    {"indices": ["cka", "cka@within", "cka@flatten", "mutual_knn"], "sample": 8, "nulls": 5, "examples": 14},
    {"given": {k: tiny.seeded(Words, n) for n, k in enumerate("ab")}, "data": texts(), "token_rate": 0.7}])
def test_numbers_are_those_of_a_pass_of_each_pair(more: dict[str, Any], tmp_path: Path) -> None:
    assert_same(run(**more, folder=tmp_path), run(**more, pass_memory="0"))


def test_each_network_runs_once_on_a_batch(fronts: Counter[int]) -> None:
    given = {name: tiny.seeded(tiny.Tiny, k) for k, name in enumerate("abc")}
    made = run(given, data=tiny.images()[:14])
    assert len(made.pairs) == 6
    assert [*fronts.values()] == [2, 2, 2]


def test_little_memory_makes_several_passes(fronts: Counter[int]) -> None:
    given = {name: tiny.seeded(tiny.Tiny, k) for k, name in enumerate("abc")}
    data = tiny.images()[:6]
    made, whole = run(given, data=data, pass_memory="1kB"), run(given, data=data)
    assert_same(made, whole)
    assert sum(fronts.values()) > 6


def test_networks_that_fail_leave_the_others_their_pass(fronts: Counter[int]) -> None:
    class Late(tiny.Tiny):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x if float(x.sum()) else x[:, :1])

    data = tiny.images()[:12]
    data[10] = 0
    given = {"a": tiny.seeded(tiny.Tiny, 0), "b": tiny.seeded(tiny.Tiny, 1), "late": tiny.seeded(Late, 2)}
    made = run(given, data=data, batch_size=1)
    assert set(made.pairs) == {("a", "a"), ("a", "b"), ("b", "b")}
    assert all("batch 10" in reason for reason in made.failures.values())
    assert sorted(fronts.values())[-2:] <= [25, 25]


@pytest.mark.parametrize("loader", [True, False])
def test_data_in_another_order_each_time_have_no_shared_pass(loader: bool, fronts: Counter[int]) -> None:
    x, y = tiny.images()[:6], tiny.labels()[:6]
    made = run(data=DataLoader(TensorDataset(x, y), batch_size=3, shuffle=True) if loader
               else suture.Prepared(x, lambda raw: raw))
    assert len(made.pairs) == 3
    assert set(fronts.values()) == {4 if loader else 2}  # two pairs of each network, two batches or one


def test_an_interrupted_pass_goes_on(tmp_path: Path, fronts: Counter[int]) -> None:

    def send(stage: str, done: int, total: int | None) -> None:
        if (stage, done) == ("moments", 2):
            os.kill(os.getpid(), signal.SIGTERM)

    how: dict[str, Any] = {"data": tiny.images()[:12], "batch_size": 3}
    with pytest.raises(KeyboardInterrupt):
        run(folder=tmp_path, progress=send, **how)
    assert len(list(tmp_path.glob("pairs/*/checkpoint-moments.safetensors"))) == 3
    fronts.clear()
    made = run(folder=tmp_path, **how)
    assert sorted(fronts.values()) == [1, 1]
    assert_same(made, run(pass_memory="0", **how))


def test_blocks_of_pairs_have_few_networks() -> None:
    names = [str(k) for k in range(8)]
    ordered = order_by_blocks([PairTask((a, b), "") for a in names for b in names], names)
    for k in range(0, 64, 16):
        assert len({name for task in ordered[k:k + 16] for name in task.pair}) <= 8
    assert {task.pair for task in ordered[:4]} == {("0", "0"), ("0", "1"), ("1", "0"), ("1", "1")}


@pytest.mark.parametrize(("text", "size"), [("2GB", 2 * 10**9), ("0", 0), ("1.5 kb", 1500), ("7b", 7)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["much", "-1GB", "GB", "1 PB", ""])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(SutureError, match="memory"):
        parse_size(text)
