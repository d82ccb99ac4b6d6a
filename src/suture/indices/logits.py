"""Functional similarity of two networks from their logits on the same examples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from suture._base import check_classes, expect
from suture.indices.definition import Value
from suture.indices.sample import as_matrix
from suture.numbers import Floats

_NEAR = 1e-3
"""Largest distance from one of a sum of probabilities."""


def of_logits(source: Any, target: Any, labels: Any = None) -> dict[str, Value]:
    """Compute the similarity of two classifiers' predictions.

    - ``agreement``: share of examples with the same predicted class, 0 to 1, larger is more similar. Among
      equal logits the first class is the prediction.
    - ``jsd``: mean Jensen-Shannon divergence of the predictions in nats, 0 to ln 2, smaller is more similar
      (Lin 1991, equal weights).
    - ``kl``: mean KL(target's predictions || source's) in nats, 0 and up, smaller is more similar. It is
      ``dm.kl`` with the source in place of the stitched network.
    - ``accuracy_difference``: accuracy of the source minus that of the target, -1 to 1; 0 is most similar.

    Args:
        source, target: (n, classes) logits, arrays or tensors of any real type, computed in float64.
        labels: (n,) true class numbers. Without them (default) ``accuracy_difference`` is missing.

    Raises:
        SutureError: matrices of different shapes or without rows, NaN or inf, probabilities in place of
            logits, or labels that are not class numbers.
    """
    from scipy.special import log_softmax

    source, target = as_matrix("source", source), as_matrix("target", target)
    expect(source.shape == target.shape, "logits of the same examples and classes",
           f"shapes {source.shape} and {target.shape}", "pass (n, classes) twice")
    n, classes = source.shape
    for side, x in (("source", source), ("target", target)):
        expect(classes < 2 or (x < 0).any() or (np.abs(x.sum(1) - 1) > _NEAR).any(),
               f"logits of the {side}", "probabilities, rows that sum to one", "pass their logarithms")
    if labels is not None:
        labels = labels.detach().cpu().numpy() if isinstance(labels, torch.Tensor) else np.asarray(labels)
        expect(labels.shape == (n,) and labels.dtype.kind in "iu", f"{n} whole numbers as labels",
               f"{labels.dtype} of shape {labels.shape}", "pass one class number per example")
        check_classes(torch.from_numpy(labels.astype(np.int64)), classes,
                      "number classes as the columns of the logits")
    if classes < 2:
        reason = f"{classes} class: every prediction is the same"
        return {name: Value.missing(reason) for name in ("agreement", "jsd", "kl", "accuracy_difference")}
    with np.errstate(over="ignore"):
        p, q = log_softmax(target, 1), log_softmax(source, 1)
    a, b = source.argmax(1), target.argmax(1)
    return {
        "agreement": Value(float((a == b).mean())),
        "jsd": Value(float((_compute_kl_to_mixture(p, q) + _compute_kl_to_mixture(q, p)).mean() / 2)),
        "kl": _compute_mean_kl(p, q),
        "accuracy_difference": (Value.missing("no labels") if labels is None else
                                Value(float((a == labels).mean() - (b == labels).mean()))),
    }


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
    """Compute KL(p || (p + q) / 2), (n,), as E[ln 2 - log(1 + q / p)]: exactly zero where p = q."""
    with np.errstate(invalid="ignore"):
        return _compute_expectation(log_p, math.log(2) - np.logaddexp(0.0, log_q - log_p))
