"""Families of the affine map: their names, and the table in the docs."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass

import pytest
import torch

from suture._base.errors import SutureError
from suture.numbers.moments import Moments
from suture.numbers.spectra import Pair
from suture.stitching.direct_matching import choose_ridge, direct_match
from suture.stitching.families import (
    FAMILIES,
    Diagonal,
    Full,
    Identity,
    Orthogonal,
    Permutation,
    Rank,
    Ridge,
)
from suture.stitching.family import Family
from suture.stitching.layer import Affine
from tests.support.families import TEXTS, TRANSFORMATIONS, data, matched


@pytest.mark.parametrize("text", [*TEXTS, "ridge:1e-06", "ridge:3", "rank:1", "sparse:0.001"])
def test_a_family_is_its_text(text):
    assert str(Family.parse(text)) == text
    assert Family.parse(str(Family.parse(text))) == Family.parse(text)


def test_options_come_in_any_order():
    assert Family.parse("orthogonal:noshift,noscale") == Orthogonal(scale=False, shift=False)
    assert Family.parse("ridge:1e-6") == Ridge(strength=1e-6)


def test_every_example_is_its_familys():
    for name, family in FAMILIES.items():
        assert family.name == name
        for text in family.examples:
            assert str(Family.parse(text)) == text
            assert type(Family.parse(text)) is family


@pytest.mark.parametrize(("make", "words"), [
    (lambda: Family.parse("rigde:1"), ["rigde", "ridge"]),
    (lambda: Family.parse(""), ["unknown family"]),
    (lambda: Family.parse("ridge"), ["'ridge'", "ridge:0.1"]),
    (lambda: Family.parse("ridge:1,2"), ["'ridge:1,2'", "ridge:0.1"]),
    (lambda: Family.parse("ridge:much"), ["'much'", "ridge:0.1"]),
    (lambda: Family.parse("ridge:0"), ["strength", "got 0"]),
    (lambda: Family.parse("ridge:nan"), ["nan"]),
    (lambda: Family.parse("ridge:inf"), ["inf"]),
    (lambda: Family.parse("rank"), ["rank:8"]),
    (lambda: Family.parse("rank:0"), ["got 0"]),
    (lambda: Family.parse("rank:2.5"), ["2.5", "whole"]),
    (lambda: Family.parse("sparse:1"), ["got 1", "sparse:0.01"]),
    (lambda: Family.parse("sparse:cv"), ["'cv'"]),
    (lambda: Family.parse("full:3"), ["'full:3'", "write full"]),
    (lambda: Family.parse("full:"), ["write full"]),
    (lambda: Family.parse("orthogonal:noscal"), ["noscal", "noscale"]),
    (lambda: Family("full"), ["Family.parse("]),
    (lambda: Full(strength=0.1), ["strength"]),
    (lambda: Orthogonal(scale=0), ["scale", "0"]),
    (lambda: Rank(True), ["rank", "True"]),
    (lambda: Orthogonal().check(5, 3), ["5 into 3", "rank:3", "swap"]),
    (lambda: Diagonal().check(3, 5), ["3 into 5", "use full"]),
    (lambda: Permutation().check(5, 3), ["5 into 3", "use full"]),
    (lambda: Identity().check(5, 3), ["5 into 3"]),
    (lambda: Rank(4).check(9, 3), ["at most 3", "got 4"]),
    (lambda: Identity().check_training(), ["identity", "methods=['dm']"]),
    (lambda: Ridge("cv").check_training(), ["cv", "ridge:0.1"]),
    (lambda: Affine(5, 3, Orthogonal()), ["5 into 3"]),
    (lambda: matched(*data(5, 3), "orthogonal"), ["5 into 3"]),
    (lambda: direct_match(Pair.of(Moments.of(*data())), Family.parse("ridge:cv")), ["folds", "ridge:0.1"]),
    (lambda: choose_ridge([Moments.of(*data())]), ["two folds", "got 1"]),
    (lambda: Affine(3, 3).set(torch.zeros(3, 2), torch.zeros(3)), ["(3, 3)", "(3, 2)"]),
    (lambda: Affine(3, 3).set(torch.full((3, 3), torch.nan), torch.zeros(3)), ["NaN"]),
    (lambda: Affine(3, 3, Identity()).set(torch.eye(3), torch.ones(3)), ["b = 0", "1.7"]),
    (lambda: Affine(3, 3, Orthogonal(shift=False)).set(torch.eye(3), torch.ones(3)), ["b = 0"]),
])
def test_bad_input_is_refused_in_one_line(make, words):
    with pytest.raises(SutureError) as caught:
        make()
    assert "\n" not in str(caught.value)
    assert all(w in str(caught.value) for w in words), caught.value


def test_a_new_family_is_one_class_and_one_line(monkeypatch):
    @dataclass(frozen=True)
    class Scaled(Family):
        """W = s I."""

        factor: float = 1.0
        name, examples, square = "scaled", ("scaled:2.5",), True
        invariances = frozenset({"translation"}), frozenset({"translation"})

        def solve(self, pair):
            return self.factor * torch.eye(pair.x.width, dtype=torch.float64)

    monkeypatch.setitem(FAMILIES, "scaled", Scaled)
    family = Family.parse("scaled:2.5")
    assert str(family) == "scaled:2.5"
    x = data()[0]
    m = direct_match(Pair.of(Moments.of(x, 2.5 * x + 1)), family)
    assert m.residual == pytest.approx(0, abs=1e-12)
    with pytest.raises(SutureError, match="3 into 5"):
        direct_match(Pair.of(Moments.of(*data(3, 5))), family)


def test_the_table_in_the_docs_is_the_table():
    page = (pathlib.Path(__file__).parents[2] / "docs" / "families.md").read_text()
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in page.splitlines()
            if line.startswith("| `")]
    order = list(TRANSFORMATIONS)

    def listed(kept: frozenset[str]) -> str:
        return ", ".join(sorted(kept, key=order.index)) or "none"

    defaults = [Family.parse(family.examples[0]) for family in FAMILIES.values()]
    assert [(row[0], *row[2:4]) for row in rows] == [
        (f"`{f.name}`", *(listed(kept) for kept in f.invariances)) for f in defaults]
    assert all(f"`{text}`" in page for family in FAMILIES.values() for text in family.examples
               if ":" in text and text not in ("rank:8", "ridge:cv"))
