"""The classifier two-sample test: out-of-fold scores of a classifier between native and stitched features."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from suture._base import SutureError
from suture.numbers import Floats

LEAST_FOLD_STD = 1e-6
"""Smallest standard deviation of a feature, relative to its mean and to the root mean square of all standard
deviations. Smaller ones are float32 rounding, which differs between the two ways of computing a
representation."""


def score_two_sample(native: ArrayLike, stitched: ArrayLike, *, folds: int = 5, seed: int = 0,
                     regularisation: float = 1.0, quadratic: bool = False) -> tuple[Floats, Floats]:
    """Return out-of-fold scores of logistic regressions between native and stitched features.

    This is the classifier two-sample test (Lopez-Paz and Oquab 2017), with scores instead of hits. Both
    versions of an example are in the same fold, so the classifier cannot learn the example. Each training set
    has as many native as stitched examples, so the scores of all folds have the same zero. Equal features
    give equal scores.

    A linear classifier sees a difference of means: a shift. It does not see a copy that is shrunken or
    rotated about its mean. With `quadratic`, the squares of the standardised features are features too. The
    classifier then sees a difference of variances: shrinkage, and rotations that move variance between
    features. It never sees a change that keeps the mean and variance of each feature, such as correlations of
    another sign.

    The stitching layer must not be fitted to these examples. Direct matching makes both means equal on its
    fitting data, so a deficit in one fold is an excess in the others. Every classifier then points the wrong
    way in its held-out fold, and the AUROC falls below 0.5 (to 0.2 with 500 examples of 128 features).

    Args:
        native: (N, F) of N >= 2 examples.
        stitched: (N, F) of the same examples, in the same order.
        folds: default 5; at most N are made.
        seed: of the folds.
        regularisation: of the L2 penalty, 1 / C of `sklearn.linear_model.LogisticRegression`. Features are
            standardised in the training folds; those with less spread there than `LEAST_FOLD_STD` are left
            out.
        quadratic: add the squares.

    Returns:
        (N,) scores of the native and (N,) of the stitched ones: log odds, larger = more native.

    Raises:
        SutureError: other shapes, NaN or inf, fewer than two folds or examples, a penalty not above 0.
    """
    pair = _check_features(native, stitched)
    if folds < 2:
        raise SutureError(f"expected at least two folds, got {folds}; leave them out for 5")
    if not 0 < regularisation < np.inf:
        raise SutureError(f"expected a regularisation above 0, got {regularisation}; leave it out for 1")
    n = pair.shape[1]
    scores = np.zeros((2, n))
    for held in np.array_split(np.random.default_rng(seed).permutation(n), min(folds, n)):
        train = np.delete(pair, held, axis=1)
        scores[:, held] = _score_fold(train, pair[:, held], regularisation, quadratic)
    return scores[0], scores[1]


def _check_features(native: ArrayLike, stitched: ArrayLike) -> Floats:
    """Return native and stitched features as one array (2, N, F), after checks."""
    a, b = np.asarray(native, np.float64), np.asarray(stitched, np.float64)
    if a.ndim != 2 or a.shape != b.shape or len(a) < 2 or a.shape[1] == 0:
        raise SutureError("expected native and stitched features of the same shape (N, F) with N >= 2, got "
                          f"{a.shape} and {b.shape}; pass two versions of the same examples")
    for name, x in (("native", a), ("stitched", b)):
        bad = int((~np.isfinite(x).all(1)).sum())
        if bad:
            raise SutureError(f"expected finite features, got NaN or inf in {bad} of {len(x)} {name} "
                              "examples; what diverged has no two-sample score, so leave it out")
    return np.stack([a, b])


def _score_fold(train: Floats, held: Floats, regularisation: float, quadratic: bool) -> Floats:
    """Return the log odds (2, M) of `held` (2, M, F), by a classifier trained on `train` (2, K, F)."""
    from sklearn.linear_model import LogisticRegression  # slow to import (half a second)

    train, held = _standardise(train, held)
    if train.shape[2] == 0:
        return np.zeros(held.shape[:2])
    if quadratic:
        more = _standardise(train**2, held**2)
        train, held = (np.concatenate(both, 2) for both in zip((train, held), more, strict=True))
    labels = np.repeat([1, 0], train.shape[1])
    classifier: Any = LogisticRegression(C=1 / regularisation, max_iter=1000)
    classifier.fit(train.reshape(-1, train.shape[2]), labels)
    # One product per half: within one product, the rounding of a row depends on its place.
    return np.stack([classifier.decision_function(half) for half in held])


def _standardise(train: Floats, held: Floats) -> tuple[Floats, Floats]:
    """Standardise both by mean and standard deviation of `train`, without features that do not vary there."""
    mean, spread = train.mean((0, 1)), train.std((0, 1))
    varies = spread > LEAST_FOLD_STD * np.maximum(np.abs(mean), np.sqrt(np.mean(spread**2)))
    mean, spread = mean[varies], spread[varies]
    return (train[:, :, varies] - mean) / spread, (held[:, :, varies] - mean) / spread
