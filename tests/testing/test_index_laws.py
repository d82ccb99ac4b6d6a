"""The laws of indices hold for suture's own and find wrong ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from suture import testing
from suture.indices import INDICES, Index, own
from suture.numbers import Pair
from tests.support.matrices import Matrix

NAMES = [*("svcca:0.5" if n == "svcca" else n for n, i in INDICES.items() if "stitch" in i.alignments),
         *(f"{n}@flatten" for n, i in INDICES.items() if "flatten" in i.alignments)]
"""Every index of two matrices. At half of the variance SVCCA drops components; where it keeps all, it is mean
CCA."""


@pytest.mark.parametrize("name", NAMES)
def test_every_index_keeps_its_laws(name: str) -> None:
    testing.verify(testing.index_laws(name))


def mean_cosine(x: Matrix, y: Matrix) -> float:
    return float(np.corrcoef(x.ravel()[:50], y.ravel()[:50])[0, 1])


def squared(x: Matrix, y: Matrix) -> float:
    """A correlation of norms that grows with the data: its range is not what it says."""
    return float(np.linalg.norm(x) * np.linalg.norm(y))


def unbalanced(pair: Pair) -> float:
    return float(pair.moments.sxx.trace() / (pair.moments.sxx.trace() + 2 * pair.moments.syy.trace()))


CKA = INDICES["cka"]
WRONG: dict[str, tuple[Index, str]] = {
    "an invariance that does not hold": (replace(CKA, invariant_x=(CKA.invariant_x or set()) | {"linear"}),
                                         "linear of the source"),
    "an invariance that is not stated": (replace(CKA, invariant_y=frozenset()), "translation of the target"),
    "another value of identical data": (replace(CKA, identical=0.5), "identical matrices"),
    "another value of unrelated data": (replace(CKA, null=0.7), "unrelated matrices"),
    "a symmetry that does not hold": (replace(INDICES["pwcca"], symmetric=True), "symmetry"),
    "a symmetry that is not stated": (replace(CKA, symmetric=False), "symmetry"),
    "values out of range": (own(squared, "squared_norms"), "range"),
    "a function that sees rows by number": (own(mean_cosine, "mean_cosine", unchanged_x=["orthogonal"],
                                               low=-1), "orthogonal of the source"),
    "a function of moments with a bad claim": (own(unbalanced, "unbalanced", symmetric=True), "symmetry"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_index_is_found(case: str) -> None:
    index, law = WRONG[case]
    with pytest.raises(AssertionError) as found:
        testing.verify(testing.index_laws(index))
    assert any(line.startswith(f"{law}: ") for line in str(found.value).splitlines())
