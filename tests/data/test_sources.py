"""Raw examples: the same from every kind of storage, read ahead, kept, drawn, fingerprinted; and bad ones."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from suture import SutureError
from suture.data.batches import Batches
from suture.data.sources import (
    Examples,
    decoding,
    open_source,
)
from suture.data.sources import (
    bad_examples as checking,
)
from suture.data.sources import (
    prefetching as reading,
)
from suture.data.sources.bad_examples import find_decodable
from suture.data.sources.sampling import draw_balanced_order, has_class_runs, split_off_fifth
from suture.data.sources.stores import MemoryStore

NAMES = ("ant", "bee", "cat")
Pictures = list[tuple[np.ndarray[Any, Any], int]]


def pictures(n: int = 12, seed: int = 0, size: int | None = 6) -> Pictures:
    """Images sorted by class, as a folder has them; `size` None: of many sizes."""
    rng = np.random.default_rng(seed)
    shapes = [(size, size) if size else (int(rng.integers(3, 9)), 5) for _ in range(n)]
    return [(rng.integers(0, 256, (*s, 3), dtype=np.uint8), 3 * k // n) for k, s in enumerate(shapes)]


def encoded(pixels: np.ndarray[Any, Any], ending: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, ending)
    return out.getvalue()


def as_folder(root: Path, made: Pictures, split: str = "") -> Path:
    for k, (pixels, label) in enumerate(made):
        at = root / split / NAMES[label]
        at.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(at / f"{k:03}.png")
    return root


def as_parquet(file: Path, images: Sequence[bytes | None], labels: Sequence[Any], rows: int = 4,
               named: bool = True) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    column = pa.array([None if b is None else {"bytes": b, "path": "x.png"} for b in images],
                      pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    table = pa.table({"img": column, "label": pa.array(labels)})
    if named:
        features = {"img": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": list(NAMES)}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, file, row_group_size=rows)
    return file


def in_parquet(root: Path, made: Pictures, split: str = "train") -> Path:
    as_parquet(root / f"{split}-00000-of-00001.parquet", [encoded(p) for p, _ in made], [y for _, y in made])
    return root


def in_shards(root: Path, made: Pictures) -> Path:
    for k, part in enumerate((made[:5], made[5:])):
        as_parquet(root / "data" / f"train-{k:05}-of-00002.parquet", [encoded(p) for p, _ in part],
                   [y for _, y in part])
    return root


def in_npz(root: Path, made: Pictures) -> Path:
    root.mkdir(exist_ok=True)
    np.savez(root / "set.npz", x_train=np.stack([p for p, _ in made]), y_train=[y for _, y in made],
             x_test=np.zeros((1, 6, 6, 3), np.uint8), y_test=[0])
    return root / "set.npz"


def as_dataset(made: Pictures) -> Any:
    import datasets

    features = datasets.Features({"label": datasets.ClassLabel(names=list(NAMES)), "img": datasets.Image()})
    return datasets.Dataset.from_dict({"label": [y for _, y in made], "img": [
        {"bytes": encoded(p), "path": None} for p, _ in made]}, features=features)


def in_saved(root: Path, made: Pictures) -> Path:
    import datasets

    datasets.disable_progress_bars()
    datasets.DatasetDict({"train": as_dataset(made), "test": as_dataset(made[:1])}).save_to_disk(str(root))
    return root


def in_folder(root: Path, made: Pictures) -> Path:
    as_folder(root, made[:1], "test")
    return as_folder(root, made, "train")


STORAGES: dict[str, Callable[[Path, Pictures], Any]] = {
    "folder": in_folder,
    "parquet": lambda root, made: in_parquet(in_parquet(root, made), made[:1], "test"),
    "shards": lambda root, made: in_parquet(in_shards(root, made) / "data", made[:1], "test").parent,
    "npz": in_npz,
    "saved": in_saved,
    "dataset": lambda _, made: as_dataset(made),
    "stream": lambda _, made: as_dataset(made).to_iterable_dataset(),
}


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


def made_of(made: Pictures) -> Examples:
    """Encoded images in memory, without the shortcut that `MemoryStore` has."""
    labels = torch.tensor([y for _, y in made])
    return Examples(Counted([encoded(p) for p, _ in made]), "images", "made", labels, 3, NAMES)


class Counted:
    """A store that counts how often each row is read."""

    def __init__(self, values: list[Any]) -> None:
        self.held, self.read = values, [0] * len(values)

    def __len__(self) -> int:
        return len(self.held)

    def fetch(self, rows: Sequence[int]) -> list[Any]:
        for r in rows:
            self.read[r] += 1
        return [self.held[r] for r in rows]

    def describe_row(self, row: int) -> str:
        return f"value {row}"


# -- reading -------------------------------------------------------------------------------------------------

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
    with pytest.raises(SutureError, match="expected rows from 0 to 11, got 0 to 12"):
        found.take([0, 12])
    with pytest.raises(SutureError, match="expected rows from 0 to 11, got -1"):
        found.take(torch.tensor([-1]))
    assert found.take([])[0] == []


# -- draws ---------------------------------------------------------------------------------------------------

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


# -- decoding ------------------------------------------------------------------------------------------------

RGB = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
GREY = RGB[..., 0]
DEEP = np.arange(20, dtype=np.uint16).reshape(4, 5) * 3276
ALPHA = np.dstack([RGB, 255 - GREY])


def paletted() -> Image.Image:
    made = Image.fromarray(GREY // 64).convert("L")
    made.putpalette([9, 8, 7, 100, 0, 0, 0, 100, 0, 0, 0, 100])
    return made


MODES: dict[str, tuple[Callable[[], Image.Image], str, np.ndarray[Any, Any]]] = {
    "L": (lambda: Image.fromarray(GREY), "PNG", GREY[..., None]),
    "RGB": (lambda: Image.fromarray(RGB), "PNG", RGB),
    "RGBA": (lambda: Image.fromarray(ALPHA), "PNG", RGB),
    "LA": (lambda: Image.fromarray(np.dstack([GREY, GREY]), "LA"), "PNG", GREY[..., None]),
    "1": (lambda: Image.fromarray(GREY > 99), "PNG", np.where(GREY > 99, 255, 0)[..., None]),
    "P": (paletted, "PNG", np.array([[9, 8, 7], [100, 0, 0], [0, 100, 0], [0, 0, 100]])[GREY // 64]),
    "I;16": (lambda: Image.fromarray(DEEP), "PNG", np.round(DEEP / 257)[..., None]),
    "I": (lambda: Image.fromarray(DEEP.astype(np.int32)), "TIFF", np.round(DEEP / 257)[..., None]),
    "CMYK": (lambda: Image.fromarray(RGB).convert("CMYK"), "TIFF", RGB),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", ["bytes", "path", "image"])
def test_modes_of_images(mode: str, way: str, tmp_path: Path) -> None:
    make, ending, expected = MODES[mode]
    out = io.BytesIO()
    make().save(out, ending)
    (tmp_path / "image").write_bytes(out.getvalue())
    stored = {"bytes": out.getvalue(), "path": str(tmp_path / "image"), "image": Image.open(out)}[way]
    found = decoding.decode_image(stored)
    assert found.dtype == torch.uint8
    assert found.is_contiguous()
    assert np.array_equal(found.permute(1, 2, 0).numpy(), expected)


def test_a_palette_with_transparency_warns_nobody(recwarn: pytest.WarningsRecorder) -> None:
    out = io.BytesIO()
    paletted().save(out, "PNG", transparency=bytes([0, 100, 200, 255]))
    expected = MODES["P"][2]
    assert np.array_equal(decoding.decode_image(out.getvalue()).permute(1, 2, 0).numpy(), expected)
    assert not recwarn.list


def test_the_first_frame_and_no_rotation() -> None:
    out = io.BytesIO()
    Image.fromarray(GREY).save(out, "GIF", save_all=True, append_images=[Image.fromarray(255 - GREY)])
    assert torch.equal(decoding.decode_image(out.getvalue())[0], torch.from_numpy(GREY))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = io.BytesIO()
    Image.fromarray(RGB).save(turned, "PNG", exif=exif)
    assert decoding.decode_image(turned.getvalue()).shape == (3, 4, 5)


@pytest.mark.parametrize(("stored", "why"), [
    (b"no image", "is no image that Pillow knows"), (encoded(RGB)[:-30], "."),
    (encoded(RGB, "JPEG")[:300], "."), (None, "is missing"), ({"bytes": None, "path": None}, "is missing"),
    ("no/such/file.png", "No such file")])
def test_what_is_no_image(stored: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        decoding.decode(stored, "images")


def test_floating_point_images_have_no_range() -> None:
    out = io.BytesIO()
    Image.fromarray(np.ones((3, 3), np.float32)).save(out, "TIFF")
    with pytest.raises(ValueError, match="floating point"):
        decoding.decode_image(out.getvalue())


# -- bad examples --------------------------------------------------------------------------------------------

def spoilt_folder(root: Path) -> tuple[Path, str]:
    as_folder(root, pictures(30))
    for name in ("ant/003.png", "cat/025.png"):
        (root / name).write_bytes(b"GIF89a, but no more")
    return root, f"'{root}/ant/003.png'"


def spoilt_parquet(root: Path) -> tuple[Path, str]:
    images: list[bytes | None] = [encoded(p) for p, _ in pictures(30)]
    images[3], images[25] = None, b"no image"
    return (as_parquet(root / "all.parquet", images, [y for _, y in pictures(30)]),
            "all.parquet, row 3 is missing")


@pytest.mark.parametrize("make", [spoilt_folder, spoilt_parquet])
def test_bad_images_are_counted_and_named(make: Callable[[Path], tuple[Path, str]], tmp_path: Path) -> None:
    path, first = make(tmp_path / "set")
    plain = open_source(path)
    with pytest.raises(SutureError, match="2 of 24 cannot be used") as message:
        list(plain.read(torch.arange(len(plain)), 8))
    assert first in str(message.value)
    assert "\n" not in str(message.value)
    assert "skip_bad=True" in str(message.value)
    with pytest.raises(SutureError, match="2 of 24 cannot be used"):
        assert plain.fingerprint


@pytest.mark.parametrize("make", [spoilt_folder, spoilt_parquet])
@pytest.mark.parametrize("n", [None, 9])
def test_bad_images_are_left_out_everywhere(make: Callable[[Path], tuple[Path, str]], n: int | None,
                                            tmp_path: Path) -> None:
    path, first = make(tmp_path / "set")
    found = open_source(path, n=n, skip_bad=True)
    assert len(found) == (22 if n is None else n)
    assert n == 9 or f"left out of {found.name}: 2 of 24 cannot be used, the first: {first}" in found.note
    if n is not None:
        drawn = open_source(path, n=12).rows.tolist()
        assert found.rows.tolist() == [r for r in drawn if r not in (3, 25)][:n]
    raw, labels = found.take(range(len(found)))
    made = pictures(30)
    for k, row in enumerate(found.rows.tolist()):
        assert row not in (3, 25)
        assert torch.equal(raw[k], torch.from_numpy(made[row][0]).permute(2, 0, 1))
        assert int(labels[k]) == made[row][1]


def test_more_than_the_good_ones(tmp_path: Path) -> None:
    path, _ = spoilt_folder(tmp_path / "set")
    with pytest.raises(SutureError, match=r"expected 23 usable examples in set-train, got 22: 2 of 24"):
        open_source(path, n=23, skip_bad=True)


def test_draws_walk_past_bad_images() -> None:
    """Skipping gives the draw from everything, without the bad ones."""
    made = pictures(40)
    store = Counted([encoded(p) for p, _ in made])
    labels = [y for _, y in made]
    order = draw_balanced_order(np.array(labels), 0).tolist()
    for bad in order[2:5]:
        store.held[bad] = b"x"
    good, bad_ones = find_decodable(store, "images", torch.tensor(order), 10)
    assert good.tolist() == [r for r in order if r not in order[2:5]][:10]
    assert bad_ones is not None
    assert (bad_ones.count, bad_ones.of,
            bad_ones.first) == (3, 13, f"value {order[2]} is no image that Pillow knows")


def test_many_bad_images_are_counted_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "MOST_TRIED", 20)
    found = made_of(pictures(50))
    found.store.held[30] = b"x"
    with pytest.raises(SutureError, match="one cannot be used: value 30 is no image"):
        found.take([30])
    found.store.held[3] = b"x"
    with pytest.raises(SutureError, match="among its first 20: 1 of 20 cannot be used, the first: value 3"):
        found.take([30])
