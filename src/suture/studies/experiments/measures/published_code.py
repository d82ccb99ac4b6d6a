"""What the published code of the paper computes where it differs from suture: functions of matrices."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from suture.numbers import Moments, Pair
from suture.stitching import direct_match


@dataclass(frozen=True)
class PublishedMap:
    """The stitching layer of a pseudo-inverse as the published code makes it, in float32.

    Attributes:
        weight, bias: W (q, p) and b (q,) of the pseudo-inverse with PyTorch's default cut.
        dropped, directions: singular values at or below the cut, and all p + 1 of them.
        residual: |S - T|² / |T|² of this map on its own rows.
        reported: that of the pseudo-inverse without a cut, which the code writes down.
    """

    weight: Tensor
    bias: Tensor
    dropped: int
    directions: int
    residual: float
    reported: float


def fit_published(x: Tensor, y: Tensor) -> PublishedMap:
    """Fit rows y (n, q) from rows x (n, p) by a float32 pseudo-inverse of (x, 1), with and without its cut.

    The default cut of `torch.linalg.pinv` is max(n, p + 1) eps of the largest singular value, so that it
    grows with the number of rows (nn_stitching/init/least_squares.py, lines 107 to 158).
    """
    x, y = x.float(), y.float()
    whole = torch.cat([x, torch.ones(len(x), 1)], 1)
    u, s, vt = torch.linalg.svd(whole, full_matrices=False)
    kept = s > max(whole.shape) * torch.finfo(torch.float32).eps * s[0]

    def solve(used: Tensor) -> Tensor:
        inverse = torch.where(used, 1 / s, torch.zeros(()))
        found: Tensor = vt.T @ (inverse[:, None] * (u.T @ y))
        return found

    cut, uncut = solve(kept), solve(s > 0)
    return PublishedMap(cut[:-1].T, cut[-1], int((~kept).sum()), len(s),
                        *(_find_residual(whole @ a, y) for a in (cut, uncut)))


def fit_ours(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, int, float]:
    """Fit the same rows as `suture.compare` does: W, b, number of directions dropped, and |S - T|² / |T|²."""
    found = direct_match(Pair.of(Moments.of(x.double(), y.double())))
    weight, bias = found.weight, found.bias
    return weight, bias, x.shape[1] - found.rank, _find_residual(x.double() @ weight.T + bias, y.double())


def _find_residual(stitched: Tensor, target: Tensor) -> float:
    return float(((stitched - target) ** 2).sum() / (target**2).sum())


def compute_pwcca(x: Tensor, y: Tensor) -> float:
    """Return the PWCCA similarity of rows in float32, where every positive eigenvalue is inverted.

    So rounding errors of a rank-deficient matrix count as directions of it
    (nn_stitching/utils/representational_similarity/cca.py, lines 25 to 31).
    """
    a, b = (_scale(z.float()) for z in (x, y))
    whiten_a, whiten_b = (_invert_root(z.T @ z) for z in (a, b))
    u, s, _ = torch.linalg.svd(whiten_a @ (a.T @ b) @ whiten_b)
    variates = a @ whiten_a @ u
    weights = (variates.T @ a).abs().sum(1)
    k = min(len(s), len(weights))
    return float((weights[:k] / weights.sum()) @ s[:k])


def _scale(rows: Tensor) -> Tensor:
    centred = rows - rows.mean(0)
    scaled: Tensor = centred / centred.norm()
    return scaled


def _invert_root(gram: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(gram)
    positive = values > 0
    roots = torch.where(positive, values.clamp(min=torch.finfo(values.dtype).tiny).rsqrt(), torch.zeros(()))
    root: Tensor = vectors @ torch.diag(roots) @ vectors.T
    return root


def cut_rows(rows: Tensor, rank: int) -> Tensor:
    """Return rows cut to their first principal components by a float32 SVD, as the published code does."""
    mean = rows.float().mean(0)
    u, s, vt = torch.linalg.svd(rows.float() - mean, full_matrices=False)
    cut: Tensor = (u[:, :rank] * s[:rank]) @ vt[:rank] + mean
    return cut
