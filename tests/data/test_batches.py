"""Data as it comes: every kind of it, or two loaders in step, without losing or mixing examples."""

from __future__ import annotations

from collections import UserDict
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, SubsetRandomSampler, TensorDataset

from suture import Paired, Prepared, SutureError
from suture._base import count_examples, list_tensors
from suture.data import cut_batch, indexed
from suture.data.batches import Batches
from suture.data.forms import split_labels
from suture.data.indexed import split_rows

X, Y = torch.arange(20.0).view(10, 2), torch.arange(10)


class Mapped(Dataset[Any]):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return X[index], int(Y[index])


class Named(Mapped):
    def __getitem__(self, index: int) -> Any:
        return {"pixels": X[index], "label": int(Y[index])}


def _read(batches: Any) -> tuple[list[int], Tensor, Tensor]:
    """Sizes, inputs and labels of one pass."""
    found = list(batches)
    return [b.size for b in found], torch.cat([b.source for b in found]), torch.cat([b.labels for b in found])


KINDS = {
    "tensors": (lambda: (X, Y), [4, 4, 2]), "two tensors in a list": (lambda: [X, Y], [4, 4, 2]),
    "tensor dataset": (lambda: TensorDataset(X, Y), [4, 4, 2]), "dataset": (Mapped, [4, 4, 2]),
    "loader": (lambda: DataLoader(Mapped(), batch_size=3), [3, 3, 3, 1]),
    "loader that drops": (lambda: DataLoader(Mapped(), batch_size=3, drop_last=True), [3, 3, 3]),
    "list of pairs": (lambda: [(X[:7], Y[:7]), [X[7:], Y[7:].tolist()]], [7, 3]),
    "an empty batch among others": (lambda: [(X[:7], Y[:7]), (X[:0], Y[:0]), (X[7:], Y[7:])], [7, 3]),
}


@pytest.mark.parametrize("most", [None, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_a_pass_goes_on_after_its_first_batches(kind: str, most: int | None) -> None:
    batches = Batches(KINDS[kind][0](), size=4, most=most, shuffle=True)
    start = None if batches.order is None else batches.order.get_state()
    whole = [b.labels.tolist() for b in batches]
    for first in range(len(whole) + 1):
        if batches.order is not None:
            batches.order.set_state(start)
        assert [b.labels.tolist() for b in batches.iterate(first)] == whole[first:]
        assert most is not None or batches.count_batches() == len(whole)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_data_is_read_whole_in_order_and_again(kind: str) -> None:
    make, sizes = KINDS[kind]
    batches = Batches(make(), size=4)
    for _ in range(2):
        got, inputs, labels = _read(batches)
        assert got == sizes
        assert torch.equal(inputs, X[:sum(sizes)])
        assert torch.equal(labels, Y[:sum(sizes)])
        assert labels.dtype == torch.int64


def test_inputs_are_shared_by_both_networks() -> None:
    batch = next(iter(Batches((X, Y))))
    assert batch.source is batch.target


@pytest.mark.parametrize("data",
                         [TensorDataset(X), [X[:4], X[4:]], [(X,)], [{"x": X}], DataLoader(TensorDataset(X))])
def test_data_without_labels(data: Any) -> None:
    found = list(Batches(data))
    assert all(b.labels is None for b in found)
    assert torch.equal(torch.cat([next(list_tensors(b.source)) for b in found]), X)


def test_a_list_of_two_unlabelled_batches_stays_two() -> None:
    assert [b.size for b in Batches([X, X])] == [10, 10]
    assert [b.size for b in Batches([Y, Y])] == [10, 10]


@pytest.mark.parametrize("name", ["label", "labels"])
@pytest.mark.parametrize("kind", [dict, UserDict])
def test_mappings_give_their_labels_away(name: str, kind: type) -> None:
    inputs, labels = split_labels(kind({"a": X, name: Y, "b": X + 1}))
    assert list(inputs) == ["a", "b"]
    assert torch.equal(labels, Y)


def test_a_dataset_of_dictionaries() -> None:
    batch = list(Batches(Named(), size=6))[1]
    assert list(batch.source) == ["pixels"]
    assert torch.equal(batch.source["pixels"], X[6:])
    assert torch.equal(batch.labels, Y[6:])


@pytest.mark.parametrize("given", [torch.tensor([1, 0, 1], dtype=torch.int32), [True, False, True],
                                   torch.tensor([1, 0, 1], dtype=torch.uint8)])
def test_whole_labels_become_int64(given: Any) -> None:
    labels = split_labels((X[:3], given))[1]
    assert labels.dtype == torch.int64
    assert labels.tolist() == [1, 0, 1]


def test_none_beside_inputs_is_no_label() -> None:
    assert split_labels((X, None))[1] is None


def test_labels_that_are_fractions_are_not_rounded() -> None:
    assert split_labels((X[:2], torch.tensor([0.5, 1.0])))[1].tolist() == [0.5, 1.0]


@pytest.mark.parametrize(("make", "words"), [
    (lambda: Batches((X, Y), size=0), "at least 1"),
    (lambda: Batches((X, Y[:4])), "as many labels as inputs"),
    (lambda: Batches((X, torch.tensor(1))), "as many labels as inputs"),
    (lambda: Batches(iter([(X, Y)])), "read more than once, got list_iterator"),
    (lambda: Batches(zip([X], [Y], strict=True)), "read more than once, got zip"),
    (lambda: Batches(5), "read more than once, got int"),
    (lambda: Batches(TensorDataset(X[:0], Y[:0])), "got none"), (lambda: list(Batches([])), "got none"),
    (lambda: list(Batches([(X[:0], Y[:0])], name="mine")), "in mine, got none"),
    (lambda: list(Batches([(X, Y[:4])])), "got 4 labels for 10 inputs"),
    (lambda: list(Batches("ab")), "got str"), (lambda: list(Batches(TensorDataset(X, Y, Y))), "got list"),
    (lambda: list(Batches([(X, X, Y)])), "got tuple"), (lambda: list(Batches([(X[0], 3)])), "single example"),
    (lambda: split_labels((X, ["a"])), "labels that are numbers"),
    (lambda: split_labels((X, "ab")), "labels that are numbers"),
    (lambda: count_examples("words"), "expected a tensor among"),
    (lambda: count_examples({"a": torch.tensor(3)}), "first axis"),
    (lambda: Paired(iter([]), [(X, Y)]), "source loader"),
    (lambda: Paired([(X, Y)], iter([])), "target loader"),
])
def test_what_is_refused(make: Any, words: str) -> None:
    with pytest.raises(SutureError, match=words) as error:
        make()
    assert "\n" not in str(error.value)


# -- order ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("data", [(X, Y), Mapped()], ids=["tensors", "dataset"])
def test_shuffling_draws_a_new_order_in_every_pass_and_the_same_for_the_same_seed(data: Any) -> None:
    def orders(seed: int) -> list[list[int]]:
        batches = Batches(data, size=4, shuffle=True, seed=seed)
        passes = [_read(batches) for _ in range(3)]
        assert all(torch.equal(x[:, 0], 2.0 * y) for _, x, y in passes)
        return [y.tolist() for _, _, y in passes]

    first = orders(1)
    assert all(sorted(o) == list(range(10)) for o in first)
    assert len({tuple(o) for o in first}) == 3
    assert first == orders(1)
    assert first != orders(2)


def test_shuffling_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    list(Batches((X, Y), shuffle=True))
    list(Batches(Mapped(), shuffle=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_number_of_batches_where_it_is_known() -> None:
    assert Batches((X, Y), size=4).count_batches() == 3
    assert Batches(DataLoader(Mapped(), batch_size=5)).count_batches() == 2
    assert Batches(Paired([(X, Y)], [(X, Y)])).count_batches() == 1

    class Endless:
        def __iter__(self) -> Any:
            return iter([(X, Y)])

    assert Batches(Endless()).count_batches() is None
    assert Batches(Paired(Endless(), Endless())).count_batches() is None


# -- some of the examples ------------------------------------------------------------------------------------

@pytest.mark.parametrize("make", [lambda: (X, Y), lambda: [X, Y], lambda: TensorDataset(X, Y), Mapped])
def test_rows_are_read_alone_in_their_order_or_shuffled(make: Any) -> None:
    rows = torch.tensor([7, 2, 3, 9, 0])
    sizes, inputs, labels = _read(Batches(make(), size=2, rows=rows))
    assert sizes == [2, 2, 1]
    assert torch.equal(labels, rows)
    assert torch.equal(inputs, X[rows])
    shuffled = Batches(make(), size=2, rows=rows, shuffle=True, seed=3)
    assert len(shuffled) == 3
    first, second = _read(shuffled)[2], _read(shuffled)[2]
    assert torch.equal(first.sort().values, rows.sort().values)
    assert not torch.equal(first, second)


def test_all_rows_shuffled_are_what_they_are_without_rows() -> None:
    plain, chosen = (Batches((X, Y), size=4, shuffle=True, seed=1, rows=rows)
                     for rows in (None, torch.arange(10)))
    for _ in range(2):
        assert torch.equal(_read(plain)[2], _read(chosen)[2])


def test_rows_of_a_loader_are_refused() -> None:
    with pytest.raises(SutureError, match=r"can be split, got list; pass a Dataset or \(inputs, labels\)"):
        Batches([(X, Y)], rows=torch.arange(2))


@pytest.mark.parametrize("make", [lambda: (X, Y), lambda: [X, Y], lambda: TensorDataset(X, Y), Mapped])
def test_a_split_is_random_complete_and_disjoint(make: Any) -> None:
    found = split_rows(make(), 0.3, 5)
    assert found is not None
    mine, theirs = found
    assert (len(mine), len(theirs)) == (7, 3)
    assert torch.equal(torch.cat(found).sort().values, torch.arange(10))
    again, other = split_rows(make(), 0.3, 5), split_rows(make(), 0.3, 6)
    assert again is not None
    assert other is not None
    assert torch.equal(again[1], theirs)
    assert not torch.equal(other[1], theirs)


@pytest.mark.parametrize(("n", "share", "held"), [(2, 0.001, 1), (2, 0.999, 1), (10, 0.1, 1), (10, 0.26, 3)])
def test_both_parts_of_a_split_have_an_example(n: int, share: float, held: int) -> None:
    found = split_rows((X[:n], Y[:n]), share, 0)
    assert found is not None
    assert [len(part) for part in found] == [n - held, held]


@pytest.mark.parametrize("make", [
    lambda: DataLoader(Mapped()), lambda: [(X, Y)], lambda: iter([(X, Y)]), lambda: Paired((X, Y), (X, Y))])
def test_what_has_no_index_cannot_be_split(make: Any) -> None:
    assert split_rows(make(), 0.5, 0) is None


def test_one_example_cannot_be_split() -> None:
    with pytest.raises(SutureError, match="at least two examples, to hold some out, got 1"):
        split_rows((X[:1], Y[:1]), 0.5, 0)


def test_pairs_are_read_in_step_and_again() -> None:
    paired = Batches(Paired(DataLoader(TensorDataset(X, Y), batch_size=4), (X + 100, Y)))
    with pytest.raises(SutureError, match="got 4 and 10 examples in batch 0"):
        list(paired)
    paired = Batches(Paired(DataLoader(TensorDataset(X, Y), batch_size=4),
                            DataLoader(TensorDataset(X + 100, Y), batch_size=4)))
    for _ in range(2):
        found = list(paired)
        assert [b.size for b in found] == [4, 4, 2]
        assert all(torch.equal(b.source + 100, b.target) for b in found)
        assert torch.equal(torch.cat([b.labels for b in found]), Y)


def test_a_shuffled_loader_cannot_be_paired() -> None:
    def loader(seed: int, shuffle: bool) -> DataLoader[Any]:
        return DataLoader(TensorDataset(X, Y), batch_size=4, shuffle=shuffle,
                          generator=torch.Generator().manual_seed(seed))

    with pytest.raises(SutureError, match=r"labels of the two loaders differ in batch 0.*shuffle=False"):
        list(Paired(loader(0, False), loader(0, True)))
    with pytest.raises(SutureError, match="do not correspond"):
        list(Paired(loader(1, True), loader(2, True)))


@pytest.mark.parametrize("short", ["source", "target"])
def test_one_that_ends_early_is_named(short: str) -> None:
    sides = {"source": [(X, Y)] * 2, "target": [(X, Y)] * 2, short: [(X, Y)]}
    with pytest.raises(SutureError, match=f"the {short} loader ended after 1 batches"):
        list(Paired(**sides))


@pytest.mark.parametrize("side", ["source", "target"])
def test_one_side_may_lack_labels(side: str) -> None:
    sides = {"source": [(X, Y)], "target": [(X, Y)], side: [X]}
    assert torch.equal(next(iter(Paired(**sides))).labels, Y)


class OwnBatches(BatchSampler):
    """Batches of the first examples only, each of them twice."""

    def __iter__(self) -> Any:
        return iter([[0, 1, 2]] * 2)


@pytest.mark.parametrize(("loader", "count"), [
    (DataLoader(Mapped(), batch_size=3), 10), (DataLoader(Mapped(), batch_size=3, drop_last=True), 9),
    (DataLoader(Mapped(), batch_sampler=BatchSampler(range(7), 3, drop_last=False)), 7),  # type: ignore[arg-type]
    (DataLoader(Mapped(), batch_sampler=OwnBatches(range(10), 3, drop_last=False)), None),  # type: ignore[arg-type]
    (DataLoader(Mapped(), batch_sampler=[[0, 1], [2]]), None), (DataLoader(Mapped(), batch_size=None), None),
    (DataLoader(Mapped(), sampler=SubsetRandomSampler([1, 2])), 2), ([(X, Y)], None)])
def test_a_loader_is_counted_by_what_it_yields(loader: Any, count: int | None) -> None:
    batches = Batches(loader)
    assert batches.count_examples() == count
    assert Batches(loader, most=2).count_examples() == (None if count is None else 2)
    if count is not None:
        assert sum(b.size for b in batches) == count


@pytest.mark.parametrize("raw", [
    torch.arange(20, dtype=torch.uint8).view(5, 4), [f"text {k}" for k in range(5)],
    {"image": torch.rand(5, 3), "words": [f"text {k}" for k in range(5)]}])
def test_a_batch_that_is_cut_keeps_its_raw_examples(raw: Any) -> None:
    def take(part: Any, rows: slice) -> Any:
        return {k: v[rows] for k, v in part.items()} if isinstance(part, dict) else part[rows]

    def prepare(raw: Any) -> Tensor:
        return X[:len(raw["words"] if isinstance(raw, dict) else raw)]

    whole = Prepared([], prepare).batch(raw, Y[:5])
    for piece, rows in zip(cut_batch(whole, 2), (slice(0, 2), slice(2, 4), slice(4, 5)), strict=True):
        assert str(piece.raw) == str(take(raw, rows))
        assert piece.remake is not None
        assert torch.equal(piece.remake(piece.raw, piece.labels).source, X[:piece.size])
    first, short = (Batches([(one, Y[:n])], watched=True, most=2) for one, n in
                    ((raw, 5), (take(raw, slice(0, 2)), 2)))
    for one in (first, short):
        one._prepared = Prepared([], prepare)
    assert first.read_again() == short.read_again()


@pytest.mark.parametrize("make", [lambda x, y: (x, y), lambda x, y: [x, y], lambda x, y: x,
                                  lambda x, y: {"a": x, "labels": y}])
def test_arrays_are_converted_batch_by_batch(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    convert = indexed.convert_array
    monkeypatch.setattr(indexed, "convert_array", lambda given: (sizes.append(len(given)), convert(given))[1])
    data = make(X.double().numpy()[::-1], Y.numpy().astype(np.uint16))
    assert indexed.can_shuffle(data)
    assert set(sizes) == {0}
    batches = list(Batches(data, size=4))
    assert max(sizes) == 4
    found = torch.cat([next(list_tensors(b.source)) for b in batches])
    assert torch.equal(found, X.flip(0))
    assert found.dtype == torch.float32


class Fails(Mapped):
    def __init__(self, error: BaseException, first: int = 0) -> None:
        self.error, self.first = error, first

    def __getitem__(self, index: int) -> Any:
        if index >= self.first:
            raise self.error
        return super().__getitem__(index)


@pytest.mark.parametrize(("error", "words"), [
    (MemoryError("no space"), "memory ran out while batch 1 of mine was read; give smaller batches"),
    (RuntimeError("CUDA out of memory. Tried"), "memory ran out while batch 1"),
    (OSError("disk gone"), "reading batch 1 of mine fails: OSError: disk gone"),
    (SystemExit(3), "reading batch 1 of mine fails: SystemExit: 3")])
@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_reading_is_one_line_with_its_batch(error: BaseException, words: str,
                                                        workers: int) -> None:
    if workers and isinstance(error, SystemExit):
        words = "of mine fails"  # the worker has ended without a word
    loader = DataLoader(Fails(error, 5), batch_size=5, num_workers=workers)
    with pytest.raises(SutureError, match=words):
        list(Batches(loader, name="mine"))


@pytest.mark.parametrize("data", [
    Fails(OSError("gone")), DataLoader(Fails(OSError("gone"))),
    Paired(DataLoader(Fails(OSError("gone"))), [X]), Prepared(Fails(OSError("gone")), None)])
def test_trying_a_few_examples_fails_in_one_line(data: Any) -> None:
    with pytest.raises(SutureError, match=r"reading a few examples of .* fails"):
        Batches(data).is_random()
