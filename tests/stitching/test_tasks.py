"""The task of a network: logits, scored rows, labels, and its inference."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import suture
from suture import SutureError, TaskRecipe
from suture.data.batches import Batches
from suture.networks.sites import SitedNetwork
from suture.representations.alignment import Alignment
from suture.stitching import StitchingLayer, resolve_output
from suture.stitching.tasks import IGNORED_LABEL, ScoredRows, Task, find_token_ids
from suture.stitching.trainer import GroupTrainer
from tests.support.languages import (
    ALIGNED,
    CPU,
    IDS,
    INPUTS,
    MASK,
    RECIPE,
    SHAPE,
    Language,
    Pooled,
    T,
    V,
    made,
    slow_rows,
    stream,
    texts,
    wanted_labels,
)


def test_token_ids_are_found_among_the_inputs() -> None:
    images = torch.rand(4, 3, 5, 5)
    assert find_token_ids({"attention_mask": MASK, "other": IDS}) is IDS
    assert find_token_ids((images, IDS)) is IDS
    assert find_token_ids({"pixel_values": images, "mask": MASK.bool()}) is None


# -- which tokens count --------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("task", [Task.NEXT_TOKEN, Task.TOKENS])
def test_rows_are_those_of_a_loop_over_texts(task: Task, given: bool, left: bool) -> None:
    some = texts()
    labels = wanted_labels(some) if given or task is Task.TOKENS else None
    whole = stream(some, 15, 99, labels)[0]
    if left:
        whole = {k: v.flip(1) for k, v in whole.items()}
        some = [t.flip(0) for t in some]
        labels = labels and [y.flip(0) for y in labels]
    rows = task.find_rows({k: v for k, v in whole.items() if k != "labels"}, whole.get("labels"))
    slow = [slow_rows(task, t, None if labels is None else y)
            for t, y in zip(some, labels or some, strict=True)]
    assert rows.labels.tolist() == [y for each in slow for _, y in each]
    assert rows.tokens.tolist() == [len(each) for each in slow]
    start = [15 - len(t) if left else 0 for t in some]
    assert rows.counted.nonzero().tolist() == [[n, start[n] + t] for n, each in enumerate(slow)
                                               for t, _ in each]
    logits = torch.rand(2 * len(some), 15, 4)
    assert torch.equal(rows.select(logits), torch.cat([half[rows.counted] for half in logits.chunk(2)]))
    sums = rows.sum_per_example(rows.select(logits).view(2, rows.count, 4).sum(2))
    torch.testing.assert_close(sums, (logits.sum(2).view(2, -1, 15) * rows.counted).sum(2))


# -- training ------------------------------------------------------------------------------------------------


def trained(network: Language, task: Task, recipe: TaskRecipe, cells: list[tuple[int, int]],
            micro: int = 10_000, length: int = T, size: int = 8) -> tuple[dict[Any, StitchingLayer], Any]:
    some, dtype = texts(), network.head.weight.dtype
    data = stream(some, length, size, wanted_labels(some) if task is Task.TOKENS else None)
    sited = SitedNetwork(network.requires_grad_(False), {k: v for k, v in data[0].items() if k != "labels"})
    layers = {(i, j): StitchingLayer(Alignment(sited.shapes[i], sited.shapes[j])).init_random(10 * i + j)
              .to(dtype) for i, j in cells}
    return layers, GroupTrainer(sited, sited, layers, recipe, micro, task).fit(Batches(data), CPU)


@pytest.mark.parametrize("objective", ["hard", "soft", "mixed"])
@pytest.mark.parametrize("task", [Task.NEXT_TOKEN, Task.TOKENS])
def test_a_step_follows_the_mean_over_the_tokens_of_the_batch(task: Task, objective: Any) -> None:
    network, some = made(task is Task.NEXT_TOKEN), texts()
    recipe = TaskRecipe(epochs=1, objective=objective, temperature=2.0, mix=0.3, optimizer="sgd", lr=0.1,
                        weight_decay=0)
    for micro in (4, 10_000):
        layers, curves = trained(network, task, recipe, [(0, 1)], micro, size=99)
        start = StitchingLayer(layers[0, 1].alignment).init_random(1)
        losses, hits = [], []
        labels = wanted_labels(some) if task is Task.TOKENS else some
        for ids, says in zip(some, labels, strict=True):
            reps, kept = network.representations(ids), torch.ones(1, len(ids)).bool()
            out = network.behind(1, start(reps[0][None]), kept)["logits"][0]
            own = network.behind(1, reps[1][None], kept)["logits"][0]
            for t, y in slow_rows(task, ids, says):
                hits.append(int(out[t].argmax()) == y)
                hard = -out[t].log_softmax(0)[y]
                p, q = (own[t] / 2).log_softmax(0), (out[t] / 2).log_softmax(0)
                soft = 4 * (p.exp() * (p - q)).sum()
                losses.append({"hard": hard, "soft": soft, "mixed": 0.3 * soft + 0.7 * hard}[objective])
        loss = torch.stack(losses).mean()
        loss.backward()
        assert curves.loss[0, 1] == [pytest.approx(float(loss.detach()), rel=1e-4)]
        assert curves.accuracy[0, 1] == [pytest.approx(np.mean(hits))]
        for p, end in zip(start.parameters(), layers[0, 1].parameters(), strict=True):
            # Nesterov's first step
            torch.testing.assert_close(end, p - 0.1 * 1.9 * p.grad, rtol=1e-4, atol=1e-6)


def test_grouped_training_on_tokens_equals_training_alone_and_padding_does_not_matter() -> None:
    # In float64, as in tests/stitching/test_trainer.py: rounding, which grouping changes, grows under Adam.
    recipe, cells = TaskRecipe(epochs=4, lr=1e-2), list(product(range(3), repeat=2))

    def weights(some: list[tuple[int, int]], **options: Any) -> dict[Any, Tensor]:
        layers, _ = trained(made().double(), Task.NEXT_TOKEN, recipe, some, **options)
        return {c: m.weight.detach() for c, m in layers.items()}

    whole, longer = weights(cells, micro=5), weights(cells, length=19)
    for c in ((0, 2), (2, 0)):
        alone, start = (weights([c])[c],
                        StitchingLayer(Alignment(*[SHAPE] * 2)).init_random(10 * c[0] + c[1]).weight)
        assert float((alone - start.detach()).norm()) > 0.02 * float(start.detach().norm())
        for other in (whole[c], longer[c]):
            assert float((other - alone).norm()) <= 1e-5 * float(alone.norm())


# -- bad input -----------------------------------------------------------------------------------------------


def test_inputs_that_are_no_ids_have_no_next_token() -> None:
    with pytest.raises(SutureError, match=r"token ids .*task='next_token', got none"):
        Task.NEXT_TOKEN.find_rows({"inputs_embeds": torch.rand(2, 3, 4)}, None)


def test_a_row_for_each_example_leaves_logits_as_they_are() -> None:
    logits = torch.rand(6, 3)
    rows = ScoredRows(3, None, torch.arange(3))
    assert rows.select(logits) is logits
    assert (rows.count, rows.tokens) == (3, None)
    with pytest.raises(SutureError, match="label for each of the 5 positions of the logits, got 4"):
        ScoredRows(2, torch.ones(2, 4).bool(), None).select(torch.rand(2, 5, 3))


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
    assert resolve_output(network(), INPUTS, labels).task.value == task


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
        resolve_output(network(), inputs, labels)
    assert "\n" not in str(error.value)


def test_a_padded_vocabulary_that_is_switched_off_is_causal_all_the_same() -> None:
    network = made()
    network.head.register_forward_hook(lambda m, a, out: out.index_fill(2, torch.tensor([V - 1]), -torch.inf))
    assert resolve_output(network, INPUTS, None).task is Task.NEXT_TOKEN


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
     "scored tokens in the data"),
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
