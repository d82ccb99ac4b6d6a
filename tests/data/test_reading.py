"""Reading that goes wrong: too few examples, none, errors of the user's code, labels of any type."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, get_worker_info

import suture
from suture import SutureError
from suture.data import Batches
from suture.networks.training_recipe import compute_rate_factor
from tests.support.tiny import network

X, Y = torch.rand(12, 2, 8, 8), torch.arange(12) % 3


class Stream(IterableDataset[Any]):
    """Single examples, with an error at one of them."""

    def __init__(self, fails: int | None = None, n: int = 12) -> None:
        self.fails, self.n = fails, n

    def __iter__(self) -> Iterator[Any]:
        for k in range(self.n):
            if k == self.fails:
                raise OSError("the disk is gone")
            yield X[k], int(Y[k])


class Mapped(Dataset[Any]):
    def __init__(self, length: Any = 12, fails: int | None = None, dies: int | None = None) -> None:
        self.length, self.fails, self.dies = length, fails, dies

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        if index == self.fails:
            raise OSError("the disk is gone")
        if index == self.dies and get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return X[index], int(Y[index])


class Ends:
    """One batch, and then what `end` does."""

    def __init__(self, end: type[BaseException]) -> None:
        self.end = end

    def __iter__(self) -> Iterator[Any]:
        yield X, Y
        raise self.end


FEWER = {
    "tensors": lambda: (X, Y), "loader": lambda: DataLoader(TensorDataset(X, Y), 4), "list": lambda: [(X, Y)],
    "Dataset": Mapped, "stream": lambda: DataLoader(Stream(), 4),
    "Paired": lambda: suture.Paired((X, Y), (X, Y)),
    "Prepared": lambda: suture.Prepared((X, Y), None),
}


@pytest.mark.parametrize("data", FEWER)
@pytest.mark.parametrize("run", [suture.compare, suture.dry_run])
def test_more_examples_than_there_are_are_refused(run: Any, data: str) -> None:
    if run is suture.dry_run and data in ("list", "stream", "Paired"):
        return  # whose number nobody knows before a pass
    with pytest.raises(SutureError, match=r"at least 13 examples in data, .* got 12; write examples=12"):
        run(network(), data=FEWER[data](), examples=13, methods=[], device="cpu")


def test_as_many_examples_as_there_are_are_used() -> None:
    assert suture.compare(network(), data=[(X, Y)], examples=12, methods=[], device="cpu").meta["n_fit"] == 12
    with pytest.raises(SutureError, match="got 10"):  # of which the loader drops two
        list(Batches(DataLoader(TensorDataset(X, Y), 5, drop_last=True), most=12, exact=True))
    assert sum(b.size for b in Batches((X, Y), most=13)) == 12


EMPTY = {
    "loader": lambda: DataLoader(TensorDataset(X[:0], Y[:0])), "stream": lambda: DataLoader(Stream(n=0), 4),
    "tuple": tuple, "array": lambda: X[:0].numpy(), "Dataset": lambda: datasets.Dataset.from_list([]),
    "streamed": lambda: datasets.IterableDataset.from_generator(lambda: iter([])),
    "Paired": lambda: suture.Paired([], []),
}


@pytest.mark.parametrize("data", EMPTY)
def test_data_without_examples(data: str) -> None:
    with pytest.raises(SutureError, match=r"at least one example in .*, got none"):
        suture.compare(network(), data=EMPTY[data](), methods=[])


BROKEN = {
    "stream": (lambda: DataLoader(Stream(fails=6), 4),
               "reading batch 1 of data fails: OSError: the disk is gone"),
    "Dataset": (lambda: Mapped(fails=9), "reading batch 2 of data fails: OSError: the disk is gone; correct"),
    "workers": (lambda: DataLoader(Mapped(fails=9), 4, num_workers=1), "batch 2.* OSError: the disk is gone"),
    "a worker that dies": (lambda: DataLoader(Mapped(dies=1), 4, num_workers=1), "exited unexpectedly"),
    "an exit": (lambda: Ends(SystemExit), "reading batch 1 of data fails: SystemExit"),
    "an end": (lambda: Ends(StopIteration), "reading batch 1 of data fails: RuntimeError: generator raised"),
    "a length that is too large": (lambda: Mapped(20), "reading batch 3 of data fails: IndexError"),
    "a negative length": (lambda: Mapped(-1), r"data cannot be counted: ValueError.*correct __len__"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_an_error_of_the_users_data_names_the_batch(case: str) -> None:
    make, words = BROKEN[case]
    with pytest.raises(SutureError, match=words) as error:
        list(Batches(make(), size=4))
    assert "\n" not in str(error.value)


def test_an_interruption_stays_one() -> None:
    with pytest.raises(KeyboardInterrupt):
        list(Batches(Ends(KeyboardInterrupt)))


def test_what_was_finished_before_the_data_broke_is_kept() -> None:
    kept: list[Any] = []

    class Breaks:
        """Data that break after the stage of moments."""

        def __iter__(self) -> Iterator[Any]:
            if kept:
                raise OSError("the disk is gone")
            yield X, Y

    with pytest.raises(SutureError, match="reading batch 0 of data fails"):
        suture.compare(network(), data=Breaks(), methods=["dm"], ood=None, indices=["cka"], device="cpu",
                       on_stage=kept.append)
    assert kept[0].matrix("cka").shape == (2, 2)


def test_a_length_that_is_too_small_is_corrected_by_a_pass() -> None:
    class Lies(list[Any]):
        def __len__(self) -> int:
            return 1

    data = Batches(Lies([(X[:5], Y[:5]), (X[5:], Y[5:])]))
    assert data.count_batches() == 1
    assert [b.size for b in data] == [5, 7]
    assert data.count_batches() == 2
    assert compute_rate_factor("cosine", 15, 10) == pytest.approx(0)


LABELS: dict[str, Any] = {
    "uint64": np.array([0, 2], np.uint64), "tensor of uint64": torch.tensor([0, 2]).to(torch.uint64),
    "int8": np.array([0, 2], np.int8), "Series": pd.Series([0, 2]), "range": range(0, 4, 2),
    "Categorical": pd.Categorical([0, 2]),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_any_whole_type(kind: str) -> None:
    labels = next(iter(Batches([(X[:2], LABELS[kind])]))).labels
    assert labels.dtype == torch.int64
    assert labels.tolist() == [0, 2]


@pytest.mark.parametrize(("given", "words"), [
    (np.array([2**63, 0], np.uint64), r"below 2\*\*63"),
    (torch.full((2,), 2**63, dtype=torch.uint64), "below 2"),
    ([2**63, 0], "labels that are numbers, got list"), ([2**70, 0], "labels that are numbers, got list"),
    ([None, 1], "labels that are numbers"), (np.array(["a", "b"]), "numbers, got an array of <U1"),
    (pd.Series(["a", "b"], dtype="category"), "got Series"),
    (pd.Series([0, None], dtype="Int64"), "got Series"),
])
def test_labels_that_are_no_class_numbers(given: Any, words: str) -> None:
    with pytest.raises(SutureError, match=words):
        next(iter(Batches([(X[:2], given)])))
