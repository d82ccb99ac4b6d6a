"""Data without labels, and a target network that fails its own data, from the data to the first line."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import suture
from suture import SutureError
from suture.results import load
from suture.results.standing import find_standing
from suture.results.verdicts import NATIVE
from tests.golden.networks import batches, gpt, images, network, texts
from tests.support.tiny import suture as run_command

HOW: dict[str, Any] = {"device": "cpu", "sites": ["layer3.1"], "indices": (), "methods": ["dm"],
                       "ood": suture.OOD("mahalanobis", most=60, range_examples=24)}
FIT, (X, Y) = images(96), images(48, "test")


@pytest.fixture(scope="module")
def digits():
    return network("digits0")


def compare(digits, data=FIT, test=(X, Y), **options):
    return suture.compare(digits, data=data, test=test, **HOW | options)


@pytest.mark.parametrize("test", [(X, (Y + 1) % 10), (X, Y > 4), (X, Y * 0), (3 * X - 7, Y),
                                  (X[Y == 3].repeat(8, 1, 1, 1), Y[Y == 3].repeat(8))],
                         ids=["permuted", "boolean", "all zero", "normalisation", "one class"])
def test_labels_that_the_target_network_fails_come_first(digits, test, tmp_path):
    made = compare(digits, test=test, ood=suture.OOD((), range_examples=12))
    labels = test[1].long()
    with torch.no_grad():
        predicted = digits(test[0]).argmax(1)
    most = [Counter(of.tolist()).most_common(1)[0][1] for of in (labels, predicted)]
    assert made.meta["chance"] == {"scored": len(labels), "hits": int((labels == predicted).sum()),
                                   "label": most[0], "prediction": most[1], "unit": "examples"}
    first = made.verdict().words[0]
    assert "meaningless" in first
    assert made.meta["notes"][0] == first
    assert set(made.cells().to_numpy().ravel()) == {"unproven"}
    loaded = load(made.save(tmp_path / "saved"))
    assert loaded.verdict().words == made.verdict().words
    assert loaded.cells("dm", "reason").equals(made.cells("dm", "reason"))


def test_boolean_labels_of_ten_classes_come_first(digits):
    """If the data to fit have them too, they are no labels of this network."""
    made = compare(digits, (FIT[0], FIT[1] > 4), (X, Y > 4))
    assert "beyond the last label, 1" in made.verdict().words[0]


def test_a_sound_network_has_no_first_line(digits):
    made = compare(digits)
    assert (made.verdict().first, made.meta["notes"]) == ("", [])
    assert made.cells().iloc[0, 0] == "similar"
    assert made.meta["chance"]["hits"] == 48 * made.meta["target_accuracy"]


@pytest.mark.parametrize(("fit", "test"), [
    (FIT, [(X,)]), ([FIT[:1]], [X]), (FIT, (X, torch.full_like(Y, -1))),
    (FIT, (X, torch.full_like(Y, -100)))],
    ids=["fit labels", "bare", "-1", "-100"])
def test_without_test_labels_a_layer_is_like_itself_by_agreement(digits, fit, test):
    made = compare(digits, fit, test)
    assert made.cells().iloc[0, 0] == "similar"
    assert "agreement 1.00" in made.cells("dm", "reason").iloc[0, 0]
    assert "no labels" in made.verdict().words[0]
    assert set(made.meta["chance"]) == {"scored", "prediction", "unit"}


@pytest.mark.parametrize("shape", [(5,), (1, 40)], ids=["embeddings", "audio"])
def test_native_representations_need_no_detector(shape):
    """For such inputs no auxiliary data are made, so nothing else is proven."""
    torch.manual_seed(0)
    made = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 12), nn.ReLU(), nn.Linear(12, 12),
                         nn.ReLU(), nn.Linear(12, 6))
    found = suture.compare(made, data=[torch.randn(60, *shape)], test=[torch.randn(8, *shape)],
                           **HOW | {"sites": ["1", "3"], "ood": "mahalanobis"})
    assert np.diag(found.cells()).tolist() == ["similar"] * 2
    assert np.diag(found.cells("dm", "reason")).tolist() == [NATIVE] * 2
    assert found.cells().iloc[1, 0] in ("unproven", "dissimilar")


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_without_predictions_a_layer_is_like_itself_by_its_output(offset):
    """Beside an offset of 100 the error of every output is small, that of the mean output too."""
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 6))
    with torch.no_grad():
        made[4].bias += offset
    x = torch.randn(60, 6)
    found = suture.compare(made, data=[x], test=[x], **HOW | {"sites": ["0", "2"], "task": "none"})
    outputs = made(x).detach().double()
    error = float(((outputs - outputs.mean(0)).square().sum() / outputs.square().sum()).sqrt())
    assert find_standing(found).criteria["dm"].trivial == pytest.approx(error, rel=1e-3)
    assert "relative error of the output of at most 0.2" in found.verdict().words[0]
    assert ("constant output" in found.verdict().words[0]) == (offset > 0)
    assert np.diag(found.cells()).tolist() == ["similar"] * 2


def test_labels_in_the_test_data_alone_are_enough(digits):
    made = compare(digits, [FIT[:1]])
    assert "relative accuracy 1.00" in made.cells("dm", "reason").iloc[0, 0]


@pytest.mark.parametrize(("test", "match"), [
    ((X, Y + 1), "got 10 .count classes from 0"), ((X, torch.where(Y == 3, -1, Y)), "got -1 .leave out"),
    ([(X[:24], Y[:24]), (X[24:], None)], "in every batch"),
    ([(X[:24], Y[:24]), (X[24:], torch.full_like(Y[24:], -1))], "in every batch"),
    ([(X, [str(y) for y in Y])], "numbers"), ((X, torch.nn.functional.one_hot(Y)), r"labels \(N,\)")])
def test_labels_that_are_no_class_numbers_are_refused(digits, test, match):
    with pytest.raises(SutureError, match=match):
        compare(digits, test=test)


def test_task_loss_matching_says_which_labels_it_trains_on(digits):
    wrong, how = (FIT[0], (FIT[1] + 3) % 10), HOW | {"methods": ["tlm"], "tlm": suture.TaskRecipe(epochs=1)}
    made = suture.compare(digits, data=wrong, test=(X, Y), **how)
    assert "at chance on the first labels" in made.verdict().words[0]
    assert made.meta["notes"][0] == made.meta["warning"] == suture.dry_run(digits, data=wrong, **how).warning
    # Sorted data begin with one class, which tells nothing.
    one = FIT[1] == 3
    for data in (FIT, (FIT[0][one], FIT[1][one])):
        assert suture.dry_run(digits, data=data, **how).warning == ""
    with pytest.raises(SutureError, match="objective='soft'"):
        suture.compare(digits, data=[FIT[:1]], test=(X, Y), **how)


def test_tokens_are_counted_without_padding():
    """Random weights: the next token is right as often as by chance."""
    some, model = texts(24, 1), gpt().eval()
    made = suture.compare(model, data=batches(texts(24, 0)), test=batches(some), device="cpu", methods=["dm"],
                          indices=(), ood=suture.OOD((), range_examples=10))
    ids, mask = some["input_ids"], some["attention_mask"].bool()
    with torch.no_grad():
        predicted = model(**some).logits.argmax(2)
    wanted, guessed = ([int(t) for row, own in zip(of, mask, strict=True) for t in row[own[1:]]]
                       for of in (ids[:, 1:], predicted[:, :-1]))
    hits = sum(a == b for a, b in zip(wanted, guessed, strict=True))
    assert made.meta["chance"] == {
        "scored": len(wanted), "hits": hits, "label": max(Counter(wanted).values()),
        "prediction": max(Counter(guessed).values()), "unit": "tokens"}
    assert "most frequent token" in made.verdict().words[0]


def test_a_stitched_network_of_a_target_at_chance(digits, monkeypatch, capsys, tmp_path):
    made = suture.stitch(digits, "layer3.1", digits, "layer3.1", FIT, device="cpu")
    assert made.accuracy((X, Y)).flaw == ""
    assert "at chance" in made.accuracy((X, (Y + 1) % 10)).flaw
    net = "tests.support.tiny:network"
    code, out, _ = run_command(monkeypatch, capsys, "stitch", net, "block1", net, "block2", "--data",
                               "tests.support.tiny:data", "--out", tmp_path / "a.safetensors")
    assert (code, "chance" in out) == (0, True)
