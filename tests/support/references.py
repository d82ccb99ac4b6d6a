"""Slow, obvious versions of every number, in float64 NumPy: written from the definitions, no code shared."""

from __future__ import annotations

import itertools

import numpy as np
import scipy.linalg
import scipy.optimize
import torch
from scipy.spatial.distance import pdist
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from torch.nn import functional as F

Matrix = np.ndarray


def centred(x: Matrix) -> Matrix:
    return x - x.mean(0)


def hsic_biased(k: Matrix, m: Matrix) -> float:
    h = np.eye(len(k)) - 1 / len(k)
    return np.trace(k @ h @ m @ h)


def hsic_unbiased(k: Matrix, m: Matrix) -> float:
    """Song et al. 2012, eq. 4, by the letter, times n (n - 3)."""
    n = len(k)
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    one = np.ones(n)
    return (np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
            - 2 / (n - 2) * (one @ k @ m @ one))


def cka(x: Matrix, y: Matrix, hsic=hsic_biased) -> float:
    k, m = x @ x.T, y @ y.T
    return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))


def canonical(x: Matrix, y: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """Correlations and canonical variates of x and y, by QR (Bjorck and Golub 1973)."""
    qx, qy = scipy.linalg.orth(centred(x), rcond=1e-10), scipy.linalg.orth(centred(y), rcond=1e-10)
    u, s, vh = np.linalg.svd(qx.T @ qy, full_matrices=False)
    return s, qx @ u, qy @ vh.T


def cca(x: Matrix, y: Matrix) -> float:
    return canonical(x, y)[0].mean()


def pwcca(x: Matrix, y: Matrix) -> float:
    """Morcos et al. 2018, eq. 5: each variate weighted by its inner products with the columns of x."""
    s, h, _ = canonical(x, y)
    alpha = np.array([sum(abs(v @ column) for column in centred(x).T) for v in h.T])
    return (alpha * s).sum() / alpha.sum()


def pwcca_target(x: Matrix, y: Matrix) -> float:
    return pwcca(y, x)


def opd(x: Matrix, y: Matrix) -> float:
    """min over rotations Q of |X Q - Y|², X and Y centred, at unit norm and padded to one width (Schonemann
    1966)."""
    width = max(x.shape[1], y.shape[1])
    x, y = (np.pad(centred(m), ((0, 0), (0, width - m.shape[1]))) for m in (x, y))
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    q, _ = scipy.linalg.orthogonal_procrustes(x, y)
    return np.linalg.norm(x @ q - y) ** 2


def r2(x: Matrix, y: Matrix) -> float:
    design = np.column_stack([x, np.ones(len(x))])
    fit = design @ np.linalg.lstsq(design, y, rcond=None)[0]
    return 1 - ((y - fit) ** 2).sum() / (centred(y) ** 2).sum()


def rv2(x: Matrix, y: Matrix) -> float:
    k, m = (centred(z) @ centred(z).T for z in (x, y))
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    return np.trace(k @ m) / np.sqrt(np.trace(k @ k) * np.trace(m @ m))


def leading(x: Matrix, variance: float) -> Matrix:
    """The principal components that hold a share of the variance."""
    u, s, _ = np.linalg.svd(centred(x), full_matrices=False)
    k = next(k for k in range(1, len(s) + 1) if (s[:k] ** 2).sum() >= variance * (s**2).sum() - 1e-12)
    return u[:, :k] * s[:k]


def svcca(x: Matrix, y: Matrix, variance: float = 0.99) -> float:
    return cca(leading(x, variance), leading(y, variance))


def rotated_angle(x: Matrix, y: Matrix) -> float:
    """Angle between matrices after the best rotation of the first, padded to one width."""
    width = max(x.shape[1], y.shape[1])
    x, y = (np.pad(m, ((0, 0), (0, width - m.shape[1]))) for m in (x, y))
    q, _ = scipy.linalg.orthogonal_procrustes(x, y)
    return np.arccos(min(1.0, ((x @ q) * y).sum() / np.linalg.norm(x) / np.linalg.norm(y)))


def whitened(x: Matrix, alpha: float) -> Matrix:
    """X (alpha I + (1 - alpha) (X'X)^(-1/2)), X scaled so that the eigenvalues of X'X have mean 1."""
    u, s, vh = np.linalg.svd(centred(x), full_matrices=False)
    s = s / np.sqrt((s**2).sum() / x.shape[1])
    kept = s > 1e-9 * s[0]
    return (u[:, kept] * (alpha * s[kept] + 1 - alpha)) @ vh[kept]


def size_and_shape(x: Matrix, y: Matrix) -> float:
    width = max(x.shape[1], y.shape[1])
    x, y = (np.pad(centred(m), ((0, 0), (0, width - m.shape[1]))) for m in (x, y))
    q, _ = scipy.linalg.orthogonal_procrustes(x, y)
    return np.sqrt(((x @ q - y) ** 2).sum(1).mean())


def matchings(p: int, q: int):
    """Every way to give each column of the narrower side a column of the other: pairs (i, j)."""
    small, large = min(p, q), max(p, q)
    for chosen in itertools.permutations(range(large), small):
        yield [(k, c) if p <= q else (c, k) for k, c in enumerate(chosen)]


def permutation(x: Matrix, y: Matrix) -> float:
    x, y = (centred(m) / np.linalg.norm(centred(m)) for m in (x, y))
    best = np.inf
    for pairs in matchings(x.shape[1], y.shape[1]):
        distance = sum(((x[:, i] - y[:, j]) ** 2).sum() for i, j in pairs)
        distance += sum((x[:, i] ** 2).sum() for i in set(range(x.shape[1])) - {i for i, _ in pairs})
        distance += sum((y[:, j] ** 2).sum() for j in set(range(y.shape[1])) - {j for _, j in pairs})
        best = min(best, distance)
    return best


def r2_ridge(x: Matrix, y: Matrix, strength: float = 0.1) -> float:
    penalty = strength * (centred(x) ** 2).sum() / x.shape[1]
    return Ridge(alpha=penalty).fit(x, y).score(x, y) if y.shape[1] == 1 else r2_score(
        y, Ridge(alpha=penalty).fit(x, y).predict(x), multioutput="variance_weighted")


def r2_folds(x: Matrix, y: Matrix) -> float:
    error, fold = 0.0, np.arange(len(x)) % 5
    for k in range(5):
        mx, my = x[fold != k].mean(0), y[fold != k].mean(0)
        w = np.linalg.pinv(x[fold != k] - mx, rcond=1e-9) @ (y[fold != k] - my)
        error += ((y[fold == k] - my - (x[fold == k] - mx) @ w) ** 2).sum()
    return 1 - error / (centred(y) ** 2).sum()


def dm_residual(x: Matrix, y: Matrix) -> float:
    design = np.column_stack([x, np.ones(len(x))])
    return ((design @ np.linalg.lstsq(design, y, rcond=None)[0] - y) ** 2).sum() / (y**2).sum()


def gulp(x: Matrix, y: Matrix, strength: float = 0.01) -> float:
    """Boix-Adsera et al. 2022, by the letter: covariances of matrices scaled to trace 1, ridge inverses."""
    x, y = (centred(m) / np.linalg.norm(centred(m)) for m in (x, y))
    ix, iy = (np.linalg.inv(m.T @ m + strength * np.eye(m.shape[1])) for m in (x, y))
    same = np.trace(ix @ x.T @ x @ ix @ x.T @ x) + np.trace(iy @ y.T @ y @ iy @ y.T @ y)
    return np.sqrt(max(0.0, same - 2 * np.trace(ix @ x.T @ y @ iy @ y.T @ x)))


def eigenspace_overlap(x: Matrix, y: Matrix) -> float:
    ux, uy = (scipy.linalg.orth(centred(m), rcond=1e-10) for m in (x, y))
    return (np.cos(scipy.linalg.subspace_angles(ux, uy)) ** 2).sum() / max(ux.shape[1], uy.shape[1])


def participation_ratio(x: Matrix) -> float:
    values = np.linalg.svd(centred(x), compute_uv=False) ** 2
    return values.sum() ** 2 / (values**2).sum()


def ensd(x: Matrix, y: Matrix) -> float:
    return cka(x, y) * np.sqrt(participation_ratio(x) * participation_ratio(y))


def correlations(x: Matrix, y: Matrix) -> Matrix:
    return np.array([[np.corrcoef(a, b)[0, 1] for b in y.T] for a in x.T])


def correlation_hard(x: Matrix, y: Matrix) -> float:
    r = correlations(x, y)
    return max(np.mean([r[i, j] for i, j in pairs]) for pairs in matchings(*r.shape))


def rsa(metric: str, how: str):
    def compared(x: Matrix, y: Matrix) -> float:
        a, b = pdist(x, metric), pdist(y, metric)
        return np.corrcoef(a, b)[0, 1] if how == "pearson" else a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    return compared


def concentric(x: Matrix) -> float:
    m = x.mean(0)
    return np.mean([row @ m / np.linalg.norm(row) / np.linalg.norm(m) for row in x])


def transport(gain: Matrix, share: float) -> float:
    """The mean gain of the best plan of transport of a share of both uniform margins, all written out."""
    p, q = gain.shape
    margins = np.zeros((p + q, p, q))
    for i in range(p):
        margins[i, i] = 1
    for j in range(q):
        margins[p + j, :, j] = 1
    limits = np.concatenate([np.full(p, 1 / p), np.full(q, 1 / q)])
    found = scipy.optimize.linprog(-gain.ravel(), A_ub=margins.reshape(p + q, -1), b_ub=limits,
                             A_eq=np.ones((1, p * q)), b_eq=[share])
    return float(-found.fun / share)


def soft_matching(x: Matrix, y: Matrix, share: float = 1.0) -> float:
    """Soft matching of the units that vary (Khosla and Williams 2024)."""
    vary = [m[:, m.std(0) > 1e-9 * np.abs(m).max()] for m in (x, y)]
    return transport(correlations(*vary), share)


INDICES = {
    "soft_matching": soft_matching,
    "soft_matching_partial": lambda x, y: soft_matching(x, y, 0.5),
    "cka": cka, "cka_debiased": lambda x, y: cka(x, y, hsic_unbiased), "rv2": rv2,
    "cka_angular": lambda x, y: np.arccos(min(1.0, cka(x, y))), "cca": cca,
    "cca_squared": lambda x, y: (canonical(x, y)[0] ** 2).mean(), "svcca": svcca, "pwcca": pwcca,
    "pwcca_target": pwcca_target, "opd": opd, "opd_root": lambda x, y: np.sqrt(opd(x, y)),
    "shape_angular": lambda x, y: rotated_angle(centred(x), centred(y)),
    "nuclear": lambda x, y: np.cos(rotated_angle(centred(x), centred(y))),
    "shape": lambda x, y: rotated_angle(whitened(x, 0.5), whitened(y, 0.5)), "size_and_shape": size_and_shape,
    "permutation": permutation, "r2": r2, "r2_ridge": r2_ridge, "r2_folds": r2_folds,
    "dm_residual": dm_residual, "gulp": gulp, "eigenspace_overlap": eigenspace_overlap, "ensd": ensd,
    "correlation_hard": correlation_hard,
    "correlation_soft": lambda x, y: np.mean([max(row) for row in correlations(x, y)]),
    "rsa_pearson": rsa("sqeuclidean", "pearson"), "rsa_cosine": rsa("sqeuclidean", "cosine"),
    "rsa_correlation": rsa("correlation", "pearson"), "rsa_correlation_cosine": rsa("correlation", "cosine"),
    "magnitude": lambda x, y: abs(np.linalg.norm(x.mean(0)) - np.linalg.norm(y.mean(0))),
    "concentricity": lambda x, y: abs(concentric(x) - concentric(y)),
}
"""Of two matrices, for every index from moments."""


def rows(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(N, C, T), (N, C, H, W), (N, C, D, H, W) or (N, D) as a float64 matrix with the positions of `like`."""
    x = x.double()
    if x.ndim > 2 and like.ndim > 2:
        x = resized(x, like.shape[2:])
    elif x.ndim > 2:
        x = x.flatten(2).mean(2)
    elif like.ndim > 2:
        x = x[:, :, *[None] * (like.ndim - 2)].expand(-1, -1, *like.shape[2:])
    return x.movedim(1, -1).reshape(-1, x.shape[1])


def resized(x: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """A map on other positions, by torch's interpolation along one, two or three axes."""
    return F.interpolate(x, size=size, mode={1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)],
                         align_corners=False)


def least_squares(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight (q, p) and bias (q,) of the affine least-squares map, by `torch.linalg.lstsq` on the stacked
    matrix."""
    design = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    solution = torch.linalg.lstsq(design, y, driver="gelsd").solution
    return solution[:-1].T, solution[-1]


def aligned(x: torch.Tensor, y: torch.Tensor, source, target,
            prefix: str = "map") -> tuple[torch.Tensor, torch.Tensor]:
    """The two matrices of a cell (float64, same rows), from what the kinds mean: `source` and `target` are
    shapes.

    Prefix tokens are mapped with the rest (`prefix` "map") or made from the mean of the others ("drop").
    """
    x, y = x.double(), y.double()
    (px, gx), (py, gy) = (_prefix_and_map(t, s) for t, s in ((x, source), (y, target)))
    if target.kind.value == "vector":
        if source.kind.value == "vector":
            return x, y
        return gx.flatten(2).mean(2), y
    if source.kind.value == "vector":
        gx, px = x[:, :, *[None] * (gy.ndim - 2)], x[:, None].expand(-1, target.prefix, -1)
    elif source.prefix != target.prefix or prefix == "drop":
        px = gx.flatten(2).mean(2)[:, None].expand(-1, target.prefix, -1)
    gx = resized(gx, gy.shape[2:])
    rows_x, rows_y = ([*p.unbind(1)] for p in (px[:, :target.prefix], py))
    rows_x += [*gx.flatten(2).unbind(2)]
    rows_y += [*gy.flatten(2).unbind(2)]
    return torch.stack(rows_x, 1).flatten(0, 1), torch.stack(rows_y, 1).flatten(0, 1)


def _prefix_and_map(x: torch.Tensor, shape) -> tuple[torch.Tensor, torch.Tensor]:
    if shape.kind.value == "map":
        return x.new_zeros(len(x), 0, x.shape[1]), x.unflatten(2, shape.grid) if shape.grid else x
    if shape.kind.value == "vector":
        return x.new_zeros(len(x), 0, x.shape[1]), x[:, :, None]
    rest = x[:, shape.prefix:].transpose(1, 2)
    return x[:, :shape.prefix], rest.unflatten(2, shape.grid or (rest.shape[2],))
