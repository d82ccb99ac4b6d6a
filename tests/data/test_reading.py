"""Reading in batches: the same as taking and indexing and decoded once."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from suture import SutureError
from suture.data.sources import examples
from tests.support.pictures import made_of, pictures


@pytest.mark.parametrize("size", [6, None])
@pytest.mark.parametrize("batch", [1, 7, 40, 1000])
def test_reading_is_taking_is_indexing(size: int | None, batch: int) -> None:
    made = pictures(70, size=size)
    rows = torch.from_numpy(np.random.default_rng(1).integers(0, 70, 90))
    found = made_of(made)
    at = 0
    for raw, labels in found.read(rows, batch):
        mine = rows[at:at + batch].tolist()
        at += len(mine)
        taken, same = made_of(made).take(mine)
        assert type(raw) is type(taken)
        assert isinstance(raw, list) == (len({made[r][0].shape for r in mine}) > 1)
        assert labels is not None
        assert torch.equal(labels, same)
        for k, r in enumerate(mine):
            assert torch.equal(raw[k], taken[k])
            assert torch.equal(raw[k], torch.from_numpy(made[r][0]).permute(2, 0, 1))
            assert found[r][1] == int(labels[k]) == made[r][1]
    assert at == 90


@pytest.mark.parametrize("size", [6, None])
def test_images_are_decoded_once_and_parts_share_them(size: int | None) -> None:
    found = made_of(pictures(50, size=size))
    rows = torch.arange(50).flip(0)
    first, again = ([raw for raw, _ in map(found.take, rows.split(16))] for _ in range(2))
    assert all(torch.equal(a, b) for one, two in zip(first, again, strict=True)
               for a, b in zip(one, two, strict=True))
    part = found.subset(10)
    assert all(torch.equal(a, b)
               for a, b in zip(part.take(range(10))[0], found.take(part.rows)[0], strict=True))
    assert found.store.read == [1] * 50
    copy = pickle.loads(pickle.dumps(found))
    assert torch.equal(copy[3][0], found[3][0])
    assert copy.store.read[3] == 2


def test_images_beyond_the_bound_are_decoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "CACHE_BYTES", 20 * 6 * 6 * 3 + 1)
    found = made_of(pictures(50))
    for _ in range(2):
        list(map(found.take, torch.arange(50).split(16)))
    assert found.store.read == [1] * 20 + [2] * 30
    assert not found.is_small


def test_a_bad_image_ends_the_pass() -> None:
    found = made_of(pictures(200))
    found.store.held[150] = b"no image"
    with pytest.raises(SutureError, match=r"1 of 200 cannot be used, the first: value 150 is no image"):
        list(map(found.take, torch.arange(200).split(20)))
