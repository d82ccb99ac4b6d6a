"""Arrays of `numpy.savez`: what they are, their types and names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

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
