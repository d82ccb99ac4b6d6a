"""What a classifier between native and stitched features sees, what it does not see, and that it never
cheats."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from suture.ood.two_sample import score_two_sample

N, F = 500, 16


def normal(n: int = N, f: int = F, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, f))


def auroc(native: np.ndarray, stitched: np.ndarray) -> float:
    return roc_auc_score(np.repeat([1, 0], len(native)), np.concatenate([native, stitched]))


def chance(n: int) -> float:
    """Three standard errors of the AUROC of two equal distributions (Mann and Whitney 1947)."""
    return 3 * np.sqrt((2 * n + 1) / (12 * n**2))


def turned(x: np.ndarray, angle: float = np.pi / 2) -> np.ndarray:
    """The first two columns turned about 0."""
    c, s = np.cos(angle), np.sin(angle)
    return np.column_stack([x[:, :2] @ np.array([[c, s], [-s, c]]), x[:, 2:]])


UNEQUAL = normal() * np.array([3.0, 1.0, *[0.5] * (F - 2)])
EQUAL = np.column_stack([normal(f=1), normal(f=1, seed=1)]) @ np.array([[1, 0.9], [0, np.sqrt(1 - 0.81)]])
SEEN = {
    # name: native, stitched, seen
    "another sample": (normal(), normal(seed=1), False),
    "noise of zero mean on top": (3 * normal(), 3 * normal() + 0.1 * normal(seed=1), False),
    "shift": (normal(), normal() + 0.5, True),
    "shift of one column": (normal(), normal() + 1.5 * (np.arange(F) == 3), True),
    "shrunken": (normal(), normal() / 2, True),
    "blown up": (normal(), normal() * 2, True),
    "variance moved": (UNEQUAL, turned(UNEQUAL), True),
    "correlation of another sign": (EQUAL, turned(EQUAL), False),
    "mirrored": (normal(), -normal(), False),
}


@pytest.mark.parametrize("case", SEEN)
def test_what_is_seen(case: str) -> None:
    native, stitched, seen = SEEN[case]
    got = auroc(*score_two_sample(native, stitched))
    if seen:
        assert got > 0.75
    else:
        assert abs(got - 0.5) < chance(N)


@pytest.mark.parametrize("examples", [40, 500])
def test_equal_distributions_are_at_chance_on_average(examples: int) -> None:
    """More features than training examples do not help: scores are out of fold."""
    found = [auroc(*score_two_sample(normal(examples, 60, seed=s), normal(examples, 60, seed=s + 100)))
             for s in range(12)]
    assert abs(np.mean(found) - 0.5) < chance(examples) / np.sqrt(12)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_equal_features_have_equal_scores(scale: float) -> None:
    x = scale * (normal(301, 37) ** 3 + 5)
    native, stitched = score_two_sample(x, x.copy())
    assert np.array_equal(native, stitched)
    assert auroc(native, stitched) == 0.5


@pytest.mark.parametrize("features", [16, 33, 1000])
@pytest.mark.parametrize("examples", [5, 50, 122])
def test_equal_examples_have_equal_scores_beside_different_ones(features: int, examples: int) -> None:
    """To the last bit: a product of many rows rounds a row by where it stands."""
    native, stitched = normal(examples, features), normal(examples, features, seed=1) + 1
    equal = np.array_split(np.random.default_rng(0).permutation(examples), 2)[0]
    native[equal] = stitched[equal]
    a, b = score_two_sample(native, stitched, folds=2)
    assert np.array_equal(a[equal], b[equal])
    assert a[equal].any()


def test_rounding_of_float32_is_not_a_difference() -> None:
    x = (normal() * np.logspace(0, -3, F) + 10).astype(np.float32)
    x[:, 3], x[:, 4] = 7, 0
    other = (x * (1 + 1e-7 * normal(seed=1))).astype(np.float32)
    other[:, 4] = 1e-9
    assert auroc(*score_two_sample(x, other)) == pytest.approx(0.5, abs=0.001)


def test_constant_features_change_nothing() -> None:
    native, stitched = normal(), normal(seed=1) + 0.3
    wanted = score_two_sample(native, stitched)
    constant = [np.zeros((N, 1)), np.full((N, 1), 0.1), np.full((N, 1), 1e6)]
    got = score_two_sample(np.hstack([native, *constant]), np.hstack([stitched, *constant]))
    assert np.stack(got) == pytest.approx(np.stack(wanted), abs=1e-9)
    nothing = score_two_sample(np.ones((N, 2)), np.ones((N, 2)))
    assert not np.stack(nothing).any()


def test_a_feature_that_is_constant_in_each_but_different_tells_them_apart() -> None:
    assert auroc(*score_two_sample(np.zeros((N, 1)), np.ones((N, 1)))) == 1


def with_squares(x: np.ndarray) -> np.ndarray:
    return np.hstack([x, x**2])


def test_equals_scikit_learn_fold_by_fold() -> None:
    native, stitched = normal(60, 5) * np.arange(1, 6), normal(60, 5, seed=1) + 0.5
    native_scores, stitched_scores = score_two_sample(native, stitched, folds=3, seed=4)
    for held in np.array_split(np.random.default_rng(4).permutation(60), 3):
        rest = np.setdiff1d(np.arange(60), held)
        model = make_pipeline(StandardScaler(), FunctionTransformer(with_squares), StandardScaler(),
                              LogisticRegression(tol=1e-9, max_iter=10_000))
        model.fit(np.vstack([native[rest], stitched[rest]]), [1] * len(rest) + [0] * len(rest))
        assert native_scores[held] == pytest.approx(model.decision_function(native[held]), rel=5e-3, abs=2e-2)
        assert stitched_scores[held] == pytest.approx(model.decision_function(stitched[held]),
                                                      rel=5e-3, abs=2e-2)


@pytest.mark.parametrize("half", [0, 1])
def test_an_example_is_scored_without_either_of_its_versions(half: int) -> None:
    """Moving one version of an example moves the scores of its own fold at that version only, and all other
    folds'."""
    pair = np.stack([normal(40, 4), normal(40, 4, seed=1) + 0.5])
    before = np.stack(score_two_sample(*pair, folds=4))
    fold = next(f for f in np.array_split(np.random.default_rng(0).permutation(40), 4) if 7 in f)
    pair[half, 7] += 100
    changed = np.stack(score_two_sample(*pair, folds=4)) != before
    inside = np.zeros_like(changed)
    inside[:, fold] = True
    assert changed[half, 7]
    assert changed[inside].sum() == 1
    assert changed[~inside].all()


def test_versions_of_an_example_in_different_folds_would_be_learned() -> None:
    """Each example lies far from all others, so who has seen one version knows it; by example nothing is
    learned."""
    native = 10 * normal(60, 200)
    stitched = native + 0.01 * normal(60, 200, seed=1)
    assert abs(auroc(*score_two_sample(native, stitched)) - 0.5) < 0.1


def test_exchanging_the_two_turns_the_sign() -> None:
    native, stitched = normal(), normal(seed=1) * 1.5 + 0.3
    a, b = score_two_sample(native, stitched)
    d, c = score_two_sample(stitched, native)
    assert np.concatenate([a, b]) == pytest.approx(-np.concatenate([c, d]), abs=5e-3)


def test_the_unit_of_a_feature_does_not_matter() -> None:
    native, stitched, unit = normal(), normal(seed=1) + 0.3, np.logspace(-2, 2, F)
    assert np.stack(score_two_sample(unit * native, unit * stitched)) == pytest.approx(
        np.stack(score_two_sample(native, stitched)), abs=1e-6)


def test_a_seed_decides_the_folds_and_nothing_else_does() -> None:
    native, stitched = normal(50, 3), normal(50, 3, seed=1) + 0.5
    one, again, other = (np.stack(score_two_sample(native, stitched, seed=s)) for s in (0, 0, 1))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("n", [2, 3, 7])
def test_few_examples_are_left_out_one_by_one(n: int) -> None:
    native, stitched = score_two_sample(np.zeros((n, 1)) + np.arange(n)[:, None] / 10, np.ones((n, 1)) * 5)
    assert native.shape == stitched.shape == (n,)
    assert native.min() > stitched.max()


def test_means_made_equal_on_the_examples_themselves_lean_to_the_wrong_side() -> None:
    """The warning of the docstring, as a number."""
    native, stitched = normal(500, 128), normal(500, 128, seed=1)
    got = auroc(*score_two_sample(native - native.mean(0), stitched - stitched.mean(0)))
    assert 0.3 < got < 0.5 - chance(500)
