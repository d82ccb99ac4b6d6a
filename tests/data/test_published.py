"""Published data sets in their own formats: the same images and labels as they were written with."""

from __future__ import annotations

import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import io

from suture import SutureError, specs
from suture.data import Examples
from suture.data.sources import mapped_arrays, open_auxiliary, open_pair, open_source
from tests.support.published import (
    WORDNET,
    draw_images,
    save_cifar,
    save_cifar5m,
    save_devkit,
    save_imagenet,
    save_svhn,
)


def check_images(found: Examples, images: np.ndarray[Any, Any], labels: Any) -> None:
    raw, numbers = found.take(range(len(found)))
    assert raw.dtype == torch.uint8
    assert np.array_equal(raw.permute(0, 2, 3, 1).numpy(), images)
    assert (None if numbers is None else numbers.tolist()) == labels


# -- SVHN ----------------------------------------------------------------------------------------------------

def test_svhn(tmp_path: Path) -> None:
    train, test, extra = (draw_images(n, seed=n) for n in (6, 4, 3))
    save_svhn(tmp_path, "train", train, [1, 10, 3, 10, 9, 2])
    save_svhn(tmp_path, "test", test, [10, 5, 6, 7])
    save_svhn(tmp_path, "extra", extra, [4, 4, 10])
    found = specs.load_data(str(tmp_path))
    check_images(found[0], train, [1, 0, 3, 0, 9, 2])
    check_images(found[1], test, [0, 5, 6, 7])
    assert [one.classes for one in found] == [10, 10]
    check_images(open_source(tmp_path, split="extra"), extra, [4, 4, 0])
    check_images(specs.load_data(f"{tmp_path}#extra/test")[0], extra, [4, 4, 0])
    assert len(specs.load_data(str(tmp_path / "train_32x32.mat"))[0]) == 3  # half of six is cut off for tests
    assert len(open_source(tmp_path / "train_32x32.mat", split="whole")) == 6


def wrong_svhn(folder: Path, **changed: Any) -> Path:
    made = {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.array([[1], [2]], np.uint8), **changed}
    io.savemat(folder / "train_32x32.mat", {k: v for k, v in made.items() if v is not None})
    return folder / "train_32x32.mat"


def cut_off(folder: Path) -> Path:
    file = save_svhn(folder, "train", draw_images(3), [1, 2, 3])
    file.write_bytes(file.read_bytes()[:-2000])
    return file


def new_matlab(folder: Path) -> Path:
    header = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    (folder / "a.mat").write_bytes(header + b"\x89HDF\r\n\x1a\n" + bytes(100))
    return folder / "a.mat"


def text_matlab(folder: Path) -> Path:
    (folder / "a.mat").write_text("no file of MATLAB" * 20)
    return folder / "a.mat"


@pytest.mark.parametrize(("make", "value"), [
    (lambda f: wrong_svhn(f, X=None), "X"),
    (lambda f: wrong_svhn(f, y=None), "y"),
    (lambda f: wrong_svhn(f, X=np.zeros((2, 32, 32, 3), np.uint8)), r"\(2, 32, 32, 3\)"),
    (lambda f: wrong_svhn(f, X=np.zeros((32, 32, 3, 2))), "float64"),
    (lambda f: wrong_svhn(f, y=np.array([[1], [2], [3]], np.uint8)), r"\(3, 1\)"),
    (lambda f: wrong_svhn(f, y=np.array([[1], [11]], np.uint8)), "11 at row 1"),
    (lambda f: wrong_svhn(f, y=np.array([[0], [1]], np.uint8)), "0 at row 0"),
    (lambda f: wrong_svhn(f, y=np.array([[1.5], [1]])), "1.5 at row 0"),
    (cut_off, "train_32x32.mat"), (new_matlab, "a.mat"), (text_matlab, "a.mat")])
def test_svhn_that_is_damaged(make: Callable[[Path], Path], value: str, tmp_path: Path) -> None:
    with pytest.raises(SutureError, match=value):
        open_source(make(tmp_path))


def test_svhn_that_does_not_fit_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_svhn(tmp_path, "train", draw_images(50), [1] * 50)
    monkeypatch.setattr("suture._base.runtime.get_free_bytes", lambda device: 100_000)
    with pytest.raises(SutureError, match="free memory"):
        open_source(tmp_path / "train_32x32.mat")


# -- ImageNet ------------------------------------------------------------------------------------------------

def read_greys(found: Examples) -> list[int]:
    return [int(image.float().mean().round()) for image, _ in found]


@pytest.mark.parametrize("flat", [True, False])
def test_imagenet(flat: bool, tmp_path: Path) -> None:
    """Class numbers are places among sorted WordNet ids, whatever the ILSVRC ids are."""
    ids = [3, 1, 2, 2, 1]
    own = save_imagenet(tmp_path, ids, flat)
    if flat:
        save_devkit(tmp_path, ids)
    train, val = open_source(tmp_path), open_source(tmp_path, split="val")
    assert train.class_names == val.class_names == tuple(sorted(WORDNET))
    found = dict(zip(read_greys(val), [sorted(WORDNET)[k] for k in val.labels.tolist()], strict=True))
    assert found == {10 * k: name for k, name in enumerate(own, 1)}
    assert dict(zip(read_greys(train), train.labels.tolist(), strict=True)) == {
        200: 0, 201: 0, 210: 1, 211: 1, 220: 2, 221: 2}
    assert [len(one) for one in open_pair(tmp_path)] == [6, 5]


def test_imagenet_in_folders_of_the_paper_names(tmp_path: Path) -> None:
    save_imagenet(tmp_path, [1, 2, 3], False)
    (tmp_path / "train").rename(tmp_path / "training_data")
    (tmp_path / "val").rename(tmp_path / "validation_data")
    found = open_pair(tmp_path)
    assert [len(one) for one in found] == [6, 3]
    assert found[1].class_names == tuple(sorted(WORDNET))


@pytest.mark.parametrize("make", [lambda p: p.mkdir(),
                                  lambda p: p.with_name(f"{p.name}.tar").write_bytes(b"")])
def test_a_class_of_imagenet_that_is_not_unpacked(make: Callable[[Path], Any], tmp_path: Path) -> None:
    """Without it the classes after it would have other numbers than in pretrained networks."""
    save_imagenet(tmp_path, [1, 2, 3], False)
    make(tmp_path / "train" / "n00000001")
    with pytest.raises(SutureError, match="n00000001"):
        open_pair(tmp_path)


def test_images_of_imagenet_are_decoded_when_they_are_asked_for(tmp_path: Path) -> None:
    ids = [1, 2, 3]
    save_imagenet(tmp_path, ids)
    save_devkit(tmp_path, ids)
    for file in sorted((tmp_path / "val").iterdir())[1:]:
        file.write_bytes(b"no image")
    found = open_source(tmp_path, split="val")
    assert read_greys(found.part(torch.tensor([0]), "one")) == [10]
    with pytest.raises(SutureError, match=r"ILSVRC2012_val_00000002\.JPEG"):
        found.take([1])


def test_the_line_of_a_validation_image_is_its_number(tmp_path: Path) -> None:
    save_imagenet(tmp_path, [3, 1, 2])
    save_devkit(tmp_path, [3, 1, 2])
    (tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG").unlink()
    found = open_source(tmp_path, split="val")
    assert [sorted(WORDNET)[k] for k in found.labels.tolist()] == [WORDNET[0], WORDNET[1]]


def without_kit(root: Path) -> None:
    (root / "ILSVRC2012_devkit_t12" / "data" / "meta.mat").unlink()


def with_truth(text: str) -> Callable[[Path], None]:
    return lambda root: (root / "ILSVRC2012_devkit_t12" / "data" /  # type: ignore[return-value]
                         "ILSVRC2012_validation_ground_truth.txt").write_text(text)


def with_other_meta(root: Path) -> None:
    io.savemat(root / "ILSVRC2012_devkit_t12" / "data" / "meta.mat",
               {"synsets": np.array([(1,)], dtype=[("ID", object)])})


@pytest.mark.parametrize(("change", "value"), [
    (without_kit, "ILSVRC2012_devkit_t12.tar.gz"), (with_truth("1\n2\n"), "00000003.JPEG .* 2 lines"),
    (with_truth("1\n4\n2\n"), "line 2 .* got 4"), (with_truth("1\nx\n2\n"), "line 2 .*'x'"),
    (with_other_meta, "WNID")])
def test_a_development_kit_that_does_not_fit(change: Callable[[Path], None], value: str, tmp_path: Path
                                         ) -> None:
    save_imagenet(tmp_path, [1, 2, 3])
    save_devkit(tmp_path, [1, 2, 3])
    change(tmp_path)
    with pytest.raises(SutureError, match=value):
        open_pair(tmp_path)
    assert open_source(tmp_path, split="val", label_column="none").labels is None


# -- CIFAR-5M and arrays that stay in their files ------------------------------------------------------------

@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("compressed", [True, False])
def test_cifar5m(mapped: bool, compressed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped_arrays, "MAPPED_BYTES", 0 if mapped else 10**9)
    parts = {k: (draw_images(4, seed=k), [k % 10, 9, 0, 3]) for k in (8, 9, 10)}
    for k, (images, labels) in parts.items():
        save_cifar5m(tmp_path, k, images, labels, compressed)
    found = open_source(tmp_path, split="whole")
    order = [8, 9, 10]
    check_images(found, np.concatenate([parts[k][0] for k in order]),
                 [label for k in order for label in parts[k][1]])
    assert (found.classes, found.class_names[3]) == (10, "cat")
    assert "cifar5m_part9.npz, cifar5m_part10.npz" in found.note
    rows = [11, 0, 5, 5]
    assert torch.equal(found.take(rows)[0], torch.stack([found[k][0] for k in rows]))
    assert found.store.describe_row(9) == "cifar5m_part10.npz, row 1"
    is_mapped = all(isinstance(part, mapped_arrays.MappedArray) for part in found.store.parts)
    assert is_mapped == (mapped and not compressed)
    copy = pickle.loads(pickle.dumps(found))
    assert copy.fingerprint == found.fingerprint
    assert [len(one) for one in open_pair(tmp_path)] == [8, 4]  # one of each class for tests


def test_a_mapped_array_is_sent_without_its_values(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", draw_images(100))
    found = mapped_arrays.map_npy(tmp_path / "a.npy")
    found[[0, 5]]
    assert len(pickle.dumps(found)) < 1000
    assert np.array_equal(pickle.loads(pickle.dumps(found))[[99]], draw_images(100)[[99]])


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_as_numpy_maps_them(order: Any, tmp_path: Path) -> None:
    made = np.asarray(np.random.default_rng(0).random((5, 3, 2)), order=order)
    np.save(tmp_path / "a.npy", made)
    assert np.array_equal(mapped_arrays.map_npy(tmp_path / "a.npy")[[4, 1]],
                          np.load(tmp_path / "a.npy", mmap_mode="r")[[4, 1]])
    found = open_source(tmp_path / "a.npy", split="whole")
    assert (found.kind, found.labels) == ("arrays", None)
    assert np.array_equal(found.take([3])[0].numpy(), made[[3]].astype(np.float32))


@pytest.mark.parametrize(("second", "value"), [
    (lambda f: save_cifar5m(f, 1, draw_images(2)[:, :16], [0, 1]), r"\(2, 16, 32, 3\) in .*part1"),
    (lambda f: save_cifar5m(f, 1, draw_images(2), [0, 10]), "got 10 at cifar5m_part1.npz, row 1"),
    (lambda f: save_cifar5m(f, 1, draw_images(2), [0]), "got .*1,"),
    (lambda f: np.savez(f / "cifar5m_part1.npz", X=draw_images(2)), "1 with labels"),
    (lambda f: np.savez(f / "other_part1.npz", X=draw_images(2), Y=[0, 1]), "other_part1.npz"),
    (lambda f: save_cifar5m(f, 2, draw_images(2), [0, 1]), "part 1 of"),
    (lambda f: (f / "cifar5m_part1.npz").write_bytes(b"PK"), "cifar5m_part1.npz")])
def test_parts_that_do_not_fit(second: Callable[[Path], Any], value: str, tmp_path: Path) -> None:
    save_cifar5m(tmp_path, 0, draw_images(2), [0, 1])
    second(tmp_path)
    with pytest.raises(SutureError, match=value):
        open_source(tmp_path)


def test_a_mapped_part_that_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped_arrays, "MAPPED_BYTES", 0)
    np.save(tmp_path / "a.npy", draw_images(4))
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole[:-1])
    with pytest.raises(SutureError, match=r"a\.npy.*12288 bytes, it holds 12287"):
        open_source(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.array([{}], dtype=object))
    with pytest.raises(SutureError, match="pickled"):
        open_source(tmp_path / "b.npy")


# -- CIFAR-10 and CIFAR-100 ----------------------------------------------------------------------------------

def test_cifar10(tmp_path: Path) -> None:
    parts = [draw_images(2, seed=k) for k in range(6)]
    root = tmp_path / "cifar-10-batches-bin"
    for k, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        save_cifar(root / f"{name}.bin", parts[k], [k, 9 - k])
    train, test = open_pair(tmp_path, train_size=None)
    check_images(test, parts[5], [5, 4])
    check_images(train, np.concatenate(parts[:5]), [n for k in range(5) for n in (k, 9 - k)])
    assert (train.classes, train.class_names[3]) == (10, "cat")
    (root / "batches.meta.txt").write_text("\n".join("abcdefghij") + "\n\n")
    assert open_source(root).class_names == tuple("abcdefghij")
    check_images(open_source(root / "test_batch.bin", split="whole"), parts[5], [5, 4])
    (root / "data_batch_3.bin").unlink()
    with pytest.raises(SutureError, match=r"data_batch_3\.bin is missing"):
        open_source(root)
    (root / "test_batch.bin").rename(root / "data_batch_3.bin")
    with pytest.raises(SutureError, match=r"test_batch\.bin is missing"):  # and no other images are cut off
        open_source(root)


def test_cifar100(tmp_path: Path) -> None:
    train, test = draw_images(3), draw_images(2, seed=1)
    save_cifar(tmp_path / "train.bin", train, [19, 0, 1], [99, 5, 50])
    save_cifar(tmp_path / "test.bin", test, [3, 4], [7, 8])
    found = open_pair(tmp_path)
    check_images(found[0], train, [99, 5, 50])
    check_images(found[1], test, [7, 8])
    assert found[0].classes == 100


def as_python(root: Path) -> Path:
    root.mkdir()
    for name in ("data_batch_1", "test_batch", "batches.meta"):
        (root / name).write_bytes(pickle.dumps({b"data": 0}))
    return root


def as_python_hundred(root: Path) -> Path:
    root.mkdir()
    for name in ("train", "test", "meta"):
        (root / name).write_bytes(pickle.dumps({b"data": 0}))
    return root


@pytest.mark.parametrize(("make", "value"), [
    (lambda r: as_python(r / "x"), "cifar-10-binary.tar.gz"),
    (lambda r: as_python(r / "x").parent, "cifar-10-binary.tar.gz"),
    (lambda r: as_python(r / "x") / "data_batch_1", "cifar-10-binary.tar.gz"),
    (lambda r: as_python_hundred(r / "x"), "cifar-100-binary.tar.gz"),
    (lambda r: save_cifar(r / "weights.bin", draw_images(1), [0]), "weights.bin"),
    (lambda r: save_cifar(r / "data_batch_1.bin", draw_images(2), [0, 10]), "got 10"),
    (lambda r: save_cifar(r / "data_batch_1.bin", draw_images(2)[:, :31], [0, 1]), "bytes"),
    (lambda r: save_cifar(r / "data_batch_1.bin", draw_images(0), []), "got 0 bytes")])
def test_cifar_that_is_refused(make: Callable[[Path], Path], value: str, tmp_path: Path) -> None:
    with pytest.raises(SutureError, match=value):
        open_source(make(tmp_path))


# -- auxiliary data by path ----------------------------------------------------------------------------------

def test_random_images_as_auxiliary_data(tmp_path: Path) -> None:
    images = draw_images(40)
    np.save(tmp_path / "300K_random_images.npy", images)
    found = specs.load_inputs(str(tmp_path / "300K_random_images.npy"))
    assert isinstance(found, Examples)
    assert (len(found), found.labels) == (40, None)
    check_images(found, images[found.rows.numpy()], None)
    assert found.rows.tolist() != sorted(found.rows.tolist())
    assert open_auxiliary(tmp_path / "300K_random_images.npy").fingerprint == found.fingerprint
    assert [len(one) for one in open_pair(tmp_path / "300K_random_images.npy")] == [32, 8]


def test_no_file_of_a_published_archive_is_unpickled_or_unpacked(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz"):
        pass
    with pytest.raises(SutureError, match=r"cifar-10-python\.tar\.gz"):
        open_source(tmp_path / "cifar-10-python.tar.gz")
