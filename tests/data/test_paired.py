"""Two loaders read in step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from suture import Paired, SutureError
from suture.data.batches import Batches

X, Y = torch.arange(20.0).view(10, 2), torch.arange(10)


def test_pairs_are_read_in_step_and_again() -> None:
    paired = Batches(Paired(DataLoader(TensorDataset(X, Y), batch_size=4), (X + 100, Y)))
    with pytest.raises(SutureError, match="got 4 and 10 examples in batch 0"):
        list(paired)
    paired = Batches(Paired(DataLoader(TensorDataset(X, Y), batch_size=4),
                            DataLoader(TensorDataset(X + 100, Y), batch_size=4)))
    for _ in range(2):
        found = list(paired)
        assert [b.size for b in found] == [4, 4, 2]
        assert all(torch.equal(b.source + 100, b.target) for b in found)
        assert torch.equal(torch.cat([b.labels for b in found]), Y)


def test_a_shuffled_loader_cannot_be_paired() -> None:
    def loader(seed: int, shuffle: bool) -> DataLoader[Any]:
        return DataLoader(TensorDataset(X, Y), batch_size=4, shuffle=shuffle,
                          generator=torch.Generator().manual_seed(seed))

    with pytest.raises(SutureError, match=r"labels of the two loaders differ in batch 0.*shuffle=False"):
        list(Paired(loader(0, False), loader(0, True)))
    with pytest.raises(SutureError, match="do not correspond"):
        list(Paired(loader(1, True), loader(2, True)))


@pytest.mark.parametrize("short", ["source", "target"])
def test_one_that_ends_early_is_named(short: str) -> None:
    sides = {"source": [(X, Y)] * 2, "target": [(X, Y)] * 2, short: [(X, Y)]}
    with pytest.raises(SutureError, match=f"the {short} loader ended after 1 batches"):
        list(Paired(**sides))


@pytest.mark.parametrize("side", ["source", "target"])
def test_one_side_may_lack_labels(side: str) -> None:
    sides = {"source": [(X, Y)], "target": [(X, Y)], side: [X]}
    assert torch.equal(next(iter(Paired(**sides))).labels, Y)
