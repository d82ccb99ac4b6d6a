"""Which task a network and its labels mean, and what is asked for where that cannot be told."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import suture
from suture import SutureError
from suture.stitching.tasks import IGNORED_LABEL, Task, resolve_task
from tests.support.languages import ALIGNED, IDS, INPUTS, MASK, RECIPE, Pooled, V, made

# -- which task it is ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("network", "labels", "task"), [
    (lambda: made(), None, "next_token"), (lambda: made(named=False), None, "next_token"),
    (lambda: made(), IDS, "next_token"), (lambda: made(), torch.arange(4), "next_token"),
    (lambda: made(causal=False), ALIGNED, "tokens"),
    (lambda: made(causal=False, named=False), ALIGNED, "tokens"),
    # A causal network that names entities: fewer outputs than there are ids.
    (lambda: made(outputs=4), ALIGNED, "tokens"),
    (lambda: made(outputs=4, causal=False, named=False), ALIGNED, "tokens"),
    (lambda: made(outputs=20), None, "next_token"),
    (lambda: made(outputs=None, named=False), None, "none"),
    (lambda: made(False, outputs=None, named=False), None, "none"),
    (lambda: made(outputs=5, named=False), torch.arange(4), "none"),
    (lambda: Pooled().eval(), torch.arange(4), "classification"),
    (lambda: Pooled().eval(), None, "classification"),
])
def test_the_task_is_read_off_the_output(network: Any, labels: Tensor | None, task: str) -> None:
    assert resolve_task("auto", network(), INPUTS, labels).value == task


@pytest.mark.parametrize(("network", "inputs", "labels", "words"), [
    (lambda: made(False), INPUTS, None, r"labels \(N, T\) for task='tokens', got none"),
    (lambda: made(False), INPUTS, torch.arange(4), r"labels \(N, T\) .*'tokens', got int64 of shape \(4,\)"),
    (lambda: made(outputs=20), INPUTS, IDS, "of the same or of the next token.*20 outputs and 13 embeddings"),
    (lambda: made(), {"input_ids": IDS[:, :1]}, None, "fewer than two tokens; write task="),
    (lambda: made(), INPUTS, IDS[:, :4], "label for each of the 6 positions of the logits, got 4"),
])
def test_what_cannot_be_told_is_asked_for(network: Any, inputs: Any, labels: Tensor | None,
                                          words: str) -> None:
    with pytest.raises(SutureError, match=words) as error:
        resolve_task("auto", network(), inputs, labels)
    assert "\n" not in str(error.value)


def test_a_padded_vocabulary_that_is_switched_off_is_causal_all_the_same() -> None:
    network = made()
    network.head.register_forward_hook(lambda m, a, out: out.index_fill(2, torch.tensor([V - 1]), -torch.inf))
    assert resolve_task("auto", network, INPUTS, None) is Task.NEXT_TOKEN


# -- bad input -----------------------------------------------------------------------------------------------


def batch(**changes: Any) -> list[Any]:
    return [{"input_ids": IDS, "attention_mask": MASK} | changes]


OUTSIDE = ALIGNED.clone()
OUTSIDE[2, 0] = 99
AWAY = IDS.clone()
AWAY[1, 1] = 77
NONE = torch.full_like(ALIGNED, IGNORED_LABEL)


@pytest.mark.parametrize(("causal", "options", "words"), [
    (False, {"data": batch(labels=OUTSIDE), "test": batch(labels=ALIGNED), "on_stage": pytest.fail},
     r"labels from 0 to 12, got 99"),
    (False, {"data": batch(labels=ALIGNED), "test": batch(labels=OUTSIDE)}, "labels from 0 to 12, got 99"),
    (False, {"data": batch(labels=ALIGNED), "test": batch()}, r"labels \(N, T\) for task='tokens', got none"),
    (False, {"data": batch(labels=ALIGNED), "test": batch(labels=NONE)},
     "test data hold no scored token"),
    (False, {"data": batch(labels=NONE), "test": batch(labels=ALIGNED)},
     "scored tokens in the fitting data"),
    (False, {"data": batch(labels=ALIGNED.float())},
     r"integer labels \(N, T\), got float32 of shape \(4, 6\)"),
    (True, {"data": batch(), "task": "tokens"}, r"labels \(N, T\) for task='tokens', got none"),
    (True, {"data": batch(), "task": "classification"},
     r"logits \(N, classes\) .*of shape \(4, 6, 13\)"),
    (True, {"data": batch(labels=IDS[:, :3])}, "label for each of the 6 positions of the logits, got 3"),
    (True, {"data": batch() + batch(input_ids=AWAY)},
     "fails on batch 1 of the data.*out of range.*token ids below"),
    (True, {"data": batch(), "test": batch() + batch(input_ids=AWAY)},
     "fails on the test data: index out of range"),
    (True, {"data": batch(attention_mask=0 * MASK)}, "fewer than two tokens|scored tokens"),
    (True, {"data": batch(), "ood": suture.OOD(("energy",))},
     "detector energy.*next_token.*leave energy"),
])
def test_bad_input_is_refused_in_one_line(causal: bool, options: dict[str, Any], words: str) -> None:
    with pytest.raises(SutureError, match=words) as error:
        suture.compare(made(causal), **({"tlm": RECIPE, "device": "cpu", "ood": None} | options))
    assert "\n" not in str(error.value)


def test_logits_of_examples_are_no_logits_of_tokens() -> None:
    with pytest.raises(SutureError,
                       match=r"logits \(N, T, vocabulary\) .*got float32 of shape \(4, 13\)"):
        suture.compare(Pooled().eval(), data=batch(labels=torch.arange(4)), task="next_token", device="cpu")
