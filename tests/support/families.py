"""Data and maps of every family."""

from __future__ import annotations

import numpy as np
import torch

from suture.numbers.moments import Moments
from suture.numbers.spectra import Pair
from suture.stitching import direct_matching as direct
from suture.stitching.direct_matching import direct_match
from suture.stitching.family import Family

TEXTS = ["full", "ridge:0.1", "ridge:cv", "rank:2", "orthogonal", "orthogonal:noscale", "orthogonal:noshift",
         "orthogonal:noscale,noshift", "diagonal", "permutation", "identity", "sparse:0.1"]
FITTED = [t for t in TEXTS if t != "ridge:cv"]


def data(p: int = 4, q: int = 4, n: int = 90, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Channels of unequal size and mean; the target is a noisy, nonlinear mix with one strong partner per
    channel."""
    g = torch.Generator().manual_seed(seed)
    x = (torch.randn(n, p, generator=g, dtype=torch.float64)
         @ torch.randn(p, p, generator=g, dtype=torch.float64) / 2)
    mix = torch.randn(p, q, generator=g, dtype=torch.float64) / 2
    mix[torch.arange(min(p, q)), torch.arange(min(p, q)).roll(1)] += 3
    y = x @ mix + (x @ mix).relu() + torch.randn(n, q, generator=g, dtype=torch.float64)
    return x + torch.arange(p) - 1.5, y * (1 + torch.arange(q) / q) + 2


def matched(x: torch.Tensor, y: torch.Tensor, text: str) -> direct.DirectMatch:
    folds = [Moments.of(x[k::3], y[k::3]) for k in range(3)]
    return direct_match(Pair.of(Moments.of(x, y)), Family.parse(text), folds)


def numbers(x: torch.Tensor, y: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    a, b = x.numpy(), y.numpy()
    return a, b, a - a.mean(0), b - b.mean(0)


def close(got: torch.Tensor, expected: np.ndarray, tolerance: float = 1e-9) -> None:
    np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=tolerance * max(np.abs(expected).max(), 1))


RNG = np.random.default_rng(5)
ROTATION = torch.as_tensor(np.linalg.qr(RNG.standard_normal((4, 4)))[0])
TRANSFORMATIONS = {
    "translation": lambda m: m + torch.tensor([1.0, -2, 0.5, 3]),
    "scaling": lambda m: 1.7 * m,
    "permutation": lambda m: m[:, [1, 2, 3, 0]],
    "orthogonal": lambda m: m @ ROTATION,
    "linear": lambda m: m @ (ROTATION + torch.diag(torch.tensor([1.0, 2, 3, 4]))),
}
