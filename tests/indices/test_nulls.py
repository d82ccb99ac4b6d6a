"""Nulls of indices: against recomputed permutations, all permutations, and data without any relation."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from suture import SutureError
from suture.indices import INDICES, Streaming, of_matrices, own
from suture.indices.nulls.classes import ClassedRows
from suture.indices.nulls.preparation import keep_rows
from suture.indices.nulls.shuffled_rows import ShuffledRows
from suture.numbers import Exchange, MomentBlock, Pair, factorisations, spectra

N = 24
CLASSES = np.repeat([0, 1, 2], [6, 8, 10])
UNPAIRED = {"magnitude", "concentricity", "uniformity"}


def _draw(n: int = N, p: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(n, p, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X, Y = _draw().exp(), _draw(seed=1) + 0.5 * _draw()


def _null(name: Any, x: Any = X, y: Any = Y, **options: Any) -> Any:
    (value,) = of_matrices(x, y, name, **options).values()
    assert value.null is not None
    return value.null


@pytest.mark.parametrize("name", sorted(INDICES.keys() - {"cka_minibatch"} - UNPAIRED))
@pytest.mark.parametrize("within", [None, CLASSES], ids=["", "within"])
def test_draws_are_the_index_of_permuted_rows(name: str, within: Any) -> None:
    name = name if within is None else f"{name}@within"
    name = name.replace("jaccard", "jaccard:3").replace("rank_similarity", "rank_similarity:3")
    kinds = np.zeros(N, int) if within is None else within
    orders = list(Exchange.of(np.arange(N), kinds).draw(4, 9))
    expected = [of_matrices(X, Y[order], name, within=within)[name].value for order in orders]
    found = _null(name, nulls=4, seed=9, within=within)
    assert found.reason == ""
    scale = 1 if found.draws is None else np.nanstd(expected)
    sign = 1 if INDICES[name.partition("@")[0].partition(":")[0]].measure.larger_is_more_similar else -1
    got = np.mean(expected) + sign * found.draws * scale
    assert got == pytest.approx(expected, abs=1e-7)
    assert found.value == pytest.approx(of_matrices(X, Y, name, within=within)[name].value, abs=1e-9)


def _compute_within(name: str, x: Tensor, orders: Any, y: Tensor, classes: Any) -> list[float]:
    """Return the index within classes for each order of the target's rows."""
    rows = ClassedRows.of(x, y, classes)
    biased = not name.startswith("cka_debiased")
    a, b = rows.grams
    scale = (a.norm * b.norm if biased else a.unbiased * b.unbiased) ** 0.5
    found = (rows.reorder(torch.as_tensor(order)) for order in orders)
    return [(float((r.centred[0].T @ r.centred[1]).square().sum()) if biased else r.unbiased_products) / scale
            for r in found]


@pytest.mark.parametrize("name", ["cka@within", "cka_debiased@within"])
def test_the_closed_form_within_classes_is_that_of_all_permutations(name: str) -> None:
    classes = np.repeat([0, 1], 4)
    x, y = X[:8].clone(), Y[:8] * torch.linspace(1, 9, 8, dtype=torch.float64)[:, None]
    of_class = [list(permutations(rows)) for rows in (range(4), range(4, 8))]
    values = _compute_within(name, x, [a + b for a, b in product(*of_class)], y, classes)
    assert of_matrices(x, y, name, within=classes)[name].value == pytest.approx(values[0])
    found = _null(name, x, y, within=classes)
    assert found.method == "closed form"
    assert found.mean == pytest.approx(np.mean(values), abs=1e-12)
    assert found.std == pytest.approx(np.std(values), rel=1e-9)


@pytest.mark.parametrize("name", ["cka", "cka_debiased"])
@pytest.mark.parametrize("alignment", ["", "@flatten", "@within"])
def test_closed_forms_and_draws_agree(name: str, alignment: str) -> None:
    x, y = torch.relu(_draw(60, 5, 2)), torch.relu(_draw(60, 80, 3))
    classes = np.arange(60) % 3
    closed = _null(name + alignment, x, y, within=classes)
    index = own(INDICES[name].fn, f"drawn_{name}")
    if alignment == "@within":
        orders = Exchange.of(np.arange(60), classes).draw(200, 0)
        drawn = _compute_within(name, x, orders, y, classes)
        mean, std = np.mean(drawn), np.std(drawn)
    else:
        test = _null(index, x, y, nulls=200)
        mean, std = test.mean, test.std
    assert closed.mean == pytest.approx(mean, abs=4 * closed.std / 200**0.5)
    assert closed.std == pytest.approx(std, rel=0.2)


def test_the_closed_form_of_flattened_rows_is_the_same() -> None:
    for name in ("cka", "cka_debiased"):
        flat, plain = _null(f"{name}@flatten"), _null(name)
        assert (flat.mean, flat.std, flat.p) == pytest.approx((plain.mean, plain.std, plain.p), rel=1e-9)


def _walk(n: int, seed: int) -> Tensor:
    """Return 8 positions in each of n examples, of which neighbours are alike."""
    steps = _draw(n * 8, 3, seed).reshape(n, 8, 3).cumsum(1)
    return (steps + 3 * _draw(n, 3, seed + 999)[:, None]).flatten(0, 1)


def _find_rate(count: int, **options: Any) -> float:
    def draw(seed: int) -> Tensor:
        return _walk(16, seed) if "groups" in options or options == {} else _spread(seed)

    name = "cka@within" if "within" in options else "cka"
    return float(np.mean([_null(name, draw(2 * k), draw(2 * k + 1), **options).p <= 0.05
                          for k in range(count)]))


UNEQUAL = np.repeat([0, 1, 2], [40, 15, 5])


def _spread(seed: int) -> Tensor:
    scale = torch.tensor([1.0, 3.0, 12.0], dtype=torch.float64)[torch.from_numpy(UNEQUAL)]
    return _draw(60, 4, seed) * scale[:, None] + 5 * scale[:, None]


def test_positions_are_no_independent_rows_and_groups_of_them_are() -> None:
    assert _find_rate(20) > 0.5
    found = _find_rate(60, groups=np.repeat(np.arange(16), 8), nulls=19)
    assert stats.binomtest(round(60 * found), 60).proportion_ci().low < 0.07


def test_classes_of_unequal_spread_are_no_relation_within_them() -> None:
    found = _find_rate(120, within=UNEQUAL)
    interval = stats.binomtest(round(120 * found), 120).proportion_ci()
    assert interval.low < 0.07
    assert interval.high > 0.03
    centred = [[_centre(_spread(s), UNEQUAL) for s in (2 * k, 2 * k + 1)] for k in range(60)]
    assert np.mean([_null("cka", x, y).p <= 0.05 for x, y in centred]) > 0.12


def _centre(values: Tensor, classes: Any) -> Tensor:
    found = values.clone()
    for c in np.unique(classes):
        found[classes == c] -= found[classes == c].mean(0)
    return found


@pytest.mark.parametrize("name", ["cka", "r2_ridge", "opd", "rsa_pearson", "distance_correlation"])
def test_within_is_the_index_of_rows_about_class_means(name: str) -> None:
    x, y = X + 5 * torch.from_numpy(CLASSES)[:, None], Y - 3 * torch.from_numpy(CLASSES)[:, None]
    found = of_matrices(x, y, f"{name}@within", within=CLASSES)[f"{name}@within"].value
    assert found == pytest.approx(
        of_matrices(_centre(x, CLASSES), _centre(y, CLASSES), name)[name].value, abs=1e-9)


def test_held_out_r2_within_classes_takes_class_means_from_the_other_folds() -> None:
    number = np.concatenate([np.arange((c == CLASSES).sum()) for c in range(3)])
    error = total = 0.0
    for fold in range(5):
        held = number % 5 == fold
        sides = []
        for m in (X.numpy(), Y.numpy()):
            means = np.stack([m[(c == CLASSES) & ~held].mean(0) for c in range(3)])
            sides.append(m - means[CLASSES])
        weight = np.linalg.lstsq(sides[0][~held], sides[1][~held], rcond=None)[0]
        error += ((sides[1][held] - sides[0][held] @ weight) ** 2).sum()
        total += (sides[1][held] ** 2).sum()
    (found,) = of_matrices(X, Y, "r2_folds@within", within=CLASSES).values()
    assert found.value == pytest.approx(1 - error / total, abs=1e-9)


def test_class_noise_shares_nothing_within_classes() -> None:
    classes = np.random.default_rng(0).integers(0, 10, 200)
    means = 4 * _draw(10, 12, 5)[torch.from_numpy(classes)]
    target, source = means + _draw(200, 12, 6), means @ _draw(12, 12, 7) + _draw(200, 12, 8)
    related = target @ _draw(12, 12, 9) + 0.5 * _draw(200, 12, 10)
    names = ["r2_folds", "r2_folds@within", "cka_debiased@within"]
    noise = of_matrices(source, target, names, within=classes, nulls=19)
    kin = of_matrices(related, target, names, within=classes, nulls=19)
    assert noise["r2_folds"].value > 0.7
    assert noise["r2_folds@within"].value < 0.02
    assert abs(noise["cka_debiased@within"].value) < 0.05
    assert kin["r2_folds@within"].value > 0.5
    for name in names[1:]:
        assert noise[name].null.p > 0.05 >= kin[name].null.p  # type: ignore[union-attr]


def test_a_calibrated_value_is_1_where_both_sides_are_the_same() -> None:
    for name in ("cka", "opd", "r2", "mutual_knn:3"):
        found = _null(name, X, X, nulls=19)
        assert found.calibrated == pytest.approx(1, abs=1e-6)
        assert found.p <= 0.05


@pytest.mark.parametrize(("name", "options", "reason"), [
    ("magnitude", {"nulls": 9}, "does not see which row"),
    ("cca", {}, "nulls=200"),
    ("cka", {"groups": np.arange(N) // 2}, "group"),
    ("cka", {"groups": np.repeat([0, 1, 2, 3], [3, 4, 8, 9]), "nulls": 9}, "0 groups can change places"),
    ("cka", {"groups": np.arange(N) // 12, "nulls": 9}, "in 2 ways"),
    ("cka@within", {}, "no class"),
    ("cka@within", {"within": np.zeros(N, int)}, "one class"),
    ("cka@within", {"within": [None] * N}, "no example has a class"),
    ("r2", {"groups": np.repeat([0, 1], [10, 14]), "nulls": 9}, "no two have one size"),
    ("cka@within", {"within": np.arange(N) // 2}, "fewer than two classes"),
    ("cka_minibatch@flatten", {"nulls": 9}, "without @flatten"),
])
def test_a_missing_null_has_its_reason(name: str, options: Any, reason: str) -> None:
    (value,) = of_matrices(X, Y, name, **options).values()
    found = value.reason or (value.null.reason if value.null else "")
    assert reason in found
    assert value.null is None or np.isnan(value.null.p)


@pytest.mark.parametrize("option", ["groups", "within"])
@pytest.mark.parametrize("given", [np.arange(N - 1), np.linspace(0, 1, N), 3, "abc", np.zeros((N, 2), int),
                                   ["a", 1] * 12, [[1], [2, 3]] * 12, [float("inf")] * N])
def test_bad_labels_are_refused_in_one_line(option: str, given: Any) -> None:
    with pytest.raises(SutureError) as error:
        of_matrices(X, Y, "cka@within", **{option: given})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("given", [
    np.array(["a", "b", "c"])[CLASSES].tolist(), np.array(["a", "b", "c"])[CLASSES].astype(object),
    CLASSES.astype(float), torch.from_numpy(CLASSES).bfloat16(), list(torch.from_numpy(CLASSES)),
], ids=["names", "objects", "floats", "bfloat16", "tensors"])
def test_names_and_numbers_of_classes_are_the_same(given: Any) -> None:
    one, two = (of_matrices(X, Y, "cka@within", within=w)["cka@within"] for w in (CLASSES, given))
    assert one == two


@pytest.mark.parametrize("none", [-1, -100, None, float("nan")])
@pytest.mark.parametrize("names", [False, True])
def test_examples_without_a_class_are_left_out(none: Any, names: bool) -> None:
    known = [f"class {k}" for k in CLASSES] if names and not isinstance(none, int) else CLASSES.tolist()
    left = of_matrices(X, Y, "cka@within", within=[none, none, *known[2:]])["cka@within"]
    assert left.value == pytest.approx(
        of_matrices(X[2:], Y[2:], "cka@within", within=CLASSES[2:])["cka@within"].value)
    assert "2 of 24 examples" in left.mark
    with pytest.raises(SutureError, match="group for each example"):
        of_matrices(X, Y, "cka", groups=[none, *known[1:]])


def test_batches_make_no_difference() -> None:
    names, options = ["cka", "r2", "jaccard:3", "cka@within"], {"nulls": 5, "within": CLASSES}
    streaming = Streaming(names, **options)  # type: ignore[arg-type]
    for rows in (slice(0, 5), slice(5, 24)):
        streaming.update(X[rows], Y[rows])
    for name, value in of_matrices(X, Y, names, **options).items():
        assert value.null is not None
        found = streaming.values()[name].null
        assert (found.mean, found.std, found.p) == pytest.approx(  # type: ignore[union-attr]
            (value.null.mean, value.null.std, value.null.p), rel=1e-9)


def test_a_permutation_that_changes_nothing_proves_nothing() -> None:
    y = torch.eye(N, dtype=torch.float64)
    assert _null("cka", y, y).p == 1.0
    assert _null("r2_ridge", y, y, nulls=19).p == 1.0


@pytest.mark.parametrize("within", [None, CLASSES], ids=["", "within"])
def test_a_permutation_repeats_nothing_that_it_leaves_unchanged(within: Any,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    found = []
    monkeypatch.setattr(spectra, "eigh", lambda x: (calls.append(1), factorisations.eigh(x))[1])
    names = [n if within is None else f"{n}@within" for n in ("cca", "r2", "r2_folds", "gulp")]
    for draws in (3, 6):
        calls.clear()
        of_matrices(X, Y, names, nulls=draws, within=within)
        found.append(len(calls))
    assert found[0] == found[1]


@pytest.mark.parametrize("columns", [1, 3])
def test_folds_of_whole_groups_are_permuted_as_their_rows(columns: int) -> None:
    groups = np.repeat(np.arange(12), 2)
    x, y = X[:, :columns], Y
    rows = keep_rows(x, y, groups)
    shuffled = ShuffledRows(replace(rows, examples=groups), [INDICES["r2_folds"]])
    for order in map(torch.from_numpy, rows.exchange.draw(5, 3)):
        folds = [torch.from_numpy(np.flatnonzero(groups % 5 == k)) for k in range(5)]
        pair = Pair.of_block(MomentBlock.of(x, y[order], units=False),
                             [MomentBlock.of(x[f], y[order][f], units=False) for f in folds])
        index = INDICES["r2_folds"].permute()
        data = shuffled.reorder(order, {index.needs})[index.needs]
        assert index.fn(data) == pytest.approx(INDICES["r2_folds"].fn(pair), abs=1e-12)
