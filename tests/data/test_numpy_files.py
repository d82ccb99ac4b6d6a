"""Arrays of `numpy.savez`: what they are, their types and names."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from suture import SutureError
from suture.data.sources import open_pair, open_source


@pytest.mark.parametrize(("shape", "kind", "raw"), [
    ((2, 5, 4), "images", (1, 5, 4)), ((2, 5, 4, 3), "images", (3, 5, 4)),
    ((2, 5, 4, 1), "images", (1, 5, 4)), ((2, 3, 5, 4), "images", (3, 5, 4)),
    ((2, 1, 5, 6), "images", (1, 5, 6)), ((2, 5, 6, 4), "images", (3, 5, 6)),
    ((2, 4, 5, 6), "images", (3, 5, 6)), ((2, 2, 5, 6), "arrays", (2, 5, 6)), ((2, 7), "arrays", (7,))])
def test_arrays_of_bytes(shape: tuple[int, ...], kind: str, raw: tuple[int, ...], tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=np.concatenate([x, x]), labels=np.array([[0], [1], [0], [1]]))
    train, test = open_pair(tmp_path / "a.npz")
    assert (train.kind, tuple(train[0][0].shape), train.labels.tolist()) == (kind, raw, [0, 1][:len(train)])
    assert "has no test split: 2 of its 4 examples" in test.note
    first = np.moveaxis(x.reshape(*shape, 1) if x.ndim == 3 else x, -1, 1)[:, :3] if (
        kind == "images" and raw[1:] == shape[1:3]) else x[:, :3] if kind == "images" else x
    assert np.array_equal(train[0][0].numpy(), first[int(train.rows[0]) % 2])


@pytest.mark.parametrize(("dtype", "found"), [
    ("float64", torch.float32), ("float16", torch.float16), (">f4", torch.float32), ("int32", torch.int32),
    ("uint16", torch.int64), ("uint32", torch.int64), ("bool", torch.bool)])
def test_types_of_arrays(dtype: str, found: torch.dtype, tmp_path: Path) -> None:
    x = np.array([[0, 1], [1, 0], [0, 0]]).astype(dtype)
    np.savez_compressed(tmp_path / "a.npz", x=x)
    made = open_source(tmp_path / "a.npz", split="train")
    raw, labels = made.take(range(len(made)))
    assert (raw.dtype, labels, made.kind) == (found, None, "arrays")
    assert np.array_equal(raw.numpy(), x[made.rows.numpy()])


def test_arrays_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", train_images=np.zeros((3, 3, 3), np.uint8), train_labels=["b", "a", "b"],
             val_images=np.zeros((1, 3, 3), np.uint8), val_labels=["c"], train_depth=np.zeros((3, 2)),
             val_depth=np.ones((1, 2)))
    train, test = open_pair(tmp_path / "a.npz")
    assert (train.labels.tolist(), test.labels.tolist(), test.class_names) == ([1, 0, 1], [2],
                                                                               ("a", "b", "c"))
    assert [x.shape[1] for x in (train.take([0])[0], test.take([0])[0])] == [1, 1]
    other = open_source(tmp_path / "a.npz", split="test", image_column="depth", label_column="none")
    assert other.take([0])[0].tolist() == [[1, 1]]
    assert open_source(f"{tmp_path / 'a.npz'}", split="val").labels.tolist() == [2]


def write_header(file: Path, shape: tuple[int, ...], held: bytes = b"\0" * 99) -> Path:
    """Write an array x whose header promises more than it holds."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(file, "w") as opened:
        opened.writestr("x.npy", header.getvalue() + held)
    return file


@pytest.mark.parametrize("shape", [(25 * 10**9,), (2**62, 8)])
def test_a_header_that_promises_more_than_the_file_holds(shape: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(SutureError, match=r"array 'x' of .* is broken \(its header promises \d+ bytes"):
        open_source(write_header(tmp_path / "a.npz", shape))


def test_an_array_that_does_not_fit_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((9, 1000)), y=np.arange(9))
    monkeypatch.setattr("suture._base.runtime.get_free_bytes", lambda device: 50_000)
    with pytest.raises(SutureError, match=r"expected array 'x' of .* to fit into the free memory"):
        open_source(tmp_path / "a.npz")


@pytest.mark.parametrize("held", [b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', "])
def test_files_that_are_cut_off(held: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(held)
    with pytest.raises(SutureError, match=r"as \.npz"):
        open_source(tmp_path / "a.npz")


@pytest.mark.parametrize(("dtype", "classes"), [("uint64", 3), ("bool", 2), ("float16", 3), ("int8", 3)])
def test_labels_of_any_type(dtype: str, classes: int, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((9, 2)), y=(np.arange(9) % classes).astype(dtype))
    found = open_source(tmp_path / "a.npz")
    assert found.classes == classes
    assert found.labels is not None
    assert found.labels.dtype == torch.int64


@pytest.mark.parametrize(("label", "words"), [
    (2**63, r"class numbers from 0 below 2\*\*63 .* got 9223372036854775808"), (10**12, "")])
def test_labels_that_are_large_numbers(label: int, words: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 2)), y=np.arange(4, dtype=np.uint64) + np.uint64(label))
    if not words:
        assert sum(len(e) for e in open_pair(tmp_path / "a.npz")) == 4  # without a count for each number
        return
    with pytest.raises(SutureError, match=words):
        open_source(tmp_path / "a.npz")


@pytest.mark.parametrize("shape", [(9, 4, 4, 3), (9, 2)])
def test_no_array_is_bad(shape: tuple[int, ...], tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros(shape, np.uint8), y=np.arange(9) % 3)
    found = open_pair(tmp_path / "a.npz", skip_bad=True)
    assert sum(map(len, found)) == 9
    assert not any("cannot be used" in one.note for one in found)


@pytest.mark.parametrize("spec", ["", " ", "hf:", "#train"])
def test_no_name_is_no_data(spec: str) -> None:
    with pytest.raises(SutureError, match=r"expected (the name or path of data|a path), got"):
        open_pair(spec)
