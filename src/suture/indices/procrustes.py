"""Orthogonal Procrustes distance."""

from __future__ import annotations

import torch

from suture.spectra import Pair


def squared(pair: Pair) -> float:
    """2 - 2 |Sxy|_* / sqrt(tr Sxx tr Syy): squared Procrustes distance at unit Frobenius norm (Ding et al. 2021).

    In [0, 2]; 0 for matrices that are equal up to rotation, scale and shift. Widths may differ: the narrower one is
    padded with zeros, which leaves the nuclear norm as it is.
    """
    m = pair.moments
    nuclear = torch.linalg.svdvals(m.sxy).sum()
    return float(2 - 2 * nuclear / (torch.trace(m.sxx) * torch.trace(m.syy)).sqrt())
