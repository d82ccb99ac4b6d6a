"""A batch, moved, cut into pieces, and made from raw examples for each network."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from suture import Prepared, SutureError, TaskRecipe
from suture.data import Examples
from suture.data.batch import Batch, cut_batch, move_batch
from suture.data.batches import Batches
from suture.data.indexed import can_shuffle, split_rows
from suture.data.sources.stores import MemoryStore
from suture.stitching import make_training_batches
from tests.support import tiny

X, Y = torch.arange(20.0).view(10, 2), torch.arange(10)


def test_moving_keeps_shared_inputs_shared() -> None:
    cpu = torch.device("cpu")
    shared = move_batch(Batch({"a": X}, None, Y), cpu)
    assert shared.target is None
    inputs = {"a": X}
    moved = move_batch(Batch(inputs, inputs, None), cpu)
    assert moved.source is moved.target
    assert moved.labels is None
    apart = move_batch(Batch(X, X + 1, Y), cpu)
    assert torch.equal(apart.target, X + 1)


@pytest.mark.parametrize(("size", "sizes"),
                         [(4, [4, 4, 2]), (10, [10]), (99, [10]), (9, [9, 1]), (1, [1] * 10)])
def test_pieces_of_dictionaries_cut_what_has_the_examples(size: int, sizes: list[int]) -> None:
    table, scale = torch.arange(7.0), torch.tensor(2.0)
    inputs = {"x": X, "nested": (X + 1, [Y]), "table": table, "scale": scale, "word": "w"}
    found = list(cut_batch(Batch(inputs, inputs, Y), size))
    assert [p.size for p in found] == sizes
    assert all(p.source is p.target for p in found)
    assert torch.equal(torch.cat([p.source["x"] for p in found]), X)
    assert torch.equal(torch.cat([p.source["nested"][0] for p in found]), X + 1)
    assert torch.equal(torch.cat([p.source["nested"][1][0] for p in found]), Y)
    assert torch.equal(torch.cat([p.labels for p in found]), Y)
    assert all(p.source["table"] is table and p.source["scale"] is scale and p.source["word"] == "w"
               for p in found)


def test_pieces_of_pairs_cut_both() -> None:
    found = list(cut_batch(Batch(X, {"x": X + 100}, None), 3))
    assert [p.size for p in found] == [3, 3, 3, 1]
    assert all(torch.equal(p.source + 100, p.target["x"]) for p in found)
    assert all(p.labels is None for p in found)


IMAGES = torch.arange(7 * 3 * 4 * 4, dtype=torch.uint8).reshape(7, 3, 4, 4)
LABELS = torch.arange(7)


@dataclass(frozen=True)
class Scaled:
    """Divide by a number."""

    by: float

    def __call__(self, raw: Tensor) -> Tensor:
        return raw.float() / self.by


SOURCE = Examples(MemoryStore(IMAGES, "images"), "images", "images", LABELS, 7)
STREAMS = {"tensors": (IMAGES, LABELS), "source": SOURCE, "dataset": TensorDataset(IMAGES, LABELS),
           "loader": DataLoader(TensorDataset(IMAGES, LABELS), batch_size=3), "list": [(IMAGES, LABELS)]}


@pytest.mark.parametrize("name", STREAMS)
def test_each_network_gets_the_same_examples_prepared_in_its_own_way(name: str) -> None:
    batches = list(Batches(Prepared(STREAMS[name], Scaled(255), Scaled(5)), size=3))
    source, target, labels = (torch.cat([getattr(b, k) for b in batches])
                              for k in ("source", "target", "labels"))
    assert torch.equal(source, IMAGES.float() / 255)
    assert torch.equal(target, IMAGES.float() / 5)
    assert torch.equal(labels, LABELS)


def test_equal_preprocessing_gives_one_shared_object() -> None:
    for data in (Prepared(SOURCE, Scaled(2)), Prepared(SOURCE, Scaled(2), Scaled(2)),
                 Prepared(SOURCE, None)):
        assert all(b.source is b.target for b in Batches(data, size=3))


def test_none_for_the_target_alone_leaves_its_inputs_as_they_are() -> None:
    batch = next(iter(Batches(Prepared(SOURCE, Scaled(2), None))))
    assert torch.equal(batch.target, IMAGES)
    assert batch.source.dtype == torch.float32


def test_only_what_is_needed_is_prepared() -> None:
    seen: list[int] = []

    def look(raw: Tensor) -> Tensor:
        seen.append(len(raw))
        return raw

    assert sum(b.size for b in Batches(Prepared(SOURCE, look), size=3, most=4)) == 4
    assert seen == [3, 1]


@pytest.mark.parametrize("name", ["tensors", "source", "dataset"])
def test_order_and_splits_are_those_of_the_data(name: str) -> None:
    data = Prepared(STREAMS[name], Scaled(1))
    assert can_shuffle(data)
    plain, shuffled = (torch.cat([b.labels for b in Batches(data, size=3, shuffle=s, seed=4)])
                       for s in (False, True))
    assert torch.equal(shuffled.sort().values, plain)
    assert not torch.equal(shuffled, plain)
    rows = split_rows(data, 0.3, 0)
    assert rows is not None
    parts = [torch.cat([b.labels for b in Batches(data, rows=r)]) for r in rows]
    assert torch.equal(torch.cat(parts).sort().values, plain)
    fit, held_out = make_training_batches(data, TaskRecipe(patience=2))
    assert held_out is not None
    assert sum(b.size for b in fit) + sum(b.size for b in held_out) == 7


def test_labels_that_a_preprocessing_makes_are_the_labels() -> None:
    def masked(raw: Tensor) -> dict[str, Tensor]:
        return {"x": raw, "labels": torch.full((len(raw),), 9)}

    batch = next(iter(Batches(Prepared(SOURCE, None, masked))))
    assert batch.labels is not None
    assert batch.labels.tolist() == [9] * 7
    assert list(batch.target) == ["x"]


@pytest.mark.parametrize(("raw", "words"), [(["a text"], "tokenizer"),
                                            ([torch.zeros(3, 4, 4), torch.zeros(3, 5, 4)], "one size")])
def test_raw_examples_without_preprocessing_are_refused(raw: list[object], words: str) -> None:
    with pytest.raises(SutureError, match=words):
        list(Batches(Prepared([(raw, LABELS[:len(raw)])], None)))


def test_raw_examples_are_prepared_on_the_device_of_the_comparison() -> None:
    seen = []

    def look(raw: Tensor) -> Tensor:
        seen.append(raw.device.type)
        return raw.float().cpu()

    with pytest.raises(NotImplementedError):
        next(iter(Batches(Prepared((tiny.images(4), tiny.labels(4)), look), device=torch.device("meta"))))
    assert seen == ["meta"]
