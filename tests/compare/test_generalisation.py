"""Fits that do not carry over to new data: direct matching and indices from few independent rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import suture
from suture.compare.fitting import moments
from suture.indices import INDICES, chosen, of_matrices
from suture.numbers import Moments, NumericalError, Pair
from suture.representations import Alignment, Kind, Shape
from suture.stitching import Family, direct_match, explain_overfit


class Wide(nn.Module):
    """Two blocks of 48 units with large weights."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.i, self.fc = nn.Linear(48, 48), nn.Linear(48, 3)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(48, 48), nn.Tanh()) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.i(x)
        for block in self.blocks:
            x = block(3 * x)
        return self.fc(x)


def inputs(n: int, seed: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, 48, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return x, Wide(1)(x).argmax(1)


def compared(n: int, held_out: bool = True, **options: Any) -> suture.Comparison:
    return suture.compare(Wide(0), Wide(1), inputs(n, 0), inputs(400, 1) if held_out else None, ood=None,
                          methods=["dm"], indices=(), **options)


@pytest.mark.parametrize("held_out", [True, False])
def test_a_fit_that_does_not_carry_over_is_marked_in_every_row_of_its_cell(held_out: bool) -> None:
    few, many = compared(70, held_out), compared(3000, held_out)
    marks = few.matrix("dm.r2", "mark").to_numpy()
    for i, j in np.ndindex(marks.shape):
        fit = 1 - few.arrays["dm.fit_residual"][i, j]
        new = few.matrix("dm.r2").iloc[i, j] if held_out else 1 - few.arrays["dm.expected_residual"][i, j]
        assert fit - new > 0.1
        assert f"R² {fit:.2f} on the fitting data, {new:.2f}" in marks[i, j]
    assert (few.matrix("dm.relative_accuracy", "mark").to_numpy() == marks).all()
    assert any("does not generalise in 4 of 4 cells" in note for note in few.meta["notes"])
    assert not many.matrix("dm.r2", "mark").to_numpy().any()
    assert not any("generalise" in note for note in many.meta["notes"])


def test_a_continued_run_has_the_same_marks() -> None:
    stages: list[suture.Comparison] = []
    whole = compared(70, on_stage=stages.append)
    again = compared(70, previous=stages[0])
    assert (again.table["mark"] == whole.table["mark"]).all()
    assert again.table["mark"].any()


def test_a_cell_that_does_not_work_is_unproven_while_its_fit_does_not_generalise() -> None:
    few = suture.compare(Wide(0), Wide(1), inputs(70, 0), inputs(400, 1), ood=("mahalanobis",),
                         methods=["dm"])
    failing = few.matrix("dm.relative_accuracy") < 0.8
    assert failing.to_numpy().any()
    assert (few.cells("dm").to_numpy()[failing] == "unproven").all()
    assert "does not generalise" in few.cells("dm", "reason").to_numpy()[failing][0]


def test_without_a_solution_in_any_cell_there_is_nothing_to_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object) -> None:
        raise NumericalError("sparse:0.01 does not converge")

    monkeypatch.setattr(moments, "direct_match", fail)
    found = compared(70)
    assert (found.matrix("dm.r2", "reason") == "sparse:0.01 does not converge").all(axis=None)
    assert not found.table["mark"].any()


def test_a_single_layer_says_so_too() -> None:
    few, many = (suture.stitch(Wide(0), "blocks.0", Wide(1), "blocks.1", inputs(n, 0)).fit["mark"]
                 for n in (70, 3000))
    assert "does not generalise" in few
    assert not many


def test_stitching_a_network_to_itself_is_not_marked_where_the_rows_suffice() -> None:
    result = suture.compare(Wide(0), None, inputs(70, 0), ood=None, methods=["dm"])
    marks = result.matrix("dm.r2", "mark").to_numpy()
    assert not marks.diagonal().any()


@pytest.mark.parametrize(("fit", "new", "tested", "words"), [
    (0.9, 0.85, 0.85, ""), (0.905, 0.5, -0.098, "0.91 on the fitting data, -0.10 on the test data"),
    (0.9, -math.inf, None, "below 0 expected"), (0.5, 0.39, None, "0.50 on the fitting data, 0.39 expected"),
    (math.nan, math.nan, math.nan, ""), (0.9, 0.2, math.nan, "")])
def test_the_drop_decides(fit: float, new: float, tested: float | None, words: str) -> None:
    mark = explain_overfit(1 - fit, 1 - new, tested)
    assert words in mark
    assert bool(mark) == bool(words)


FREE = "full", "ridge:0.3", "sparse:0.01"


@pytest.mark.parametrize("text", [*FREE, "rank:3", "diagonal", "orthogonal", "identity", "permutation"])
def test_the_expected_residual_is_that_of_new_rows(text: str) -> None:
    """Against fresh rows, averaged over draws of the fitting data."""
    p, n, family, rng = 12, 60, Family.parse(text), np.random.default_rng(0)
    truth = rng.normal(size=(p, p)) / p**0.5 + np.eye(p)

    def draw(rows: int) -> tuple[Tensor, Tensor]:
        x = rng.normal(size=(rows, p))
        return torch.from_numpy(x), torch.from_numpy(x @ truth + 1.5 * rng.normal(size=(rows, p)))

    expected, measured = [], []
    for _ in range(25):
        found = direct_match(Pair.of(Moments.of(*draw(n))), family)
        x, y = draw(2000)
        error = (x @ found.weight.T + found.bias - y).square().sum()
        expected.append(found.expected)
        measured.append(float(error / (y - y.mean(0)).square().sum()))
    # A smaller family does not contain the truth; the formula neglects what that adds to the variance.
    assert np.mean(expected) == pytest.approx(np.mean(measured), rel=0.06 if text in FREE else 0.1)


def test_as_many_rows_as_parameters_expect_anything() -> None:
    x, y = torch.randn(12, 12, dtype=torch.float64), torch.randn(12, 3, dtype=torch.float64)
    assert direct_match(Pair.of(Moments.of(x, y))).expected == math.inf


@pytest.mark.parametrize(("source", "target", "share"), [
    (Shape(Kind.MAP, 3, (4, 4)), Shape(Kind.MAP, 5, (16, 16)), 1 / 16),
    (Shape(Kind.MAP, 3, (16, 16)), Shape(Kind.MAP, 5, (4, 4)), 1.0),
    (Shape(Kind.MAP, 3, (2, 8)), Shape(Kind.MAP, 5, (8, 2)), 1 / 4),
    (Shape(Kind.VECTOR, 3), Shape(Kind.MAP, 5, (4, 4)), 1 / 16),
    (Shape(Kind.MAP, 3, (4, 4)), Shape(Kind.VECTOR, 5), 1.0),
    (Shape(Kind.TOKENS, 3, (7,), varies=True), Shape(Kind.TOKENS, 5, (7,), varies=True), 1.0),
    (Shape(Kind.MAP, 3, (2, 2)), Shape(Kind.TOKENS, 5, (17,), 1, (4, 4)), 5 / 17)])
def test_upsampled_rows_are_not_independent(source: Shape, target: Shape, share: float) -> None:
    assert Alignment(source, target).independent_share == pytest.approx(share)


def test_rows_are_counted_before_upsampling() -> None:
    """60 images of 2x2 positions hold 240 rows, however large the target's maps are."""

    class Coarse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 30, 3, padding=1), nn.Conv2d(30, 30, 3, stride=4, padding=1)
            self.fc = nn.Linear(30, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.b(self.a(x).tanh()).mean((2, 3)))

    torch.manual_seed(0)
    result = suture.compare(Coarse(), Coarse(), [(torch.randn(60, 1, 8, 8),)], sites=["a", "b"], methods=[],
                            indices=["pwcca", "r2"])
    assert "with 240 independent rows" in result.matrix("pwcca", "mark").loc["b", "a"]
    assert result.matrix("pwcca", "mark").loc["a", "a"] == "", "3,840 rows for a rank of 9"
    few = suture.compare(Coarse(), Coarse(), [(torch.randn(8, 1, 8, 8),)], sites=["a", "b"], methods=[],
                         indices=["pwcca", "r2"])
    assert "32 rows for ranks 30 and 9" in few.matrix("pwcca", "reason").loc["b", "a"]


CHANCE = [name for name, index in INDICES.items() if index.chance is not None]


@pytest.mark.parametrize("name", CHANCE)
@pytest.mark.parametrize(("n", "p", "q"), [(100, 20, 20), (150, 40, 15), (60, 6, 3)])
def test_the_level_of_chance_is_what_unrelated_data_give(name: str, n: int, p: int, q: int) -> None:
    index, rng = chosen([name])[0].index, np.random.default_rng(1)
    draws = [(rng.normal(size=(n, p)), rng.normal(size=(n, q))) for _ in range(10)]
    values = [of_matrices(x, y, [name])[name].value for x, y in draws]
    pair = Pair.of(Moments.of(*map(torch.from_numpy, draws[0])))
    one = index.identical if index.identical is not None else 1.0
    zero = (1.0 if name == "dm_residual" else 0.0) if index.null is None else index.null
    found = (np.mean(values) - zero) / (one - zero)
    assert index.chance(pair, *index.arguments) == pytest.approx(found, rel=0.3, abs=0.02)


def test_flattened_examples_have_the_chance_level_of_their_rows() -> None:
    x, y = (np.random.default_rng(k).normal(size=(40, 300)) for k in range(2))
    found = of_matrices(x, y, ["cka", "cka@flatten"])
    assert found["cka@flatten"].value > 0.8
    for value in found.values():
        assert "few rows: with 40 independent rows" in value.mark
    many = of_matrices(*(np.random.default_rng(k).normal(size=(4000, 30)) for k in range(2)), ["cka", "r2"])
    assert not any(value.mark for value in many.values())
