"""A batch, moved to a device and cut into pieces."""

from __future__ import annotations

import pytest
import torch

from suture.data.batch import Batch, cut_batch, move_batch

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
