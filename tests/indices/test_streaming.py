"""Matrices in batches, of any type; what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from suture import SutureError
from suture.indices import INDICES, Streaming, of_matrices
from tests.support import references
from tests.support.matrices import Matrix, X, Y, matrices

ROOTS = {"opd_root", "shape_angular", "cka_angular", "shape", "gulp", "size_and_shape"}
"""Rounding of 1e-16 at a zero distance is 1e-8 in a root, and so in an angle."""
EVERYTHING = ["all", "jaccard:3", "cka@flatten", "cka_debiased@flatten", "cka_minibatch@flatten"]


@pytest.mark.parametrize("cuts", [[1, 2, 3, 4, 5, 30, 58], list(range(1, 60))])
def test_batches_of_rows_change_no_number(cuts: list[int]) -> None:
    options: dict[str, Any] = {"jackknife": 5, "sample": 40, "seed": 2}
    streaming = Streaming(EVERYTHING, **options)
    for x, y in zip(np.split(X, cuts), np.split(Y, cuts), strict=True):
        streaming.update(x, y)
    assert streaming.n == 60
    found, whole = streaming.values(), of_matrices(X, Y, EVERYTHING, **options)
    assert list(found) == list(whole)
    for name, value in whole.items():
        loose = 1e-7 if name in ROOTS else 1e-10
        numbers = [(v.value, v.low, v.high) for v in (found[name], value)]
        assert numbers[0] == pytest.approx(numbers[1], abs=loose, rel=1e-9, nan_ok=True), name
        assert value.reason == found[name].reason == ""


def test_values_may_be_asked_for_on_the_way() -> None:
    streaming = Streaming(EVERYTHING)
    streaming.update(X[:40], Y[:40])
    assert streaming.values() == of_matrices(X[:40], Y[:40], EVERYTHING)
    streaming.update(X[40:], Y[40:])
    assert streaming.values()["cka"].value == pytest.approx(references.cka(X, Y), abs=1e-10)


def test_everything_is_computed_in_float64() -> None:
    """Gram matrices of flattened rows were in float32: their digits were lost to the mean."""
    far = X + 1e6
    for name in ("cka@flatten", "cka_minibatch@flatten", "cka", "cka_debiased"):
        hsic = references.hsic_biased if name in ("cka@flatten", "cka") else references.hsic_unbiased
        for given in (far, far.tolist(), torch.tensor(far)):
            assert of_matrices(given, Y, name)[name].value == pytest.approx(references.cka(X, Y, hsic),
                                                                            abs=1e-7), name


@pytest.mark.parametrize("given", [
    lambda m: m.astype(np.float16), lambda m: torch.tensor(m).half(), lambda m: torch.tensor(m).bfloat16(),
    lambda m: (m * 9).astype(int), lambda m: m > 1, lambda m: torch.tensor(m, requires_grad=True),
    lambda m: m.astype(">f8"), lambda m: m[::-1], lambda m: m.astype(np.uint16),
    lambda m: np.asfortranarray(m),
])
def test_matrices_of_any_real_type(given: Callable[[Matrix], Any]) -> None:
    x, y = given(np.abs(X)), given(np.abs(Y))
    wide = [np.asarray(m.detach().double() if isinstance(m, torch.Tensor) else m, dtype=np.float64)
            for m in (x, y)]
    found, wanted = of_matrices(x, y, EVERYTHING), of_matrices(wide[0], wide[1], EVERYTHING)
    assert {k: v.reason for k, v in found.items()} == {k: v.reason for k, v in wanted.items()}
    assert [v.value for v in found.values()] == pytest.approx([v.value for v in wanted.values()],
                                                              nan_ok=True, rel=1e-9)
    assert found["cka"].reason == ""


@pytest.mark.parametrize(("x", "words"), [
    (X[:-1], "the same rows"), (X[:, 0], r"\(60,\)"), (X[..., None], r"\(60, 5, 1\)"), (X[:0], "shape"),
    (X[:, :0], "expected at least one columns, got 0 and 4"), (X + 1j, "expected real numbers in matrix x"),
    (torch.tensor(X + 1j), "expected real numbers"),
    (X.astype(object), "real numbers in matrix x, got object"), ("abc", "expected x to be a matrix"),
    (None, "expected x to be a matrix"), (3.0, "expected x to be a matrix"),
    (np.where(X > 1.5, np.nan, X), "NaN or inf in matrix x"),
    (np.where(X > 1.5, np.inf, X), "NaN or inf in matrix x"),
    (torch.tensor(X).half() * 1e6, "NaN or inf in matrix x"),
])
def test_what_are_no_two_matrices_is_refused_in_one_line(x: Any, words: str) -> None:
    with pytest.raises(SutureError, match=words) as e:
        of_matrices(x, Y, EVERYTHING)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("names", [["cka"], ["cka@flatten"], ["jaccard"]])
def test_batches_of_other_widths_are_refused_and_change_nothing(names: list[str]) -> None:
    streaming = Streaming(names)
    with pytest.raises(SutureError, match="at least one batch of rows, got none"):
        streaming.values()
    streaming.update(X, Y)
    before = streaming.values()
    for x, y in ((X[:, :3], Y), (X, Y[:, :3]), (np.full((3, 5), np.nan), Y[:3])):
        with pytest.raises(SutureError, match=r"expected 5 and 4 columns, got|NaN"):
            streaming.update(x, y)
    assert streaming.values() == before


@pytest.mark.parametrize("name", ["cka@pool", "cka@paper", "svcca:0.9@pool"])
def test_two_matrices_have_no_positions(name: str) -> None:
    with pytest.raises(SutureError, match=f"got {name!r}; write {name.partition('@')[0]!r}"):
        of_matrices(X, Y, name)


@pytest.mark.parametrize(("jackknife", "wanted"), [
    (3, "0 or a multiple of 5"), (-5, "0 or a multiple of 5"), (2.5, "a whole number"),
    (True, "a whole number"), (None, "a whole number"), (10**12, "at most 1000"),
])
def test_wrong_blocks_are_quoted(jackknife: Any, wanted: str) -> None:
    with pytest.raises(SutureError, match=rf"jackknife.*{wanted}.*, got {jackknife!r}; "):
        of_matrices(X, Y, jackknife=jackknife)


CONSTANT = np.full((60, 5), 0.1)


@pytest.mark.parametrize(("x", "y"), [
    (CONSTANT, Y), (Y, CONSTANT), (CONSTANT, CONSTANT), (X[:1], Y[:1]), (X[:2], Y[:2]), (X[:3], Y[:3]),
    (X[:4], Y[:4]), (X[:, :1], Y), (X, Y[:, :1]),
    (X[:, :1], Y[:, :1]), (np.repeat(X[:1], 60, 0) * [[1]] + 1e-300, Y), (X * 0, Y),
    (np.eye(60)[:, :5], Y), (X + 1e12, Y), (X * 1e60, Y), (X * 1e-60, Y),
    (X * 1e150, Y), (X * 1e-150, Y),
    (np.repeat(X[:2], 30, 0), Y), (X[:, [0, 0, 0]], Y), (matrices(8, 30, 20)[0], Y[:8]),
])
def test_degenerate_matrices_give_a_number_or_a_reason(x: Matrix, y: Matrix) -> None:
    for jackknife in (0, 5):
        for name, value in of_matrices(x, y, EVERYTHING, jackknife=jackknife).items():
            assert math.isnan(value.value) == (value.reason != ""), name
            assert "\n" not in value.reason
            base = INDICES.get(name.partition("@")[0].partition(":")[0])
            assert base is not None
            low, high = base.measure.native
            assert value.reason or low - 1e-6 <= value.value <= high + 1e-6, (name, value)


@pytest.mark.parametrize("name", [n for n, i in INDICES.items() if n != "cka_minibatch"])
def test_fewer_rows_than_the_least_are_a_reason(name: str) -> None:
    least = INDICES[name].least
    for n in range(1, least):
        reason = of_matrices(X[:n], Y[:n], name)[name].reason
        assert reason.startswith("one row" if n == 1 else f"{n} rows: "), (n, reason)


def test_rows_of_different_lengths_are_refused() -> None:
    with pytest.raises(SutureError, match="different lengths"):
        of_matrices([[1.0, 2.0], [3.0]], Y)


@pytest.mark.parametrize("name", ["jaccard", "cka@flatten", "cka_minibatch@flatten"])
def test_only_what_the_indices_need_is_accumulated(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suture._base.runtime.get_free_bytes", lambda device: 0)
    with pytest.raises(SutureError, match="the sums of 5 and 4 columns to fit"):
        of_matrices(X, Y, ["cka", name])
    streaming = Streaming(name, jackknife=5)
    streaming.update(X, Y)
    assert streaming.blocks == []
    assert streaming.values()[name].reason == ""
    if streaming._kernels is not None:
        assert streaming._kernels.kept == (60 if name == "cka@flatten" else 0)
