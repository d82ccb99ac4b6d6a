"""Reading ahead: the same as taking, decoded once, bounded, and no thread is left."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch
from torch import Tensor

from suture import SutureError
from suture.data.sources import prefetching as reading
from tests.support.pictures import made_of, pictures


@pytest.mark.parametrize("size", [6, None])
@pytest.mark.parametrize("batch", [1, 7, 32, 40, 1000])
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


def test_small_images_are_decoded_once() -> None:
    found = made_of(pictures(50))
    rows = torch.arange(50).flip(0)
    first = [raw for raw, _ in found.read(rows, 16)]
    assert found.store.read == [1] * 50
    again = [raw for raw, _ in found.read(rows, 16)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert found.fingerprint == made_of(pictures(50)).fingerprint
    part = found.subset(10)
    assert torch.equal(part.take(range(10))[0], found.take(part.rows)[0])
    assert found.store.read == [1] * 50


@pytest.mark.parametrize("reason", ["sizes", "bytes"])
def test_other_images_are_not_kept(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason == "bytes":
        monkeypatch.setattr(reading, "CACHE_BYTES", 50 * 6 * 6 * 3 - 1)
    found = made_of(pictures(50, size=None if reason == "sizes" else 6))
    for _ in range(2):
        list(found.read(torch.arange(50), 16))
    assert found.store.read == [2] * 50


def readers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("suture-read")]


def test_reading_ahead_is_bounded_and_threads_end() -> None:
    found = made_of(pictures(3000))
    batches = found.read(torch.arange(3000), 64)
    next(batches)
    assert readers()
    until = time.monotonic() + 10
    while sum(found.store.read) <= 64 and time.monotonic() < until:
        time.sleep(0.01)
    batches.close()
    assert not readers()
    # Beside the batch that was taken, two batches, or a chunk for each thread.
    assert 64 < sum(found.store.read) <= 64 + max(2 * 64, reading.DECODE_CHUNK * reading.count_workers())
    list(found.read(torch.arange(200), 64))
    assert not readers()


def test_threads_end_on_an_error() -> None:
    found = made_of(pictures(200))
    found.store.held[150] = b"no image"
    batches = found.read(torch.arange(200), 20)
    with pytest.raises(SutureError, match=r"1 of 200 cannot be used, the first: value 150 is no image"):
        list(batches)
    assert not readers()


def test_pinned_where_there_is_a_cuda_device(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[int] = []

    def pin(x: Tensor) -> Tensor:
        pinned.append(len(x))
        return x

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(Tensor, "pin_memory", pin)
    list(made_of(pictures(40)).read(torch.arange(40), 25))
    assert pinned == [25, 15]
