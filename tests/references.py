"""Slow, obvious versions of every number, in float64 NumPy: written from the definitions, no code shared."""

from __future__ import annotations

import numpy as np
import scipy.linalg
import torch
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
    return np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (one @ k @ m @ one)


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
    """min over rotations Q of |X Q - Y|², X and Y centred, at unit norm and padded to one width (Schonemann 1966)."""
    width = max(x.shape[1], y.shape[1])
    x, y = (np.pad(centred(m), ((0, 0), (0, width - m.shape[1]))) for m in (x, y))
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    q, _ = scipy.linalg.orthogonal_procrustes(x, y)
    return np.linalg.norm(x @ q - y) ** 2


def r2(x: Matrix, y: Matrix) -> float:
    design = np.column_stack([x, np.ones(len(x))])
    fit = design @ np.linalg.lstsq(design, y, rcond=None)[0]
    return 1 - ((y - fit) ** 2).sum() / (centred(y) ** 2).sum()


INDICES = {
    "cka": cka, "cka_debiased": lambda x, y: cka(x, y, hsic_unbiased), "cca": cca, "pwcca": pwcca,
    "pwcca_target": pwcca_target, "opd": opd, "r2": r2,
}


def rows(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) or (N, D) as a float64 matrix with the positions of `like`."""
    x = x.double()
    if x.ndim == 4 and like.ndim == 4:
        x = F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)
    elif x.ndim == 4:
        x = x.mean((2, 3))
    elif like.ndim == 4:
        x = x[:, :, None, None].expand(-1, -1, *like.shape[2:])
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]) if x.ndim == 4 else x


def least_squares(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight (q, p) and bias (q,) of the affine least-squares map, by `torch.linalg.lstsq` on the stacked matrix."""
    design = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    solution = torch.linalg.lstsq(design, y, driver="gelsd").solution
    return solution[:-1].T, solution[-1]


def aligned(x: torch.Tensor, y: torch.Tensor, source, target, prefix: str = "map") -> tuple[torch.Tensor, torch.Tensor]:
    """The two matrices of a cell (float64, same rows), from what the kinds mean: `source` and `target` are shapes.

    Rows of the target that no affine map makes (prefix tokens that are kept or learned) are left out.
    """
    x, y = x.double(), y.double()
    (px, gx), (py, gy) = (_prefix_and_map(t, s) for t, s in ((x, source), (y, target)))
    if target.kind.value == "vector":
        if source.kind.value == "vector":
            return x, y
        return px[:, 0] if prefix == "only" and source.prefix else gx.mean((2, 3)), y
    if source.kind.value == "vector":
        gx, px = x[:, :, None, None], x[:, None].expand(-1, target.prefix, -1)
    elif target.kind.value == "map" and source.prefix:
        first = px[:, 0, :, None, None]
        gx = {"map": gx, "drop": gx, "add": gx + first, "only": first}[prefix]
    elif source.prefix != target.prefix or prefix == "drop":
        px = gx.mean((2, 3))[:, None].expand(-1, target.prefix, -1)
    gx = F.interpolate(gx, size=gy.shape[2:], mode="bilinear", align_corners=False)
    fitted = prefix not in ("keep", "learn")
    rows_x, rows_y = ([*p.unbind(1)] if fitted else [] for p in (px[:, :target.prefix], py))
    rows_x += [*gx.flatten(2).unbind(2)]
    rows_y += [*gy.flatten(2).unbind(2)]
    return torch.stack(rows_x, 1).flatten(0, 1), torch.stack(rows_y, 1).flatten(0, 1)


def _prefix_and_map(x: torch.Tensor, shape) -> tuple[torch.Tensor, torch.Tensor]:
    if shape.kind.value == "map":
        return x.new_zeros(len(x), 0, x.shape[1]), x
    if shape.kind.value == "vector":
        return x.new_zeros(len(x), 0, x.shape[1]), x[:, :, None, None]
    rest = x[:, shape.prefix:].transpose(1, 2)
    return x[:, :shape.prefix], rest.unflatten(2, shape.grid or (1, rest.shape[2]))
