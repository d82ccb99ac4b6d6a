"""Soft matching, against linear programs; nearest neighbours and matching against their authors' code."""

from __future__ import annotations

import numpy as np
import pytest

from suture.indices import of_matrices
from tests.support import references


def _make_pair(p: int, q: int, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(n, p))
    return x, np.tanh(x @ rng.normal(size=(p, q))) + 0.5 * rng.normal(size=(n, q))


@pytest.mark.parametrize(("p", "q"), [(4, 4), (4, 6), (3, 8), (6, 9)])
@pytest.mark.parametrize(("name", "share"), [
    ("soft_matching", 1.0), ("soft_matching_partial", 0.5), ("soft_matching_partial:0.3", 0.3),
    ("soft_matching_partial:0.01", 0.01), ("soft_matching_partial:1", 1.0),
])
def test_the_best_plan_is_that_of_a_linear_program(p: int, q: int, name: str, share: float) -> None:
    x, y = _make_pair(p, q)
    wanted = references.transport(np.corrcoef(x.T, y.T)[:p, p:], share)
    assert of_matrices(x, y, name)[name].value == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize(("p", "q"), [(4, 4), (4, 6)])
def test_units_that_never_vary_are_left_out(p: int, q: int) -> None:
    x, y = _make_pair(p, q)
    dead = np.column_stack([x[:, :1] * 0 + 3.0, x])
    names = ["soft_matching", "soft_matching_partial"]
    assert of_matrices(dead, y, names) == of_matrices(x, y, names)


def test_widths_with_a_large_common_multiple_have_no_value() -> None:
    x, y = _make_pair(67, 64)
    found = of_matrices(x, y, "soft_matching")["soft_matching"]
    assert "4288" in found.reason


# By github.com/minyoungg/platonic-rep, metrics.py, on rows at unit length.
AUTHORS = {"mutual_knn:2": 0.18, "cknna:2": 0.12846398981742935, "mutual_knn:5": 0.324,
           "cknna:5": 0.32892395509856787, "mutual_knn": 0.428, "cknna": 0.4474730827581671}


def test_neighbours_have_the_values_of_the_authors_code() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 6))
    y = np.tanh(x @ rng.normal(size=(6, 4))) + 0.3 * rng.normal(size=(50, 4))
    for name, value in of_matrices(x, y, list(AUTHORS)).items():
        assert value.value == pytest.approx(AUTHORS[name], abs=1e-6)
