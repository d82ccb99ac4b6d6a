"""A detector by a classifier between native and stitched features."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from suture.numbers import Floats
from suture.ood.detector import Detector, NativeSite
from suture.ood.features import SiteFeatures

LEAST_FOLD_STD = 1e-6
"""Smallest standard deviation of a feature, relative to its mean and to the root mean square of all. Smaller
ones are float32 rounding, which differs between the two ways of computing a representation."""


class TwoSample(Detector):
    """Out-of-fold scores of a classifier between native and stitched features (`score_two_sample`)."""

    about = ("Out-of-fold scores of a logistic regression between native and stitched mean and standard "
             "deviation over positions, trained for each cell on the test data themselves (Lopez-Paz and "
             "Oquab 2017).")
    per_cell = True
    seed = 0

    def fit(self, native: NativeSite) -> Self:
        return self.copy_with(seed=native.seed)

    def score(self, seen: SiteFeatures) -> Tensor:
        raise NotImplementedError("a detector of cells scores native and stitched representations together")

    def score_pair(self, native: SiteFeatures, other: SiteFeatures) -> tuple[Tensor, Tensor]:
        features = (x.spread.cpu().double().numpy() for x in (native, other))
        one, two = score_two_sample(*features, seed=self.seed)
        return torch.from_numpy(one), torch.from_numpy(two)


def score_two_sample(native: Floats, stitched: Floats, *, folds: int = 5,
                     seed: int = 0) -> tuple[Floats, Floats]:
    """Return out-of-fold scores of logistic regressions between native and stitched features.

    This is the classifier two-sample test (Lopez-Paz and Oquab 2017), with scores instead of hits. Both
    versions of an example are in the same fold, so the classifier cannot learn the example. Training sets are
    balanced, so the scores of all folds have the same zero. Equal features give equal scores.

    The squares of the standardised features are features too. The classifier therefore sees differences of
    means (a shift) and of variances (shrinkage, some rotations). It never sees a change that keeps each
    feature's mean and variance, such as correlations of another sign.

    The stitching layer must not be fitted to these examples. Direct matching makes both means equal on its
    fitting data, so a deficit in one fold is an excess in the others. Every classifier then points the wrong
    way, and the AUROC falls below 0.5.

    Args:
        native, stitched: (N, F) finite features of the same N >= 2 examples, in the same order.
        folds: default 5; at most N are made.
        seed: of the folds.

    Returns:
        (N,) scores of the native and (N,) of the stitched ones: log odds, larger = more native.
    """
    pair = np.stack([native, stitched])
    n = pair.shape[1]
    scores = np.zeros((2, n))
    for held in np.array_split(np.random.default_rng(seed).permutation(n), min(folds, n)):
        scores[:, held] = _score_fold(np.delete(pair, held, axis=1), pair[:, held])
    return scores[0], scores[1]


def _score_fold(train: Floats, held: Floats) -> Floats:
    """Return the log odds (2, M) of `held` (2, M, F), by a classifier trained on `train` (2, K, F)."""
    from sklearn.linear_model import LogisticRegression  # slow to import (half a second)

    train, held = _standardise(train, held)
    if train.shape[2] == 0:
        return np.zeros(held.shape[:2])
    squares = _standardise(train**2, held**2)
    train, held = (np.concatenate(both, 2) for both in zip((train, held), squares, strict=True))
    labels = np.repeat([1, 0], train.shape[1])
    classifier: Any = LogisticRegression(max_iter=1000)
    classifier.fit(train.reshape(-1, train.shape[2]), labels)
    # One product per half: within one product, the rounding of a row depends on its place.
    return np.stack([classifier.decision_function(half) for half in held])


def _standardise(train: Floats, held: Floats) -> tuple[Floats, Floats]:
    """Standardise both by mean and standard deviation of `train`; drop features that do not vary there."""
    mean, spread = train.mean((0, 1)), train.std((0, 1))
    varies = spread > LEAST_FOLD_STD * np.maximum(np.abs(mean), np.sqrt(np.mean(spread**2)))
    mean, spread = mean[varies], spread[varies]
    return (train[:, :, varies] - mean) / spread, (held[:, :, varies] - mean) / spread
