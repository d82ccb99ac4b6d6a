"""Labelled images in memory, and the data sets that come with suture's dependencies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from suture._base import Seed, SutureError, Whole, check_classes, checked, expect, is_count
from suture.data import Examples, draw_balanced_order, make_generator, renumber_classes
from suture.numbers import Float32Array, Ints

_TEST_PER_CLASS = 50


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images in memory, usable as a `torch.utils.data.Dataset` of (image, label).

    Args:
        inputs: (N, C, H, W), float32; suture's own sets are scaled to [0, 1] and not normalised.
        labels: (N,), int64, from 0 to classes - 1.
        name: name of the set in records.

    Raises:
        SutureError: inputs, labels and classes that do not fit together.
    """

    inputs: Tensor
    labels: Tensor
    classes: int
    name: str

    def __post_init__(self) -> None:
        for name in ("inputs", "labels"):
            expect(isinstance(getattr(self, name), Tensor), f"a tensor as {name}", getattr(self, name))
        expect(is_count(self.classes), "a number of classes of at least 1", self.classes)
        expect(self.inputs.ndim == 4 and self.inputs.dtype == torch.float32,
               "float32 inputs (N, C, H, W)", self.inputs)
        expect(self.labels.dtype == torch.int64 and self.labels.shape == self.inputs.shape[:1],
               f"int64 labels ({len(self.inputs)},)", self.labels)
        check_classes(self.labels, self.classes, "write classes=, or number them anew")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.inputs[index], int(self.labels[index])

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        return (self[index] for index in range(len(self)))

    @classmethod
    @checked
    def of(cls, examples: Examples) -> ImageSet:
        """Return labelled images of one size as a set in memory, scaled to [0, 1]; refuse other examples."""
        if examples.kind != "images" or examples.labels is None or examples.classes is None:
            raise SutureError(f"expected images with labels to train on, got {examples!r}")
        raw, labels = examples.take(range(len(examples)))
        if not isinstance(raw, Tensor) or labels is None:
            raise SutureError(f"expected images of one size, got several in {examples.name}; resize them")
        return cls(raw.float() / 255, labels, examples.classes, examples.name)

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """(inputs, labels), as in `torch.utils.data.TensorDataset`."""
        return self.inputs, self.labels

    @checked
    def subset(self, n: Whole, seed: Seed = 0) -> ImageSet:
        """Draw `n` images without replacement, as evenly over the classes as possible.

        Class counts differ by at most one unless a class runs out. Only `seed` (default 0) and the labels
        decide it. A larger `n` with the same seed begins with the same images.

        Raises:
            SutureError: `n` is not from 1 to len(self).
        """
        expect(1 <= n <= len(self), f"n from 1 to {len(self)}, the size of {self.name}", n)
        order = draw_balanced_order(self.labels.cpu().numpy(), seed)
        rows = torch.from_numpy(order[:n]).to(self.labels.device)
        return ImageSet(self.inputs[rows], self.labels[rows], self.classes, f"{self.name}/{n}@{seed}")


    @checked
    def select_classes(self, classes: Sequence[int]) -> ImageSet:
        """Return the images of some classes, numbered anew from 0 in the order given.

        Raises:
            SutureError: no such class.
        """
        rows, labels = renumber_classes(self.labels, classes, self.classes, self.name)
        return ImageSet(self.inputs[rows], labels, len(classes),
                        f"{self.name}/classes {','.join(map(str, classes))}")


@checked
def digits(split: Literal["train", "test"] = "train") -> ImageSet:
    """Return handwritten digits: 1,297 training or 500 test images of 8x8 pixels, ten classes.

    inputs (N, 1, 8, 8) are float32 in [0, 1]; labels (N,) are int64. The test images are 50 of each class.
    Split and order are the same on every machine. The images come with scikit-learn, which has only the test
    part of the original set. Training and test images therefore share writers, and accuracies are a little
    higher than in the literature.

    Source: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998.
    """
    images, labels = _load_raw_digits()
    order = draw_balanced_order(labels, seed=0)
    test = 10 * _TEST_PER_CLASS
    rows = order[:test] if split == "test" else order[test:]
    if split == "train":
        # The rest of a balanced order ends with the largest classes alone, so it is shuffled.
        rows = rows[make_generator(1).permutation(len(rows))]
    return ImageSet(torch.from_numpy(images[rows][:, None]), torch.from_numpy(labels[rows]), 10,
                    f"digits-{split}")


@lru_cache(maxsize=1)
def _load_raw_digits() -> tuple[Float32Array, Ints]:
    found = find_spec("sklearn")
    file = Path(*((found and found.submodule_search_locations) or [""])[:1], "datasets/data/digits.csv.gz")
    if file.is_file():  # read without scikit-learn, whose import takes more than a second
        rows = np.loadtxt(file, delimiter=",")
        images, labels = rows[:, :-1].reshape(-1, 8, 8), rows[:, -1]
    else:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        images, labels = bunch.images, bunch.target
    # Grey values run from 0 to 16, so the division is exact.
    return (images / 16).astype(np.float32), labels.astype(np.int64)
