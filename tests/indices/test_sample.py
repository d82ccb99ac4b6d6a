"""Indices of a kept sample of rows, and the sample itself."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import NearestNeighbors

from suture._base.errors import SutureError
from suture.indices import GROUPS, INDICES, Rows, Sample

TABLE = {name: INDICES[name] for name in GROUPS["rows"]}
NEIGHBOURS = ("jaccard", "mutual_knn", "cknna", "rank_similarity", "second_order_cosine")
COSINE = (*NEIGHBOURS, "uniformity")


# -- slow references, from the definitions -------------------------------------------------------------------


def pairs(n):
    return [(i, j) for i in range(n) for j in range(i + 1, n)]


def squares(x):
    return [sum((a - b) ** 2 for a, b in zip(x[i], x[j], strict=True)) for i, j in pairs(len(x))]


def ranks(values):
    return [sum(w < v for w in values) + (sum(w == v for w in values) + 1) / 2 for v in values]


def pearson(a, b):
    a, b = np.array(a) - np.mean(a), np.array(b) - np.mean(b)
    return sum(a * b) / math.sqrt(sum(a * a) * sum(b * b))


def spearman(x, y):
    return pearson(ranks(squares(x)), ranks(squares(y)))


def kendall(x, y):
    a, b = np.array(squares(x)), np.array(squares(y))
    signs_a, signs_b = (np.array([np.sign(v[i] - v[j]) for i, j in pairs(len(v))]) for v in (a, b))
    return (signs_a * signs_b).sum() / math.sqrt((signs_a != 0).sum() * (signs_b != 0).sum())


def doubly_centred(matrix):
    return matrix - matrix.mean(0)[None] - matrix.mean(1)[:, None] + matrix.mean()


def distances(x):
    n = len(x)
    return np.array([[math.sqrt(sum((x[i] - x[j]) ** 2)) for j in range(n)] for i in range(n)])


def distance_correlation(x, y):
    a, b = doubly_centred(distances(x)), doubly_centred(distances(y))
    covariance, own_x, own_y = (a * b).mean(), (a * a).mean(), (b * b).mean()
    return math.sqrt(covariance / math.sqrt(own_x * own_y))


def rbf(x, fraction):
    d = distances(x)
    sigma = fraction * np.median([d[i, j] for i, j in pairs(len(x))])
    centring = np.eye(len(x)) - 1 / len(x)
    return centring @ np.exp(-d**2 / (2 * sigma**2)) @ centring


def cka_rbf(x, y, fraction=1.0):
    k, m = rbf(x, fraction), rbf(y, fraction)
    return np.trace(k @ m) / math.sqrt(np.trace(k @ k) * np.trace(m @ m))


def cosine(a, b):
    return float(a @ b / math.sqrt((a @ a) * (b @ b)))


def neighbours(x, i, k):
    others = [j for j in range(len(x)) if j != i]
    return sorted(others, key=lambda j: (-cosine(x[i], x[j]), j))[:k]


def jaccard(x, y, k=10):
    found = [(set(neighbours(x, i, k)), set(neighbours(y, i, k))) for i in range(len(x))]
    return np.mean([len(a & b) / len(a | b) for a, b in found])


def mutual_knn(x, y, k=10):
    return np.mean([len({*neighbours(x, i, k)} & {*neighbours(y, i, k)}) / k for i in range(len(x))])


def hsic_without_diagonal(a, b):
    n = len(a)
    total = np.trace(a @ b) + a.sum() * b.sum() / ((n - 1) * (n - 2)) - 2 * (a @ b).sum() / (n - 2)
    return total / (n * (n - 3))


def cknna(x, y, k=10):
    near = [[neighbours(m, i, k) for i in range(len(m))] for m in (x, y)]

    def similarities(m, *sides):
        return np.array([[cosine(m[i], m[j]) if all(j in s[i] for s in sides) else 0.0 for j in range(len(m))]
                         for i in range(len(m))])
    own = [hsic_without_diagonal(*2 * (similarities(m, s),)) for m, s in zip((x, y), near, strict=True)]
    return (hsic_without_diagonal(similarities(x, *near), similarities(y, *near))
            / (math.sqrt(own[0] * own[1]) + 1e-6))


def rank_similarity(x, y, k=10):
    def of_row(i):
        a, b = neighbours(x, i, k), neighbours(y, i, k)
        common = set(a) & set(b)
        total = 0.0
        for j in common:
            r, s = a.index(j) + 1, b.index(j) + 1
            total += 2 / ((1 + abs(r - s)) * (r + s))
        return total / sum(1 / m for m in range(1, len(common) + 1)) if common else 0.0
    return np.mean([of_row(i) for i in range(len(x))])


def second_order_cosine(x, y, k=10):
    def of_row(i):
        union = sorted({*neighbours(x, i, k), *neighbours(y, i, k)})
        return cosine(*(np.array([cosine(m[i], m[j]) for j in union]) for m in (x, y)))
    return np.mean([of_row(i) for i in range(len(x))])


def uniformity(x, y):
    def of_side(m):
        m = [row / math.sqrt(row @ row) for row in m]
        return math.log(np.mean([math.exp(-2 * sum((m[i] - m[j]) ** 2)) for i, j in pairs(len(m))]))
    return abs(of_side(x) - of_side(y))


REFERENCES = {"rsa_spearman": spearman, "rsa_kendall": kendall, "distance_correlation": distance_correlation,
              "cka_rbf": cka_rbf, "jaccard": jaccard, "mutual_knn": mutual_knn, "cknna": cknna,
              "rank_similarity": rank_similarity,
              "second_order_cosine": second_order_cosine, "uniformity": uniformity}


# -- data ----------------------------------------------------------------------------------------------------


def rotation(rng, width):
    return np.linalg.qr(rng.normal(size=(width, width)))[0]


def correlated(rng, n, p, q):
    """Two matrices that share a signal, off the origin."""
    x = rng.normal(size=(n, p)) + 0.5
    return x, x @ rng.normal(size=(p, q)) / math.sqrt(p) + 0.7 * rng.normal(size=(n, q)) + 0.3


def _cases():
    rng = np.random.default_rng(0)
    x, y = correlated(rng, 20, 4, 6)
    flat = rng.normal(size=(20, 2)) @ rng.normal(size=(2, 5)) + 1
    return {
        "random": (rng.normal(size=(20, 3)), rng.normal(size=(20, 7))),
        "correlated": (x, y),
        "rank-deficient": (flat, y),
        "wide": (rng.normal(size=(16, 40)), rng.normal(size=(16, 25))),
        "shifted": (x + 10 * x.std(0), y - 10 * y.std(0)),
        "identical": (x, x),
        "rotated": (x, x @ rotation(rng, 4)),
        "width one": (rng.normal(size=(18, 1)), rng.normal(size=(18, 1))),
        "repeated rows": (np.repeat(x[:8], 2, 0), y[:16]),
    }


CASES = _cases()


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("case", CASES)
def test_equals_the_definition(case, name):
    x, y = CASES[case]
    found = TABLE[name](Sample.of(x, y))
    if case == "width one" and name in NEIGHBOURS:
        assert found.reason == "source and target: one column, of which cosines see only the sign"
        return
    assert not found.reason
    assert found.value == pytest.approx(REFERENCES[name](x, y), abs=1e-10)
    low, high = TABLE[name].measure.native
    assert low - 1e-12 <= found.value <= high + 1e-12


@pytest.mark.parametrize("name", NEIGHBOURS)
@pytest.mark.parametrize("k", [1, 4, 18])
def test_number_of_neighbours(name, k):
    x, y = CASES["correlated"]
    k = max(k, TABLE[name].argument.low)
    index = TABLE[name].at(k)
    assert index.name == f"{name}:{k:g}"
    assert index(Sample.of(x, y)).value == pytest.approx(REFERENCES[name](x, y, int(k)), abs=1e-12)


@pytest.mark.parametrize("fraction", [0.2, 0.8, 10])
def test_bandwidth(fraction):
    x, y = CASES["shifted"]
    found = TABLE["cka_rbf"].at(fraction)(Sample.of(x, y)).value
    assert found == pytest.approx(cka_rbf(x, y, fraction), abs=1e-10)


def test_equals_libraries():
    x, y = correlated(np.random.default_rng(1), 60, 5, 8)
    sample = Sample.of(x, y)
    a, b = squares(x), squares(y)
    assert TABLE["rsa_spearman"](sample).value == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)
    assert TABLE["rsa_kendall"](sample).value == pytest.approx(stats.kendalltau(a, b).statistic, abs=1e-12)
    k, m = (rbf_kernel(v, gamma=1 / (2 * np.median(np.sqrt(d)) ** 2)) for v, d in ((x, a), (y, b)))
    k, m = doubly_centred(k), doubly_centred(m)
    assert TABLE["cka_rbf"](sample).value == pytest.approx((k * m).sum()
                                                           / math.sqrt((k * k).sum() * (m * m).sum()))
    near = [NearestNeighbors(n_neighbors=10, metric="cosine").fit(v).kneighbors()[1] for v in (x, y)]
    shares = [len({*i} & {*j}) / len({*i} | {*j}) for i, j in zip(*near, strict=True)]
    assert TABLE["jaccard"](sample).value == pytest.approx(np.mean(shares), abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_distance_correlation_is_zero_for_a_full_factorial(seed):
    """Exactly independent rows; rounding must not make a root of a negative number of it."""
    rng = np.random.default_rng(seed)
    first, second = rng.random(5), rng.random(4)
    x, y = np.array([(a, b) for a in first for b in second]).T[:, :, None]
    assert TABLE["distance_correlation"](Sample.of(x, y)).value == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize("name", TABLE)
def test_numbers_of_any_size(name):
    """Squares of large or small numbers do not overflow."""
    x, y = CASES["correlated"]
    expected = TABLE[name](Sample.of(x, y)).value
    assert TABLE[name](Sample.of(x * 1e200, y * 1e-200)).value == pytest.approx(expected, abs=1e-12)


# -- degenerate data -----------------------------------------------------------------------------------------

X, Y = CASES["correlated"]
ZERO = np.vstack([X[:-2], np.zeros((2, 4))])
CLUSTERED = np.repeat(X[:1], 20, 0)
CLUSTERED[0] += 1
DISJOINT = np.zeros((20, 60))
DISJOINT[:, :4] = np.abs(X)
DISJOINT[19] = np.eye(60)[59]
SIMPLEX = np.eye(20) @ rotation(np.random.default_rng(2), 20)


@pytest.mark.parametrize(("names", "x", "y", "reason"), [
    (TABLE, X[:1], Y[:1], "one row"),
    (TABLE, np.ones((20, 3)) * 0.1, Y, "constant source representation"),
    (TABLE, X, np.ones((20, 3)) * 0.1, "constant target representation"),
    (TABLE, np.zeros((20, 0)), Y, "constant source representation"),
    (sorted({*TABLE} - {"uniformity"}), X[:2], Y[:2], "2 rows: .* needs at least [34]"),
    (["rsa_spearman", "rsa_kendall"], SIMPLEX, Y, "source: all distances are equal"),
    (["rsa_spearman", "rsa_kendall"], SIMPLEX, SIMPLEX + 3, "source and target: all distances are equal"),
    (["cka_rbf"], X, CLUSTERED, "target: the median distance is zero"),
    (COSINE, ZERO, Y, r"rows of zeros in the source \(2\): no cosine"),
    (COSINE, ZERO, ZERO, r"rows of zeros in the source \(2\) and rows of zeros in the target \(2\)"),
    (NEIGHBOURS, X[:11], Y[:11], "11 rows: 10 neighbours of each need at least 12"),
    (NEIGHBOURS, X, SIMPLEX, "target: most nearest neighbours are no nearer"),
    (NEIGHBOURS, X[:, :1], Y, "source: one column"),
    (NEIGHBOURS, X, np.abs(X[:, :1]) * Y[:1], "target: most nearest neighbours are no nearer"),
    (["second_order_cosine"], DISJOINT, Y, "source: a row is orthogonal to all its neighbours"),
    (["second_order_cosine"], Y, DISJOINT, "target: a row is orthogonal to all its neighbours"),
])
def test_what_is_not_defined_has_a_reason(names, x, y, reason):
    sample = Sample.of(x, y)
    for name in names:
        found = TABLE[name](sample)
        assert math.isnan(found.value)
        assert re.search(reason, found.reason), (name, found.reason)


def test_too_many_neighbours_by_argument():
    assert (TABLE["jaccard"].at(19)(Sample.of(X, Y)).reason
            == "20 rows: 19 neighbours of each need at least 21")
    with pytest.raises(SutureError, match="whole number"):
        TABLE["jaccard"].at(2.5)


def test_a_row_without_neighbours_in_the_other_direction_is_no_reason():
    """All cosines of one row are negative, none is zero."""
    x = np.abs(X)
    x[0] = -x[0]
    assert TABLE["second_order_cosine"](Sample.of(x, Y)).value == pytest.approx(second_order_cosine(x, Y))


# -- samples -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given_as", [
    lambda m: m.astype(np.float16), lambda m: torch.from_numpy(m).half(),
    lambda m: torch.from_numpy(m).bfloat16(), lambda m: torch.from_numpy(m).float().requires_grad_(),
    lambda m: np.asfortranarray(m.astype(np.float32)), lambda m: (10 * m).astype(int), lambda m: m.tolist()])
def test_samples_of_any_type_are_computed_in_float64(given_as):
    sample = Sample.of(given_as(X), given_as(Y))
    assert sample.x.values.dtype == np.float64
    assert sample.n == 20
    x, y = (np.array(m if isinstance(m, list) else m.tolist()) for m in (given_as(X), given_as(Y)))
    assert TABLE["cka_rbf"](sample).value == pytest.approx(cka_rbf(x, y), abs=1e-10)


@pytest.mark.parametrize(("x", "y", "message"), [
    (X[0], Y, "expected x to be a matrix"), (X, Y[None], "expected y to be a matrix"),
    (X[:0], Y[:0], "expected x to be a matrix with rows"),
    (X[:5], Y, r"same rows, got shapes \(5, 4\) and \(20, 6\)"),
    (X, np.where(np.max(Y) <= Y, np.nan, Y), "NaN or inf in matrix y"),
    (np.where(np.max(X) <= X, np.inf, X), Y, "NaN or inf in matrix x"),
    (X * 1j, Y, "real numbers in matrix x"), (torch.from_numpy(X) * 1j, Y, "real numbers in matrix x"),
    (X, [["a"]] * 20, "real numbers in matrix y")])
def test_bad_samples_are_refused(x, y, message):
    with pytest.raises(SutureError, match=message) as error:
        Sample.of(x, y)
    assert "\n" not in str(error.value)


def test_a_site_is_computed_once_for_many_cells(monkeypatch):
    calls = []
    real = __import__("scipy.spatial.distance", fromlist=["pdist"]).pdist
    monkeypatch.setattr("scipy.spatial.distance.pdist", lambda *a: calls.append(1) or real(*a))
    side, others = Rows.of(X), [Rows.of(Y + k) for k in range(3)]
    for other in others:
        for index in TABLE.values():
            index(Sample.of(side, other))
    assert len(calls) == 2 * (1 + len(others))


def test_constant_sides():
    one = np.full((5, 2), 0.1)
    assert Sample.of(one, one + 1e6).constant == ("source", "target")
    assert Sample.of(one, Y[:5]).constant == ("source",)
    assert Sample.of(X, Y).constant == ()
    assert Sample.of([[0.1 + 0.2], [0.3]], Y[:2]).constant == ("source",)
    assert Sample.of(X * 1e-300, Y + 1e6).constant == ()


def test_reordered_rows_are_those_of_the_matrix_in_that_order() -> None:
    rng = np.random.default_rng(0)
    values = np.maximum(0, rng.normal(size=(40, 3)) + 0.5) + 0.01
    values[10:20] = values[:10]  # equal rows, of which the lower number is nearer
    values[30:34] = values[0]
    order = rng.permutation(40)
    known = Rows.of(values).remembering()
    moved, fresh = known.reorder(order), Rows.of(values[order])
    for k in (1, 3, 7):
        found, expected = moved.find_nearest(k), fresh.find_nearest(k)
        assert (found[0] == expected[0]).all()
        assert (found[1] == expected[1]).all()
    for name in ("squared", "ranks", "unit", "constant", "zeros", "uniformity"):
        assert np.allclose(getattr(moved, name), getattr(fresh, name), atol=1e-12), name
