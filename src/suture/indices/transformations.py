"""Transformations of the columns of a matrix, by which an index states its invariances."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from suture.numbers import Floats

Generator = np.random.Generator


def _rotate(x: Floats, rng: Generator) -> Floats:
    return np.asarray(x @ np.linalg.qr(rng.normal(size=(x.shape[1], x.shape[1])))[0])


def _spread(x: Floats) -> Floats:
    return np.geomspace(0.2, 4, x.shape[1])


TRANSFORMATIONS: Mapping[str, Callable[[Floats, Generator], Floats]] = {
    "translation": lambda x, rng: x + 5 * rng.normal(size=x.shape[1]),
    "scaling": lambda x, rng: x * rng.uniform(3, 9),
    "permutation": lambda x, rng: np.roll(x, 1, axis=1),
    "orthogonal": _rotate,
    "diagonal": lambda x, rng: x * rng.permutation(_spread(x)),
    "linear": lambda x, rng: _rotate(_rotate(x, rng) * _spread(x), rng),
}
"""Random transformations of a matrix (n, p) by name.

Translation adds one vector to every row. Scaling multiplies by one positive number. Permutation reorders
columns. Orthogonal rotates or reflects them. Diagonal multiplies each by its own positive number. Linear is
any invertible map.
"""
_PARTS = {"linear": ("scaling", "permutation", "orthogonal", "diagonal"), "orthogonal": ("permutation",),
          "diagonal": ("scaling",)}


def expand_invariances(*given: str) -> frozenset[str]:
    """Return the given transformations with all that they contain."""
    return frozenset(given).union(*(_PARTS.get(name, ()) for name in given))


RIGID = expand_invariances("translation", "scaling", "orthogonal")
AFFINE = expand_invariances("translation", "linear")
