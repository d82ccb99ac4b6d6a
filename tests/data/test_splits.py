"""Splits by name, draws that are balanced, nested and of their seed alone, and the fifth that is cut off."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from suture import SutureError
from suture.data.sources import Examples, open_source
from suture.data.sources.splits import draw_balanced_order, has_class_runs, split_off_fifth
from suture.data.sources.stores import MemoryStore
from tests.support.pictures import as_folder, made_of, pictures


@pytest.mark.parametrize(("spec", "split", "message"), [
    ("#train/dev", "test", "no split 'dev'; splits: train, val"),
    ("#train/train", "train", "expected two splits of .*, got 'train/train'"),
    ("", "dev", "no split 'dev'; splits: train, val"),
    ("#all", "train", "no split 'all'; splits: train, val"),
])
def test_splits_that_are_not_there(spec: str, split: str, message: str, tmp_path: Path) -> None:
    for name in ("train", "val"):
        as_folder(tmp_path, pictures(6), name)
    with pytest.raises(SutureError, match=message):
        open_source(f"{tmp_path}{spec}", split=split)


@pytest.mark.parametrize("seed", [0, 5])
def test_subsets_are_balanced_and_nested(seed: int) -> None:
    made = [(p, min(2, k // 3)) for k, (p, _) in enumerate(pictures(30))]  # 3, 3 and 24 of the classes
    found = made_of(made)
    before: list[int] = []
    for n in range(1, 31):
        part = found.subset(n, seed)
        assert part.rows is not None
        assert part.rows.tolist()[:n - 1] == before
        before = part.rows.tolist()
        counts = np.bincount(part.labels.numpy(), minlength=3)
        assert counts.sum() == n
        full = [c for c, most in zip(counts, (3, 3, 24), strict=True) if c < most]
        assert not full or max(full) - min(counts) <= 1 or min(counts) == 3
        assert [found[r][1] for r in before] == part.labels.tolist()
    assert found.subset(5, seed).name == f"made/5@{seed}"
    assert sorted(before) == list(range(30))


def test_subsets_of_subsets() -> None:
    found = made_of(pictures(30))
    once = found.subset(20, 1)
    twice = once.subset(9, 2)
    order = draw_balanced_order(once.labels.numpy(), 2)[:9]
    assert twice.rows.tolist() == [once.rows.tolist()[k] for k in order]
    assert all(torch.equal(twice[k][0], found[r][0]) for k, r in enumerate(twice.rows.tolist()))
    assert twice.labels.tolist() == [found[r][1] for r in twice.rows.tolist()]


def test_draws_without_labels() -> None:
    found = Examples(MemoryStore(torch.arange(40.)[:, None], "x"), "arrays", "x")
    one, two = (found.subset(40, s) for s in (0, 1))
    assert sorted(one.rows.tolist()) == list(range(40)) == sorted(two.rows.tolist())
    assert one.rows.tolist() != two.rows.tolist()
    assert torch.equal(found.subset(7).rows, one.rows[:7])
    assert found[3] == (torch.tensor([3.]), None)


@pytest.mark.parametrize("n", [0, -1, 13])
def test_subsets_that_are_none(n: int) -> None:
    with pytest.raises(SutureError,
                       match=rf"expected a number of examples from 1 to 12, all that made has, got {n}"):
        made_of(pictures()).subset(n)


@pytest.mark.parametrize(("n", "classes", "size"), [
    (100, 3, 20), (10, 5, 5), (10, 8, 5), (2, 1, 1), (3, 1, 1), (12, 0, 2)])
def test_a_fifth_is_for_testing(n: int, classes: int, size: int) -> None:
    labels = torch.arange(n) % classes if classes else None
    train, test = split_off_fifth(n, labels, 0, "x")
    assert len(test) == size
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(n))
    assert train.tolist() == sorted(train.tolist())
    if labels is not None:
        counts = labels[test].bincount(minlength=classes)
        assert int(counts.max() - counts.min()) <= 1
    assert n < 10 or split_off_fifth(n, labels, 1, "x")[1].tolist() != test.tolist()


def test_balanced_order_is_as_it_always_was() -> None:
    """Written down once: draws of published results depend on it."""
    assert draw_balanced_order(np.array([0, 0, 0, 1, 1, 2]), 0).tolist() == [5, 2, 3, 1, 4, 0]


@pytest.mark.parametrize(("labels", "runs"), [
    ([0] * 50 + [1] * 50, True), ([0, 1] * 50, False), ([0] * 90 + [1] * 10, True), ([0] * 50, False),
    (np.random.default_rng(0).integers(0, 10, 500).tolist(), False), (np.arange(100).tolist(), False),
    ((np.random.default_rng(0).random(400) < 0.05).astype(int).tolist(), False), ([2], False)])
def test_classes_that_come_in_runs(labels: list[int], runs: bool) -> None:
    assert has_class_runs(torch.tensor(labels)) == runs
