"""Inputs gathered from batches."""

from __future__ import annotations

import pytest
import torch

from suture import SutureError
from suture.data import Batch, Batches
from suture.ood.auxiliary import gather_inputs
from tests.support.sequences import TEXTS, collated


def test_a_sample_of_texts_is_padded_to_the_longest() -> None:
    batches = collated(TEXTS, 7)
    made = gather_inputs(Batches(batches), 25)
    assert made["input_ids"].shape == (25, 9)
    assert ([row[m.bool()].tolist() for row, m in zip(made["input_ids"], made["attention_mask"], strict=True)]
            == [t.tolist() for t in TEXTS[:25]])
    # Without a mask nothing says what is padding.
    raw = [Batch(b["input_ids"], b["input_ids"], None) for b, _ in batches]
    taken = gather_inputs(Batches(raw), 25)
    same = [b.target for b in raw if b.target.shape[1] == raw[0].target.shape[1]]
    assert torch.equal(taken, torch.cat(same)[:25])
    with pytest.raises(SutureError, match=r"per example \('T',\) int64 and \('T',\) int64, got \(5,\) int64"):
        gather_inputs(Batches([Batch(torch.ones(2, 5).long(), torch.ones(2, 5).long(), None)]), 2, made)
