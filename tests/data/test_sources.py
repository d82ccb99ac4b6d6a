"""Raw examples: the same from every kind of storage, read in batches, copied and fingerprinted."""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from suture import SutureError
from suture.data.batches import Batches
from suture.data.sources import examples, open_source
from tests.support.pictures import NAMES, STORAGES, Pictures, in_folder, in_shards, made_of, pictures


def slow_digest(made: Pictures, free: bool = False) -> str:
    """What the docstring of `fingerprint` says, image by image."""
    found = []
    for pixels, label in made:
        x = torch.from_numpy(pixels).permute(2, 0, 1)
        body = f"torch.uint8 {tuple(x.shape)} ".encode() + bytes(x.flatten().tolist())
        found.append(hashlib.sha256(f"{label} {len(body)} ".encode() + body).digest())
    return hashlib.sha256(b"".join(sorted(found) if free else found)).hexdigest()[:16]


@pytest.mark.parametrize("storage", STORAGES)
def test_the_same_images_from_every_storage(storage: str, tmp_path: Path) -> None:
    made = pictures()
    n = len(made) if storage == "stream" else None
    found = open_source(STORAGES[storage](tmp_path / "set", made), n=n)
    assert (found.kind, len(found), found.classes, found.channels) == ("images", 12, 3, 3)
    assert found.content == slow_digest(made, free=True)
    if storage == "stream":
        return
    assert found.fingerprint == slow_digest(made)
    assert found.class_names == (None if storage == "npz" else NAMES)
    raw, labels = found.take(torch.arange(12))
    assert labels is not None
    assert labels.dtype == torch.int64
    assert raw.dtype == torch.uint8
    for k, (pixels, label) in enumerate(made):
        assert torch.equal(raw[k], torch.from_numpy(pixels).permute(2, 0, 1))
        assert int(labels[k]) == label


def test_parquet_agrees_with_pandas_and_datasets(tmp_path: Path) -> None:
    import datasets

    root = in_shards(tmp_path, pictures(13))
    found = open_source(f"{root}#train", split="train", n=None)
    files = sorted(str(f) for f in (root / "data").iterdir())
    frame = pd.concat([pd.read_parquet(f) for f in files], ignore_index=True)
    theirs = datasets.load_dataset("parquet", data_files=files, split="train",
                                   cache_dir=str(tmp_path / "cache"))
    rows = found.rows
    assert [found.store.describe_row(r) for r in (4, 7)] == [
        "train-00000-of-00002.parquet, row 4", "train-00001-of-00002.parquet, row 2"]
    assert len(rows) == 10  # a fifth of 13 is cut off, one of each class
    for k, row in enumerate(rows.tolist()):
        image, label = found[k]
        slow = np.asarray(Image.open(io.BytesIO(frame["img"][row]["bytes"])))
        assert np.array_equal(image.permute(1, 2, 0).numpy(), slow)
        assert np.array_equal(slow, np.asarray(theirs[row]["img"]))
        assert label == frame["label"][row] == theirs[row]["label"]


def test_fingerprints_see_contents_labels_and_order(tmp_path: Path) -> None:
    made = pictures()
    plain = made_of(made)
    turned = made_of(made[::-1])
    assert plain.content == turned.content
    assert plain.fingerprint != turned.fingerprint
    pixel = [(p.copy(), y) for p, y in made]
    pixel[3][0][0, 0, 0] ^= 1
    label = [(p, (y + 1) % 3 if k == 3 else y) for k, (p, y) in enumerate(made)]
    shape = [(p.reshape(4, 9, 3) if k == 3 else p, y) for k, (p, y) in enumerate(made)]
    for other in (pixel, label, shape, made[:-1], [*made, made[0]]):
        changed = made_of(other)
        assert changed.fingerprint != plain.fingerprint
        assert changed.content != plain.content
    assert plain.part(torch.arange(12), "copy").fingerprint == plain.fingerprint


def test_a_copy_in_another_process_reads_for_itself(tmp_path: Path) -> None:
    made = pictures()
    for storage in ("folder", "shards", "npz"):
        found = open_source(STORAGES[storage](tmp_path / storage, made))
        before = found.fingerprint
        copy = pickle.loads(pickle.dumps(found))
        assert (copy.fingerprint, copy.name, len(copy)) == (before, found.name, 12)
    loader = DataLoader(found, batch_size=5)
    assert [len(x) for x, _ in loader] == [5, 5, 2]


def test_batches_of_suture(tmp_path: Path) -> None:
    found = open_source(in_folder(tmp_path, pictures()))
    stream = Batches(found, size=5, shuffle=True, seed=3)
    seen = list(stream)
    assert [b.size for b in seen] == [5, 5, 2]
    assert (sorted(torch.cat([b.labels for b in seen if b.labels is not None]).tolist())
            == found.labels.tolist())


def test_indexing_as_a_sequence() -> None:
    found = made_of(pictures())
    assert torch.equal(found[-1][0], found[11][0])
    assert len(list(found)) == 12
    with pytest.raises(IndexError, match="12 examples"):
        found[12]
    with pytest.raises(SutureError, match="rows of made from 0 to 11, got 0 to 12"):
        found.take([0, 12])
    with pytest.raises(SutureError, match="rows of made from 0 to 11, got -1"):
        found.take(torch.tensor([-1]))
    assert found.take([])[0] == []


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
