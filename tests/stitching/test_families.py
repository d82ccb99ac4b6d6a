"""Families of the affine map: their names, and the table in the docs."""

from __future__ import annotations

import pathlib

import pytest
import torch

from suture._base.errors import SutureError
from suture.numbers.moments import Moments
from suture.numbers.spectra import Pair
from suture.stitching.affine import Affine
from suture.stitching.direct_matching import choose_ridge, compute_residual, direct_match
from suture.stitching.families import FAMILIES, Family
from tests.support.families import TEXTS, TRANSFORMATIONS, data, matched


@pytest.mark.parametrize("text", [*TEXTS, "ridge:1e-06", "ridge:3", "rank:1", "sparse:0.001"])
def test_a_family_is_its_text(text):
    assert str(Family.parse(text)) == text
    assert Family.parse(str(Family.parse(text))) == Family.parse(text)


def test_options_come_in_any_order():
    assert Family.parse("orthogonal:noshift,noscale") == Family("orthogonal", scale=False, shift=False)
    assert Family.parse("ridge:1e-6") == Family("ridge", strength=1e-6)


@pytest.mark.parametrize(("make", "words"), [
    (lambda: Family.parse("rigde:1"), ["rigde", "ridge"]),
    (lambda: Family.parse(""), ["unknown family"]),
    (lambda: Family.parse("ridge"), ["strength", "None", "ridge:0.1"]),
    (lambda: Family.parse("ridge:much"), ["'much'", "ridge:0.1"]),
    (lambda: Family.parse("ridge:0"), ["0.0", "full"]),
    (lambda: Family.parse("ridge:nan"), ["nan"]),
    (lambda: Family.parse("ridge:inf"), ["inf"]),
    (lambda: Family.parse("rank"), ["rank:8"]),
    (lambda: Family.parse("rank:0"), ["got 0"]),
    (lambda: Family.parse("rank:2.5"), ["'2.5'", "whole"]),
    (lambda: Family.parse("sparse:1"), ["1.0", "sparse:0.01"]),
    (lambda: Family.parse("sparse:cv"), ["'cv'"]),
    (lambda: Family.parse("full:3"), ["'3'", "write full"]),
    (lambda: Family.parse("full:"), ["write full"]),
    (lambda: Family.parse("orthogonal:noscal"), ["noscal", "noscale"]),
    (lambda: Family("full", strength=0.1), ["no strength", "ridge:0.1"]),
    (lambda: Family("full", rank=3), ["no rank", "rank:3"]),
    (lambda: Family("diagonal", scale=False), ["scale=False", "orthogonal:noscale"]),
    (lambda: Family("identity", shift=False), ["shift=False", "orthogonal:noshift"]),
    (lambda: Family("orthogonal").check(5, 3), ["5 into 3", "rank:3", "swap"]),
    (lambda: Family("diagonal").check(3, 5), ["3 into 5", "orthogonal"]),
    (lambda: Family("permutation").check(5, 3), ["5 into 3", "use full"]),
    (lambda: Family("identity").check(5, 3), ["5 into 3"]),
    (lambda: Family("rank", rank=4).check(9, 3), ["at most 3", "got 4"]),
    (lambda: Affine(5, 3, Family("orthogonal")), ["5 into 3"]),
    (lambda: matched(*data(5, 3), "orthogonal"), ["5 into 3"]),
    (lambda: direct_match(Pair.of(Moments.of(*data())), Family.parse("ridge:cv")), ["folds", "ridge:0.1"]),
    (lambda: choose_ridge([Moments.of(*data())]), ["two folds", "got 1"]),
    (lambda: choose_ridge([Moments.of(*data())] * 2, []), ["above 0"]),
    (lambda: choose_ridge([Moments.of(*data())] * 2, [1.0, 0.0]), ["above 0", "[1.0, 0.0]"]),
    (lambda: compute_residual(torch.zeros(4, 3), torch.zeros(4), Moments.of(*data())), ["(4, 4)", "(4, 3)"]),
    (lambda: compute_residual(torch.zeros(4, 4), torch.zeros(3), Moments.of(*data())), ["(4,)", "(3,)"]),
    (lambda: Affine(3, 3).set(torch.zeros(3, 2), torch.zeros(3)), ["(3, 3)", "(3, 2)"]),
    (lambda: Affine(3, 3).set(torch.full((3, 3), torch.nan), torch.zeros(3)), ["NaN"]),
    (lambda: Affine(3, 3, Family("identity")).set(torch.eye(3), torch.ones(3)), ["b = 0", "1.7"]),
    (lambda: Affine(3, 3, Family("orthogonal", shift=False)).set(torch.eye(3), torch.ones(3)), ["b = 0"]),
    (lambda: Affine(3, 3, Family.parse("ridge:cv")).penalty(), ["cv", "ridge:0.1"]),
])
def test_bad_input_is_refused_in_one_line(make, words):
    with pytest.raises(SutureError) as caught:
        make()
    assert "\n" not in str(caught.value)
    assert all(w in str(caught.value) for w in words), caught.value


def test_the_table_in_the_docs_is_the_table():
    page = (pathlib.Path(__file__).parents[2] / "docs" / "families.md").read_text()
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in page.splitlines()
            if line.startswith("| `")]
    order = list(TRANSFORMATIONS)

    def listed(kept: frozenset[str]) -> str:
        return ", ".join(sorted(kept, key=order.index)) or "none"

    assert rows == [[f"`{name}`", d.map, listed(d.invariant_x), listed(d.invariant_y), d.use]
                    for name, d in FAMILIES.items()]
