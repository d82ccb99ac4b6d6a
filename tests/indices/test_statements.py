"""Statements of indices that are no law of `suture.testing` (tests/testing/test_index_laws.py)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from suture import SutureError
from suture.indices import (
    INDICES,
    TRANSFORMATIONS,
    Index,
    entries,
    expand_invariances,
    of_matrices,
    own,
)
from suture.indices.entries import collect_indices
from tests.support.matrices import Matrix


def related(seed: int, n: int = 50, p: int = 6, q: int = 4) -> tuple[Matrix, Matrix]:
    """Two matrices that share a signal, with means of their own."""
    g = np.random.default_rng(seed)
    x = g.normal(size=(n, p))
    return x + g.normal(size=p), x @ g.normal(size=(p, q)) + 0.5 * g.normal(size=(n, q)) + g.normal(size=q)


@pytest.mark.parametrize("name", [name for name, index in INDICES.items()
                                  if None not in (index.identical, index.null)])
def test_its_direction_is_that_of_the_common_form(name: str) -> None:
    index = INDICES[name]
    identical, null, measure = float(index.identical or 0), float(index.null or 0), index.measure
    assert measure.common(identical) > measure.common(null)
    assert (identical > null) == measure.larger_is_more_similar


@pytest.mark.parametrize("name", [name for name, index in INDICES.items()
                                  if index.identical is None and "stitch" in index.alignments])
def test_without_a_stated_value_of_identical_data_it_depends_on_them(name: str) -> None:
    rows = np.random.default_rng(1).normal(size=(100, 50))
    even, steep = (of_matrices(x, x, name)[name].value for x in (rows, rows / np.arange(1, 51) ** 2))
    assert abs(even - steep) > 1e-5


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
def test_it_names_formula_and_source(index: Index) -> None:
    assert index.formula
    assert index.source
    assert index.measure.about.endswith(".")
    assert (index.value is None) == (index.argument is None)


ONE_MORE = """
from suture.indices.definition import RIGID, define_index


@define_index("one_more", "one more", RIGID, formula="1", source="this test")
def one_more(pair):
    \"""One, whatever the data.\"""
    return 1.0
"""


def test_a_new_file_among_the_entries_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "an_index_more.py").write_text(ONE_MORE, encoding="utf-8")
    monkeypatch.setattr(entries, "__path__", [*entries.__path__, str(tmp_path)])
    found = collect_indices()
    assert [*found] == [*INDICES, "one_more"]
    assert of_matrices(*related(0), found["one_more"])["one_more"].value == 1
    assert found["one_more"].measure.about == "One, whatever the data."


def test_transformations_contain_others() -> None:
    assert expand_invariances("linear") == set(TRANSFORMATIONS) - {"translation"}
    assert expand_invariances("orthogonal", "translation") == {"orthogonal", "permutation", "translation"}
    assert expand_invariances("diagonal") == {"diagonal", "scaling"}


def test_an_index_of_the_users_is_the_same_object_and_states_what_its_user_states() -> None:
    def overlap(x: Matrix, y: Matrix) -> float:
        return float(abs(np.corrcoef(x[:, 0], y[:, 0])[0, 1]))

    bare = own(overlap)
    assert (bare.invariant_x, bare.invariant_y, bare.identical, bare.null, bare.symmetric) == (None,) * 5
    full = own(overlap, unchanged_x=["translation", "diagonal"], unchanged_y=(), identical=1, null=0,
               symmetric=True)
    assert full.invariant_x == {"translation", "diagonal", "scaling"}
    assert (full.invariant_y, full.identical, full.null, full.symmetric) == (frozenset(), 1, 0, True)
    assert isinstance(full, Index)
    assert math.isfinite(of_matrices(*related(0), full)["overlap"].value)
    with pytest.raises(SutureError, match="unknown transformation 'rotation'"):
        own(overlap, unchanged_x=["rotation"])
