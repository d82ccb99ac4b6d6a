"""Small files in the exact format of published data sets: SVHN, ImageNet, CIFAR, CIFAR-5M, 300K images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import io

Bytes = NDArray[np.uint8]
WORDNET = ("n02119789", "n01440764", "n03000684")
"""WordNet ids by ILSVRC id, from 1. They are not sorted, as in the development kit."""


def draw_images(n: int, seed: int = 0) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)


def save_svhn(folder: Path, split: str, images: Bytes, labels: Any) -> Path:
    """X is (32, 32, 3, N), y is (N, 1) uint8 with 10 for the digit 0, compressed, as published."""
    file = folder / f"{split}_32x32.mat"
    y = np.array(labels)[:, None]
    io.savemat(file, {"X": images.transpose(1, 2, 3, 0), "y": y.astype(np.uint8)}, do_compression=True)
    return file


def save_cifar5m(folder: Path, part: int, images: Bytes, labels: Any, compressed: bool = False) -> Path:
    file = folder / f"cifar5m_part{part}.npz"
    (np.savez_compressed if compressed else np.savez)(file, X=images, Y=np.array(labels, dtype=np.int64))
    return file


def save_cifar(file: Path, images: Bytes, *labels: Any) -> Path:
    """Bytes of the labels, then of the red, green and blue channel, row by row."""
    file.parent.mkdir(exist_ok=True)
    pixels = images.transpose(0, 3, 1, 2).reshape(len(images), int(np.prod(images.shape[1:])))
    file.write_bytes(np.hstack([*(np.array(of, np.uint8)[:, None] for of in labels), pixels]).tobytes())
    return file


def save_devkit(root: Path, ids: Any) -> Path:
    """Lines of ILSVRC ids, and synsets as MATLAB writes an array of structures; the last one has children."""
    data = root / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{i}\n" for i in ids))
    fields = [(name, object) for name in ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children",
                                          "children", "wordnet_height", "num_train_images")]
    rows = [(k, name, "a, b", "c", 0, [], 0, 1300) for k, name in enumerate(WORDNET, 1)]
    rows.append((4, "n00001740", "entity", "d", 3, [1, 2, 3], 1, 0))
    synsets = np.array(rows, dtype=fields)[:, None]
    io.savemat(data / "meta.mat", {"synsets": synsets})
    return data


def save_imagenet(root: Path, ids: Any, flat: bool = True) -> list[str]:
    """Two training images of each class, and a validation image for each ILSVRC id; return their WordNet ids.

    Images have one colour each, by which they are known: 10 times the number of the image from 1.
    """
    for k, name in enumerate(sorted(WORDNET)):
        for image in range(2):
            save_jpeg(root / "train" / name / f"{name}_{image}.JPEG", 200 + 10 * k + image)
    for number, of in enumerate(ids, 1):
        folder = root / "val" / ("" if flat else WORDNET[of - 1])
        save_jpeg(folder / f"ILSVRC2012_val_{number:08}.JPEG", 10 * number)
    return [WORDNET[of - 1] for of in ids]


def save_jpeg(file: Path, grey: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20 + grey % 3, 16), (grey, grey, grey)).save(file, "JPEG", quality=100)
