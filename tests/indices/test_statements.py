"""What every index states of itself, checked from its own statement."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suture import SutureError
from suture.indices import (
    INDICES,
    TRANSFORMATIONS,
    Index,
    Needs,
    chosen,
    entries,
    expand_invariances,
    of_matrices,
    own,
)
from suture.indices.entries.registry import collect_indices
from tests.support.matrices import Matrix

NAMES = [*("svcca:0.5" if n == "svcca" else n for n, i in INDICES.items() if "stitch" in i.alignments),
         *(f"{n}@flatten" for n, i in INDICES.items() if "flatten" in i.alignments)]
"""Every index of two matrices. At half of the variance SVCCA drops components of three columns and more;
where it keeps all, it is mean CCA."""
ENTRIES = {name: chosen(name)[0].index for name in NAMES}
ROOTS = {"opd_root", "shape_angular", "cka_angular", "shape", "gulp", "size_and_shape"}
"""Rounding of 1e-16 at a zero distance is 1e-8 in a root, and so in an angle."""


def value(name: str, x: Matrix, y: Matrix, **options: int) -> float:
    found = of_matrices(x, y, name, **options)[name]
    assert not found.reason
    return found.value


def related(seed: int, n: int = 50, p: int = 6, q: int = 4) -> tuple[Matrix, Matrix]:
    """Two matrices that share a signal, with means of their own."""
    g = np.random.default_rng(seed)
    x = g.normal(size=(n, p))
    return x + g.normal(size=p), x @ g.normal(size=(p, q)) + 0.5 * g.normal(size=(n, q)) + g.normal(size=q)


@pytest.mark.parametrize("how", TRANSFORMATIONS)
@pytest.mark.parametrize("side", ["x", "y"])
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=5, derandomize=True, deadline=None)
@given(seed=st.integers(0, 10**6), p=st.integers(3, 7), q=st.integers(3, 7))
def test_the_stated_transformations_leave_it_unchanged_and_every_other_changes_it(
        name: str, side: str, how: str, seed: int, p: int, q: int) -> None:
    x, y = related(seed, 50, p, q)
    transform, rng = TRANSFORMATIONS[how], np.random.default_rng(seed)
    moved = (transform(x, rng), y) if side == "x" else (x, transform(y, rng))
    stated = ENTRIES[name].invariant_x if side == "x" else ENTRIES[name].invariant_y
    change = abs(value(name, *moved) - value(name, x, y))
    assert stated is not None
    assert change < 1e-8 if how in stated else change > 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_its_value_where_the_target_is_the_source(name: str) -> None:
    values = [value(name, x, x) for x in (related(seed)[0] for seed in (1, 2))]
    if (stated := ENTRIES[name].identical) is None:
        assert abs(values[0] - values[1]) > 1e-5
    else:
        assert values == pytest.approx([stated] * 2, abs=1e-6 if name in ROOTS else 1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_its_value_for_many_unrelated_rows(name: str) -> None:
    """Shifted and unevenly scaled, so that an index that depends on such things has another value."""
    g = np.random.default_rng(5)
    x, y = g.normal(size=(2000, 3)) + 2, g.normal(size=(2000, 4)) * [2, 1, 1, 1] + 3
    found, stated = value(name, x, y), ENTRIES[name].null
    if stated is not None:
        assert found == pytest.approx(stated, abs=0.1)
    else:
        assert abs(found) > 0.1 or not ENTRIES[name].measure.judged


@pytest.mark.parametrize("name", NAMES)
def test_whether_source_and_target_may_change_places(name: str) -> None:
    x, y = related(3)
    change = abs(value(name, x, y) - value(name, y, x))
    assert change < 1e-10 if ENTRIES[name].symmetric else change > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_its_range_holds_all_values_and_its_direction_is_that_of_the_common_form(name: str) -> None:
    index = ENTRIES[name]
    low, high = index.measure.native
    for seed in range(3):
        for x, y in (related(seed), (related(seed)[0], related(seed + 9)[1]), (related(seed)[0],) * 2):
            assert low - 1e-9 <= value(name, x, y) <= high + 1e-9
    if index.identical is not None and index.null is not None:
        form = index.measure.common
        assert form(index.identical) > form(index.null)
        assert (index.identical > index.null) == index.measure.larger_is_more_similar


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
def test_it_names_formula_and_source(index: Index) -> None:
    assert index.formula
    assert index.source
    assert index.measure.about.endswith(".")
    assert (index.value is None) == (index.argument is None)
    assert index.needs in Needs


ONE_MORE = """
from suture.indices.definition import define_index
from suture.indices.transformations import RIGID


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
