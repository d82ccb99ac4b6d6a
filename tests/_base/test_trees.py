"""Nested inputs: converted, counted, and examples that two data sets share."""

from __future__ import annotations

from collections import UserDict, namedtuple
from typing import Any

import pytest
import torch

from suture import SutureError
from suture._base.trees import convert_tensors, count_duplicates, count_examples
from tests.support.inputs import BYTES, IDS, draws, photos_of, sentences

X, Y = torch.arange(20.0).view(10, 2), torch.arange(10)

Point = namedtuple("Point", "x y")


def count_shared(one: Any, other: Any) -> int:
    """Count duplicates of two single batches."""
    return count_duplicates([one], [other])


def test_convert_keeps_the_kind_of_everything() -> None:
    given = {"a": X, "b": (X, [X, "word"]), "c": Point(X, 3)}
    got = convert_tensors(given, lambda t: t + 1)
    assert torch.equal(got["a"], X + 1)
    assert torch.equal(got["b"][1][0], X + 1)
    assert got["b"][1][1] == "word"
    assert isinstance(got["c"], Point)
    assert torch.equal(got["c"].x, X + 1)
    assert torch.equal(X, torch.arange(20.0).view(10, 2))


def test_counting_looks_past_single_numbers() -> None:
    assert count_examples({"scale": torch.tensor(2.0), "x": X}) == 10


def test_duplicates_are_counted_as_a_comparison_of_all_pairs_counts_them() -> None:
    g = draws()
    for shape in ((), (3,), (1, 2)):
        one, other = (torch.randint(0, 3, (n, *shape), generator=g).float() for n in (700, 9))
        pairs = (one[:, None] == other[None]).reshape(700, 9, -1).all(2)
        assert count_shared(one, other) == int(pairs.any(1).sum())
        assert count_shared(other, one) == int(pairs.any(0).sum())


def test_duplicates_across_batches_and_dtypes_and_layouts() -> None:
    x = photos_of(600)
    some = torch.cat([photos_of(600)[100:110] + 1, x[[5, 300, 5]]])
    assert count_shared(some, x) == 3
    for other in (x.split(7), [x], iter(x.split(128)), ({"a": b} for b in x.split(99)), [x.double()],
                  [x.contiguous(memory_format=torch.channels_last)], [x.flip(0)], [UserDict(a=x)]):
        assert count_duplicates([some[:4], some[4:]], other) == 3
    assert count_shared(BYTES, BYTES.float()) == 20
    assert count_shared(BYTES.bfloat16(), BYTES.half()) == 20
    assert count_shared(torch.zeros(2, 3), -torch.zeros(1, 3)) == 2
    assert count_shared(torch.tensor([2**24 + 1, 2**53]), torch.tensor([2**24, 2**53 - 1])) == 0
    assert count_shared(torch.tensor([0.1]).double(), torch.tensor([0.1], dtype=torch.float64)) == 0
    assert count_shared(x, x.transpose(2, 3)) == 0
    assert count_shared(torch.zeros(3, 2, 6), torch.zeros(3, 3, 4)) == 0
    assert count_shared(x[:, :1] * 1j, x[:, :1] * 2j) == 0
    assert count_shared(x[:0], x) == count_duplicates([x], []) == 0


def test_an_example_is_all_of_its_tensors() -> None:
    a, b = sentences(), sentences()
    b["attention_mask"] = b["attention_mask"].clone()
    b["attention_mask"][3] = 0
    assert count_shared(a, b) == 29
    assert count_shared(dict(reversed(a.items())), b) == 29
    assert count_shared((a["input_ids"], IDS.repeat(10, 1)), (a["input_ids"], IDS.repeat(10, 1) + 1)) == 0


def test_what_has_no_examples_to_compare_is_refused() -> None:
    for one, got in ((["text"], "str"), ([3], "int"), ([photos_of(2), None], "NoneType"),
                     ([(IDS, IDS[:2])], "2 and 3 in one"),
                     ([{"a": IDS, "b": torch.tensor(1)}], "0 and 3 in one")):
        with pytest.raises(SutureError,
                           match=f"^expected tensors with the same number of examples, got {got}.*; give"):
            count_duplicates(one, [IDS])
