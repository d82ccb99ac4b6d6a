"""Functional similarity of two networks from their logits on the same examples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from suture._base import SutureError
from suture.indices.definition import Value
from suture.indices.sample import as_matrix
from suture.numbers import Floats, Ints


def of_logits(source: Any, target: Any, labels: Any = None) -> dict[str, Value]:
    """Compute the similarity of two classifiers' predictions.

    - ``agreement``: share of examples on which both predict the same class, 0 to 1, larger is more similar.
      Of equal logits the first class is the prediction.
    - ``jsd``: mean over examples of the Jensen-Shannon divergence of the predictions, in nats, 0 to ln 2,
      smaller is more similar (Lin 1991, equal weights).
    - ``kl``: mean over examples of KL(target's predictions || source's), in nats, 0 and up, smaller is more
      similar. It is ``dm.kl`` with the source in place of the stitched network.
    - ``accuracy_difference``: accuracy of the source minus that of the target, -1 to 1; 0 is most similar,
      above 0 the source is better.

    Args:
        source, target: (n, classes) logits, arrays or tensors of any real type, computed in float64.
        labels: (n,) numbers of the true classes. Default none; then ``accuracy_difference`` is missing.

    Raises:
        SutureError: not two matrices of one shape with rows, NaN or inf in them, or labels that are not class
            numbers.
    """
    from scipy.special import log_softmax

    source, target = as_matrix("source", source), as_matrix("target", target)
    if source.shape != target.shape:
        raise SutureError(f"expected logits of the same examples and classes, got shapes {source.shape} and "
                          f"{target.shape}; pass (n, classes) twice")
    given = None if labels is None else _check_labels(labels, *source.shape)
    if source.shape[1] < 2:
        reason = f"{source.shape[1]} class: every prediction is the same"
        return {name: Value.missing(reason) for name in ("agreement", "jsd", "kl", "accuracy_difference")}
    with np.errstate(over="ignore"):
        p, q = log_softmax(target, 1), log_softmax(source, 1)
    return {
        "agreement": Value(float((source.argmax(1) == target.argmax(1)).mean())),
        "jsd": Value(float((_compute_kl_to_mixture(p, q) + _compute_kl_to_mixture(q, p)).mean() / 2)),
        "kl": _compute_mean_kl(p, q),
        "accuracy_difference": _compute_accuracy_difference(source, target, given),
    }


def _check_labels(labels: Any, n: int, classes: int) -> Ints:
    """Convert labels to class numbers (n,) and check their range."""
    found = labels.detach().cpu().numpy() if isinstance(labels, torch.Tensor) else np.asarray(labels)
    if found.shape != (n,) or found.dtype.kind not in "iu":
        raise SutureError(f"expected {n} whole numbers as labels, got {found.dtype} of shape {found.shape}; "
                          "pass one class number per example")
    if found.min() < 0 or found.max() >= classes:
        raise SutureError(f"expected labels from 0 to {classes - 1}, got {found.min()} to {found.max()}; "
                          "number classes as the columns of the logits")
    return found.astype(np.int64)


def _compute_expectation(log_p: Floats, values: Floats) -> Floats:
    """Compute the expectation (n,) of `values` under p; classes with probability zero add nothing."""
    p = np.exp(log_p)
    return np.asarray(np.where(p > 0, p * values, 0.0).sum(1))


def _compute_mean_kl(log_p: Floats, log_q: Floats) -> Value:
    with np.errstate(invalid="ignore"):
        value = float(_compute_expectation(log_p, log_p - log_q).mean())
    if math.isfinite(value):
        return Value(value)
    return Value.missing("logits of the source too far apart: a class that the target gives "
                         "probability has none")


def _compute_kl_to_mixture(log_p: Floats, log_q: Floats) -> Floats:
    """Compute KL(p || (p + q) / 2), (n,), from log(p / m) = ln 2 - log(1 + q / p).

    Here m is the mixture (p + q) / 2. The result is exactly zero where p = q.
    """
    with np.errstate(invalid="ignore"):
        return _compute_expectation(log_p, math.log(2) - np.logaddexp(0.0, log_q - log_p))


def _compute_accuracy_difference(source: Floats, target: Floats, labels: Ints | None) -> Value:
    if labels is None:
        return Value.missing("no labels")
    return Value(float((source.argmax(1) == labels).mean() - (target.argmax(1) == labels).mean()))
