"""Shards: merged in any order they are the one run, and what does not belong together is refused."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import suture
from suture import Comparison, SutureError
from suture.compare import Shard
from tests.support import tiny

N = 8
HOW: dict[str, Any] = {"device": "cpu", "sites": ["block*"], "methods": ["dm"], "ood": None, "batch_size": 2}
ROUNDING = {"cka@pool": 1e-6}
"""Indices of pooled examples are summed in float32 over as many as wait, which differ between shards."""


def data(n: int = N, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.rand(n, 2, 8, 8, generator=g), torch.arange(n) % 3


def run(own: bool = False, given: Any = None, **more: Any) -> Any:
    a, b = (tiny.seeded(tiny.Tiny, k) for k in range(2))
    return suture.compare(a, None if own else b, data() if given is None else given, **{**HOW, **more})


def run_moments(**how: Any) -> Comparison:
    made: dict[str, Comparison] = {}
    run(**how, on_stage=lambda c: made.setdefault(c.meta["stages"][-1], c))
    return made["moments"]


def assert_equal(made: Comparison, wanted: Comparison) -> None:
    assert made.meta["key"] == wanted.meta["key"]
    new = {"created", "computed", "command"}
    assert {k: v for k, v in made.meta.items() if k not in new} == {
        k: v for k, v in wanted.meta.items() if k not in new}
    assert made.table.drop(columns=["value", "low", "high"]).equals(
        wanted.table.drop(columns=["value", "low", "high"]))
    for measure, rows in wanted.table.groupby("measure"):
        for column in ("value", "low", "high"):
            np.testing.assert_allclose(made.table.loc[rows.index, column], rows[column], rtol=0,
                                       atol=ROUNDING.get(measure, 1e-10), equal_nan=True)
    assert made.arrays.keys() == wanted.arrays.keys()
    for name, array in wanted.arrays.items():
        np.testing.assert_allclose(made.arrays[name], array, rtol=1e-6 if "pool" in name else 1e-10,
                                   atol=1e-12)


@pytest.mark.parametrize(("counts", "more"), [
    ((1, 2, 5), {"indices": ["cka"], "examples": 5}),
    ([3], {"indices": ["cka", "opd", "cka@pool"], "jackknife": 5, "own": True}),
    ([2], {"indices": "all", "sample": 6}),
    ([2], {"indices": ["cka", "cka@within", "mutual_knn"], "nulls": 5, "sample": 6,
           "groups": np.arange(N) // 2}),
    ([2], {"indices": ["cka"], "family": "ridge:cv", "precision": "float64"})])
def test_merged_shards_are_the_one_run(counts: Any, more: dict[str, Any]) -> None:
    wanted = run_moments(**more)
    for count in counts:
        parts = [run(**more, shard=(k + 1, count)) for k in range(count)]
        assert sum(p.place.stop - p.place.start for p in parts) == parts[0].place.total
        random.Random(count).shuffle(parts)
        assert_equal(suture.merge(parts), wanted)


def test_texts_and_loaders_are_cut_too(tmp_path: Path) -> None:
    x, y = data()
    batches = [(x[:3], y[:3]), (x[3:4], y[3:4]), (x[4:], y[4:])]
    wanted = run_moments(given=batches, indices=["cka"])
    files = [run(given=batches, indices=["cka"], shard=f"{k}/2").save(tmp_path / f"{k}.safetensors")
             for k in (1, 2)]
    assert_equal(suture.merge(files), wanted)
    assert repr(Shard.load(files[0])) == "Shard(1/2: examples 1 to 3 of 8)"


def test_a_merged_result_is_gone_on_from(tmp_path: Path) -> None:
    how: dict[str, Any] = {"indices": ["cka"]}
    suture.merge([run(**how, shard=(k, 2)) for k in (2, 1)], save_to=tmp_path / "made")
    made, wanted = run(**how, save_to=tmp_path / "made"), run(**how)
    assert made.meta["stages"] == ["moments", "dm"]
    np.testing.assert_allclose(made.table["value"], wanted.table["value"], rtol=1e-6, equal_nan=True)


@pytest.mark.parametrize("shard", ["9/8", "0/8", "3", "x", "a/b", (0, 3), (4, 3), "-1/3", "1/9"])
def test_shards_that_do_not_exist(shard: Any) -> None:
    with pytest.raises(SutureError, match="shard"):
        run(shard=shard, indices=["cka"])


@pytest.mark.parametrize(("more", "named"), [
    ({"indices": ["cka@flatten"]}, "cka@flatten"),
    ({"indices": ["cka@paper"]}, "cka@paper"),
    ({"given": DataLoader(TensorDataset(*data()), batch_size=2, shuffle=True)}, "order"),
    ({"save_to": "folder"}, "folder")])
def test_what_has_no_shards(more: dict[str, Any], named: str) -> None:
    with pytest.raises(SutureError, match=named):
        run(**{"indices": ["cka"], **more}, shard=(1, 2))


@pytest.fixture(scope="module")
def halves() -> list[Shard]:
    return [run(indices=["cka"], shard=(k, 2)) for k in (1, 2)]


@pytest.mark.parametrize(("more", "named"), [
    ({"given": data(seed=1)}, "data"), ({"given": data(7)}, "7"), ({"indices": ["opd"]}, "opd"),
    ({"own": True}, "target"), ({"shard": (2, 3)}, "3"), ({"precision": "float64"}, "precision"),
    ({"shard": (1, 2)}, "twice|shard 1")])
def test_shards_that_do_not_belong_together(more: dict[str, Any], named: str, halves: list[Shard]) -> None:
    other = run(**{"indices": ["cka"], "shard": (2, 2), **more})
    with pytest.raises(SutureError, match=named):
        suture.merge([halves[0], other])


def test_a_missing_shard_a_shard_twice_and_a_damaged_file(tmp_path: Path, halves: list[Shard]) -> None:
    with pytest.raises(SutureError, match="2"):
        suture.merge(halves[:1])
    with pytest.raises(SutureError, match="once"):
        suture.merge([halves[0], halves[0]])
    with pytest.raises(SutureError, match="none"):
        suture.merge([])
    path = halves[0].save(tmp_path / "one.safetensors")
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(SutureError, match="damaged"):
        suture.merge([path, halves[1]])
    with pytest.raises(SutureError, match="safetensors"):
        halves[0].save(tmp_path / "one.pt")
