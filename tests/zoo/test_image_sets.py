"""Image sets: the digits and their split, balanced subsets, and what is refused."""

from __future__ import annotations

import hashlib
import sys

import pytest
import torch

from suture import zoo
from suture._base import SutureError
from suture.zoo import image_sets
from suture.zoo.image_sets import ImageSet


def test_the_split_is_disjoint_complete_and_balanced() -> None:
    from sklearn.datasets import load_digits

    train, test = zoo.digits("train"), zoo.digits("test")
    assert (len(train), len(test)) == (1297, 500)
    assert test.labels.bincount().tolist() == [50] * 10
    together = torch.cat([train.inputs, test.inputs])[:, 0] * 16
    labels = torch.cat([train.labels, test.labels])
    bunch = load_digits()
    found = {(image.numpy().tobytes(), int(label)) for image, label in zip(together, labels, strict=True)}
    real = {
        (image.astype("float32").tobytes(), int(label))
        for image, label in zip(bunch.images, bunch.target, strict=True)
    }
    # All 1,797 images differ, so equal sets mean that none is in both parts and none is lost.
    assert len(found) == 1797
    assert found == real


def test_the_digits_need_no_import_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its import takes longer than the rest of README's first two lines; without the file it is used."""
    images, labels = image_sets._load_raw_digits.__wrapped__()
    monkeypatch.setattr(image_sets, "find_spec", lambda name: None)
    for found, known in zip(image_sets._load_raw_digits.__wrapped__(), (images, labels), strict=True):
        assert found.dtype == known.dtype
        assert (found == known).all()
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert (image_sets._load_raw_digits.__wrapped__()[0] == images).all()


def test_digits_are_images_between_0_and_1() -> None:
    for data in (zoo.digits("train"), zoo.digits("test")):
        assert data.inputs.shape[1:] == (1, 8, 8)
        assert data.inputs.dtype == torch.float32
        assert data.labels.dtype == torch.int64
        assert (float(data.inputs.min()), float(data.inputs.max())) == (0, 1)
    assert (zoo.digits().name, zoo.digits("test").name) == ("digits-train", "digits-test")


def test_the_split_never_changes() -> None:
    """Numbers written down when the split was made: a change would make all earlier results incomparable."""

    def digest(data: ImageSet) -> str:
        return hashlib.sha256(data.inputs.numpy().tobytes() + data.labels.numpy().tobytes()).hexdigest()[:16]

    assert digest(zoo.digits("train")) == "26e6e343737f032f"
    assert digest(zoo.digits("test")) == "db9dba64b8bbd43b"


def test_the_order_of_the_training_images_is_mixed() -> None:
    """What is left of a balanced order would end with 57 images without the smallest class, the eights."""
    labels = zoo.digits("train").labels
    assert labels[:57].bincount(minlength=10).min() >= 1
    assert labels[-57:].bincount(minlength=10).min() >= 1


def test_callers_cannot_spoil_the_digits() -> None:
    zoo.digits("test").inputs.zero_()
    assert zoo.digits("test").inputs.max() == 1


def test_unknown_split() -> None:
    with pytest.raises(SutureError, match="unknown split 'tset'; nearest: test"):
        zoo.digits("tset")  # type: ignore[arg-type]


@pytest.mark.parametrize(("n", "least", "most"), [(100, 10, 10), (105, 10, 11), (3, 0, 1)])
def test_subsets_are_balanced(n: int, least: int, most: int) -> None:
    part = zoo.digits("train").subset(n, seed=2)
    counts = part.labels.bincount(minlength=10)
    assert len(part) == n
    assert (int(counts.min()), int(counts.max())) == (least, most)


def test_subsets_depend_on_their_seed_and_are_nested() -> None:
    data = zoo.digits("train")
    a, b, other = data.subset(50, seed=1), data.subset(80, seed=1), data.subset(50, seed=2)
    assert torch.equal(a.inputs, b.inputs[:50])
    assert torch.equal(a.labels, b.labels[:50])
    assert not torch.equal(a.inputs, other.inputs)
    assert a.name == "digits-train/50@1"


def test_a_subset_of_all_is_all_and_takes_pairs() -> None:
    data = zoo.digits("test")
    whole = data.subset(500)
    pairs = {(image.numpy().tobytes(), label) for image, label in data}
    assert {(image.numpy().tobytes(), label) for image, label in whole} == pairs
    assert len(pairs) == 500


@pytest.mark.parametrize("n", [0, -1, 501])
def test_subsets_need_a_possible_size(n: int) -> None:
    with pytest.raises(SutureError, match=f"n from 1 to 500, the size of digits-test, got {n}"):
        zoo.digits("test").subset(n)


def test_image_sets_serve_a_loader() -> None:
    data = zoo.digits("test")
    loader = torch.utils.data.DataLoader(data, batch_size=200)
    batches = list(loader)
    assert torch.equal(torch.cat([images for images, _ in batches]), data.inputs)
    assert torch.equal(torch.cat([labels for _, labels in batches]), data.labels)
    assert data[3][0].shape == (1, 8, 8)
    assert data[3][1] == int(data.labels[3])


@pytest.mark.parametrize(
    ("inputs", "labels", "words"),
    [
        (torch.zeros(2, 8, 8), torch.zeros(2).long(), r"\(N, C, H, W\), got float32 of shape \(2, 8, 8\)"),
        (torch.zeros(2, 1, 8, 8).double(), torch.zeros(2).long(), "float32 inputs .* got float64"),
        (torch.zeros(2, 1, 8, 8), torch.zeros(2), r"int64 labels \(2,\), got float32"),
        (torch.zeros(2, 1, 8, 8), torch.zeros(3).long(), r"labels \(2,\), got int64 of shape \(3,\)"),
        (torch.zeros(2, 1, 8, 8), torch.tensor([0, 3]), "from 0 to 2, got 3"),
        (torch.zeros(2, 1, 8, 8), torch.tensor([-1, 2]), "from 0 to 2, got -1"),
    ],
)
def test_image_sets_check_themselves(inputs: torch.Tensor, labels: torch.Tensor, words: str) -> None:
    with pytest.raises(SutureError, match=words):
        ImageSet(inputs, labels, 3, "x")
