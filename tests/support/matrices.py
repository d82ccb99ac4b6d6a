"""Two matrices of one set of rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import suture
from tests.support import tiny

Matrix = Any
ROOT = Path(__file__).parents[2]


def matrices(n: int = 60, p: int = 5, q: int = 4, seed: int = 0) -> tuple[Matrix, Matrix]:
    g = np.random.default_rng(seed)
    x = g.normal(size=(n, p)) + g.normal(size=p)
    return x, x @ g.normal(size=(p, q)) + g.normal(size=(n, q)) + g.normal(size=q)


X, Y = matrices()


def compared(names: Any, **options: Any) -> suture.Comparison:
    return suture.compare(tiny.network(), tiny.other(), *tiny.data(), indices=names, methods=[], device="cpu",
                          **options)
