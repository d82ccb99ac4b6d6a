"""Representations cut to principal components, slowly: from all rows in memory, with NumPy."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def list_rows(x: Tensor) -> np.ndarray:
    """Rows (n, p) of maps (N, C, H, W), tokens (N, T, D) or vectors."""
    rows = x.permute(0, 2, 3, 1).flatten(0, 2) if x.ndim == 4 else x.flatten(0, -2)
    return rows.double().numpy()


def find_components(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and components (p, p) of rows, from their singular value decomposition."""
    mean = rows.mean(0)
    return mean, np.linalg.svd(rows - mean, full_matrices=True)[2].T


def cut(x: Tensor, rank: int, mean: np.ndarray, components: np.ndarray) -> Tensor:
    """A batch with every position cut to the first components, in float64."""
    last = x.movedim(1, -1) if x.ndim == 4 else x
    kept = components[:, :rank]
    made = torch.from_numpy(mean + (last.double().numpy() - mean) @ kept @ kept.T)
    return made.movedim(-1, 1) if x.ndim == 4 else made
