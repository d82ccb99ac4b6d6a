"""Functional indices from logits against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from suture._base.errors import SutureError
from suture.indices.logits import of_logits


def softmax(row):
    shifted = [math.exp(v - max(row)) for v in row]
    return [v / sum(shifted) for v in shifted]


def divergence(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def logits():
    """Of 40 examples and 5 classes; the source is right on most of them, the target on fewer."""
    rng = np.random.default_rng(3)
    source = 3 * rng.normal(size=(40, 5))
    labels = np.where(rng.random(40) < 0.8, source.argmax(1), rng.integers(0, 5, 40))
    return source, source + 2 * rng.normal(size=(40, 5)), labels


def test_logits_equal_the_definitions():
    source, target, labels = logits()
    found = {k: v.value for k, v in of_logits(source, target, labels).items()}
    rows = [(softmax(s), softmax(t)) for s, t in zip(source, target, strict=True)]
    best = [(max(range(5), key=lambda c: s[c]), max(range(5), key=lambda c: t[c])) for s, t in rows]
    mixtures = [(s, t, [(a + b) / 2 for a, b in zip(s, t, strict=True)]) for s, t in rows]
    assert found["agreement"] == pytest.approx(np.mean([a == b for a, b in best]))
    assert found["kl"] == pytest.approx(np.mean([divergence(t, s) for s, t in rows]))
    assert found["jsd"] == pytest.approx(np.mean([(divergence(s, m) + divergence(t, m)) / 2
                                                  for s, t, m in mixtures]))
    assert found["jsd"] == pytest.approx(np.mean([jensenshannon(s, t) ** 2 for s, t in rows]))
    assert found["accuracy_difference"] == pytest.approx(
        np.mean([a == c for (a, _), c in zip(best, labels, strict=True)])
        - np.mean([b == c for (_, b), c in zip(best, labels, strict=True)]))
    assert found["agreement"] < 1
    assert found["accuracy_difference"] > 0


def test_logits_of_identical_and_of_shifted_networks():
    source, target, labels = logits()
    same = of_logits(source, source, labels)
    assert [same[k].value for k in ("agreement", "jsd", "kl", "accuracy_difference")] == [1, 0, 0, 0]
    moved = of_logits(torch.from_numpy(source + 100).requires_grad_(), target - 100, torch.from_numpy(labels))
    for name, value in of_logits(source, target, labels).items():
        assert moved[name].value == pytest.approx(value.value, abs=1e-10)


def test_huge_logits():
    source, target = np.array([[1e5, 0.0], [0.0, 1e5]]), np.array([[0.0, 1e5], [0.0, 1e5]])
    found = of_logits(source, target)
    assert found["kl"].value == pytest.approx(5e4)
    assert found["jsd"].value == pytest.approx(math.log(2) / 2)
    assert found["agreement"].value == 0.5
    beyond = of_logits(source * 1e303, target * 1e303)
    assert beyond["jsd"].value == pytest.approx(math.log(2) / 2)
    far = of_logits(np.array([[1.7e308, -1.7e308]]), np.array([[-1.7e308, 1.7e308]]))
    assert far["jsd"].value == pytest.approx(math.log(2))
    assert "too far apart" in far["kl"].reason
    assert math.isnan(far["kl"].value)
    halves = of_logits(torch.tensor([[60000.0, -60000.0]]).half(), torch.tensor([[60000.0, -60000.0]]).half())
    assert halves["kl"].value == 0


def test_what_logits_do_not_say_has_a_reason():
    source, target, labels = logits()
    assert of_logits(source, target)["accuracy_difference"].reason == "no labels"
    for value in of_logits(source[:, :1], target[:, :1], labels * 0).values():
        assert value.reason == "1 class: every prediction is the same"


@pytest.mark.parametrize(("change", "message"), [
    (lambda s, t, c: (s[:, :4], t, c), "same examples and classes"),
    (lambda s, t, c: (s[:9], t, c), "same examples and classes"),
    (lambda s, t, c: (s[:0], t[:0], c[:0]), "matrix with rows"),
    (lambda s, t, c: (s * np.nan, t, c), "NaN or inf in matrix source"),
    (lambda s, t, c: (s, t + np.inf, c), "NaN or inf in matrix target"),
    (lambda s, t, c: (s, t, c[:3]), "40 whole numbers as labels"),
    (lambda s, t, c: (s, t, c * 0.5), "whole numbers as labels"),
    (lambda s, t, c: (s, t, c + 1), "labels from 0 to 4"),
    (lambda s, t, c: (s, t, c - 1), "labels from 0 to 4")])
def test_bad_logits_are_refused(change, message):
    with pytest.raises(SutureError, match=message):
        of_logits(*change(*logits()))


def test_probabilities_are_no_logits() -> None:
    z = np.random.default_rng(0).normal(size=(6, 4))
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    for pair, side in (((p, z), "source"), ((z, p), "target")):
        with pytest.raises(SutureError, match=f"logits of the {side}, got probabilities.*pass their logarit"):
            of_logits(*pair)
    assert of_logits(np.log(p), z)["kl"].value == pytest.approx(0, abs=1e-12)
