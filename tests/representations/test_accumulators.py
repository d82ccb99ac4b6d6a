"""Indices of every alignment inside a comparison, against representations captured and aligned by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import suture
from suture import Paired, SutureError, indices
from suture.compare.fitting.token_share import TokenShare
from suture.indices import GROUPS, chosen, own
from suture.numbers import Reservoir
from suture.representations import Accumulators, AccumulatorSettings
from suture.representations.alignment import Alignment
from suture.representations.shapes import Kind, Shape
from tests.support import references, tiny
from tests.support.kinds import SHAPES, batch
from tests.support.tiny import seeded
from tests.support.windows import IMAGES, Windows, first

Matrix = Any
N = 40
EXAMPLES_ONLY = {"rsa_correlation", "rsa_correlation_cosine", "concentricity"}
ROOTS = {"opd_root", "shape_angular", "cka_angular", "shape", "gulp", "size_and_shape"}
"""Rounding of 1e-16 at a zero distance is 1e-8 in a root, and so in an angle."""


# -- networks and what is expected of them -------------------------------------------------------------------

class Maps(nn.Module):
    """(N, 2, 8, 8) -> map 4x4 -> map 2x2 -> (N, 3)."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.block1 = nn.Sequential(nn.Conv2d(2, width, 2, 2), nn.Hardtanh(-2, 2))
        self.block2 = nn.Sequential(nn.Conv2d(width, 3, 2, 2), nn.Hardtanh(-2, 2))
        self.head = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.head(self.block2(self.block1(x)).mean((2, 3))))


class Mixed(nn.Module):
    """(N, 2, 8, 8) -> map 3x3 -> vector -> (N, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.block1 = nn.Sequential(nn.Conv2d(2, 5, 4, 2), nn.Hardtanh(-2, 2))
        self.block2 = nn.Sequential(nn.Flatten(), nn.Linear(45, 4), nn.Hardtanh(-2, 2))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.head(self.block2(self.block1(x))))


SITES = ["block1", "block2"]
CELLS = [(i, j) for i in SITES for j in SITES]


def made(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """With weights, and so representations, of few digits: networks in any memory format compute them
    exactly."""
    network = seeded(make, seed).eval()
    with torch.no_grad():
        for p in network.parameters():
            p.copy_((p * 32).round() / 16)
    return network


def images(n: int = N, seed: int = 0) -> Tensor:
    # Means of their own, so that what is said of means says something.
    x = torch.randn(n, 2, 8, 8, generator=torch.Generator().manual_seed(seed)) + 0.3
    return (x * 16).round() / 16


def compared(source: nn.Module, target: nn.Module | None, x: Tensor, **options: Any) -> suture.Comparison:
    options = {"methods": [], "ood": None, "device": "cpu", "precision": "float64", "sites": SITES} | options
    return suture.compare(source, target, (x, torch.arange(len(x)) % 3), **options)


def seen(network: nn.Module, x: Tensor) -> dict[str, Tensor]:
    return {k: v.detach() for k, v in suture.capture(network, x, SITES).items()}


def pooled(x: Tensor) -> Matrix:
    return (x.double().mean((2, 3)) if x.ndim == 4 else x.double()).numpy()


def stitched(x: Tensor, y: Tensor) -> tuple[Matrix, Matrix]:
    return references.rows(x, y).numpy(), references.rows(y, y).numpy()


def r2_folds(x: Matrix, y: Matrix, example: Matrix) -> float:
    """R² on held-out folds; the fold of an example is its block's number modulo 5, and so its own."""
    fold, error = example % 5, 0.0
    for k in range(5):
        mx, my = x[fold != k].mean(0), y[fold != k].mean(0)
        w = np.linalg.pinv(x[fold != k] - mx, rcond=1e-9) @ (y[fold != k] - my)
        error += ((y[fold == k] - my - (x[fold == k] - mx) @ w) ** 2).sum()
    return float(1 - error / ((y - y.mean(0)) ** 2).sum())


def reference(name: str, x: Matrix, y: Matrix, example: Matrix) -> float:
    if name == "r2_folds":
        return r2_folds(x, y, example)
    return float(references.INDICES[name](x, y))


@dataclass(frozen=True)
class Case:
    source: nn.Module
    target: nn.Module
    x: Tensor
    result: suture.Comparison

    @cached_property
    def sides(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return seen(self.source, self.x), seen(self.target, self.x)

    def matrices(self, i: str, j: str, alignment: str) -> tuple[Matrix, Matrix, Matrix]:
        """Both matrices, and the number of each row's example."""
        a, b = (side[site] for side, site in zip(self.sides, (i, j), strict=True))
        x, y = (pooled(a), pooled(b)) if alignment == "pool" else stitched(a, b)
        return x, y, np.repeat(np.arange(len(self.x)), len(y) // len(self.x))


@pytest.fixture(scope="module", params=["two", "self"])
def case(request: pytest.FixtureRequest) -> Case:
    target = made(Maps, 1)
    source = target if request.param == "self" else made(Mixed)
    return Case(source, target, images(), compared(source, target, images(), indices=["all", "all@pool"]))


# -- moments -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("alignment", ["stitch", "pool"])
@pytest.mark.parametrize(("i", "j"), CELLS)
def test_every_index_from_moments_is_that_of_the_captured_matrices(case: Case, i: str, j: str,
                                                                   alignment: str) -> None:
    x, y, example = case.matrices(i, j, alignment)
    tail = "@pool" if alignment == "pool" else ""
    for name in GROUPS["moments"]:
        value, reason, n = (case.result.matrix(name + tail, what).loc[i, j]
                            for what in ("value", "reason", "n"))
        assert n == len(y)
        if not tail and name in EXAMPLES_ONLY:
            assert str(reason).endswith("ask for @pool"), name
            continue
        assert reason == "", name
        tolerance = 1e-6 if name in ROOTS else 1e-8
        assert value == pytest.approx(reference(name, x, y, example), abs=tolerance), name


def test_products_in_float32_cost_the_last_digits_only(case: Case) -> None:
    rough = compared(case.source, case.target, case.x, indices=["moments", "moments@pool"],
                     precision="float32")
    for name in rough.measures:
        loose = 3e-3 if name.partition("@")[0] in ROOTS else 2e-5
        np.testing.assert_allclose(rough.matrix(name), case.result.matrix(name), atol=loose, err_msg=name)


def test_a_network_in_half_precision_is_averaged_in_the_precision_of_the_products() -> None:
    network, x = seeded(Maps).half().eval(), images().half()
    result = compared(network, None, x, indices=["cka@pool", "uniformity@pool", "uniformity"],
                      precision="float64")
    a = {k: v.double() for k, v in seen(network, x).items()}
    for i, j in CELLS:
        wanted = references.cka(pooled(a[i]), pooled(a[j]))
        assert result.matrix("cka@pool").loc[i, j] == pytest.approx(wanted, abs=1e-8)
        wanted = indices.of_matrices(pooled(a[i]), pooled(a[j]), "uniformity")["uniformity"].value
        assert result.matrix("uniformity@pool").loc[i, j] == pytest.approx(wanted, abs=1e-8)


# -- rows ----------------------------------------------------------------------------------------------------

def drawn(n: int, most: int, seed: int, rows: int) -> tuple[Matrix, Matrix]:
    """Numbers of the kept examples, and the position of each among `rows`."""
    kept = Reservoir(most, seed)
    kept.offer(n)
    shares = [np.random.default_rng((seed, int(k), 1)).random() for k in kept.numbers]
    return kept.numbers, (np.array(shares) * rows).astype(int)


@pytest.mark.parametrize(("alignment", "most", "seed"), [("stitch", 2000, 0), ("stitch", 25, 3),
                                                         ("pool", 25, 3)])
def test_indices_of_rows_are_those_of_the_explicitly_drawn_rows(case: Case, alignment: str, most: int,
                                                                seed: int) -> None:
    tail = "@pool" if alignment == "pool" else ""
    names = [*GROUPS["rows"], "jaccard:3"]
    result = compared(case.source, case.target, case.x, indices=[n + tail for n in names], sample=most,
                      seed=seed, batch_size=7)
    for i, j in CELLS:
        x, y, _ = case.matrices(i, j, alignment)
        numbers, place = drawn(N, most, seed, len(y) // N)
        rows = numbers * (len(y) // N) + place
        wanted = indices.of_matrices(x[rows], y[rows], names)
        for name in names:
            value, reason, n = (result.matrix(name + tail, what).loc[i, j]
                                for what in ("value", "reason", "n"))
            assert n == min(N, most)
            assert reason == wanted[name].reason == ""
            assert value == pytest.approx(wanted[name].value, abs=1e-9), name


def test_rows_of_both_sides_are_of_the_same_examples_and_positions() -> None:
    a, b = made(Maps), made(Maps)
    result = compared(a, b, images(), indices=["jaccard:3", "jaccard:3@pool", "rsa_spearman"], sample=30)
    for name, site in product(result.measures, SITES):
        assert result.matrix(name).loc[site, site] == pytest.approx(1, abs=1e-12), name


# -- flattened, and as in the paper --------------------------------------------------------------------------

def test_flattened_indices_are_those_of_gram_matrices(case: Case) -> None:
    x, names = images(260, 5), ("cka", "cka_debiased", "cka_minibatch")
    result = compared(case.source, case.target, x, indices=[f"{n}@flatten" for n in names])
    a, b = seen(case.source, x), seen(case.target, x)
    for i, j in CELLS:
        flat = [side[site].flatten(1).double().numpy() for side, site in ((a, i), (b, j))]
        assert result.matrix("cka@flatten").loc[i, j] == pytest.approx(references.cka(*flat), abs=1e-8)
        assert result.matrix("cka_debiased@flatten").loc[i, j] == pytest.approx(
            references.cka(flat[0], flat[1], references.hsic_unbiased), abs=1e-8)
        parts = [[centred(m[rows]) for m in flat] for rows in (slice(0, 256), slice(256, 260))]
        sums = [sum(references.hsic_unbiased(p[k] @ p[k].T, p[m] @ p[m].T) / (len(p[0]) * (len(p[0]) - 3))
                    for p in parts) for k, m in ((0, 1), (0, 0), (1, 1))]
        assert result.matrix("cka_minibatch@flatten").loc[i, j] == pytest.approx(
            sums[0] / np.sqrt(sums[1] * sums[2]), abs=1e-8)
        assert {result.matrix(f"{n}@flatten", "n").loc[i, j] for n in names} == {260}


def centred(x: Matrix) -> Matrix:
    return x - x.mean(0)


def test_kept_examples_are_counted_where_there_are_more() -> None:
    result = compared(made(Maps), None, images(1030), indices=["cka@flatten", "cka_minibatch@flatten"])
    assert set(result.matrix("cka@flatten", "n").stack()) == {1000}
    assert set(result.matrix("cka_minibatch@flatten", "n").stack()) == {1030}


@pytest.mark.parametrize("n", [50, 1030])
def test_the_papers_indices_are_of_the_first_thousand_test_examples(n: int) -> None:
    source, target = made(Maps), made(Maps, 1)
    test = images(n, 9)
    result = suture.compare(source, target, (images(), torch.arange(N) % 3), (test, torch.arange(n) % 3),
                            methods=[], indices="all@paper", sites=SITES, precision="float64", device="cpu")
    assert set(result.measures) == {"cka@paper", "pwcca@paper", "pwcca_target@paper", "opd@paper"}
    a, b = seen(source, test[:1000]), seen(target, test[:1000])
    for i, j in CELLS:
        flat = [side[site].flatten(1).double().numpy() for side, site in ((a, i), (b, j))]
        x, y = stitched(a[i], b[j]) if a[i].shape == b[j].shape else (pooled(a[i]), pooled(b[j]))
        wanted = {"cka": references.cka(*flat)} | {k: references.INDICES[k](x, y) for k in (
            "pwcca", "pwcca_target", "opd")}
        for name, value in wanted.items():
            assert result.matrix(f"{name}@paper").loc[i, j] == pytest.approx(value, abs=1e-8), name
            assert result.matrix(f"{name}@paper", "n").loc[i, j] == min(n, 1000)


def test_where_the_channels_are_changes_none_of_the_papers_indices() -> None:
    a, b = seeded(Windows), seeded(lambda: Windows(6), 1)
    options: dict[str, Any] = {"indices": "pwcca@paper", "sites": "blocks.*"}
    one, other = (compared(a, t, IMAGES, **options).matrix("pwcca@paper")
                  for t in (b, first(cast(Windows, b))))
    np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("name", ["svcca@paper", "cka_debiased@paper", "jaccard@paper", "r2@paper"])
def test_the_paper_has_four_indices(name: str) -> None:
    with pytest.raises(SutureError,
                       match=f"the alignment 'paper' offers, got .* write {name[:-6]}@pool"):
        compared(made(Maps), None, images(), indices=name)


# -- law: no number depends on what is computed beside it ----------------------------------------------------

@pytest.fixture(scope="module")
def everything() -> suture.Comparison:
    names = ["all", "all@pool", "all@flatten", "cka_minibatch@flatten", "all@paper", "jaccard:3",
             "jaccard:3@pool"]
    return compared(made(Mixed), made(Maps, 1), images(), indices=names, jackknife=5)


@pytest.mark.parametrize("name",
                         ["cka", "cka_debiased", "r2_folds", "jaccard:3", "cka@pool", "rsa_correlation@pool",
                          "jaccard:3@pool", "cka_minibatch@flatten", "opd@paper"])
def test_an_index_alone_is_the_one_among_all(everything: suture.Comparison, name: str) -> None:
    alone = compared(made(Mixed), made(Maps, 1), images(), indices=name).matrix(name)
    np.testing.assert_allclose(alone, everything.matrix(name), rtol=0, atol=1e-10)


def test_batches_and_other_cells_change_no_number(case: Case) -> None:
    options: dict[str, Any] = {"indices": ["all", "all@pool", "all@flatten", "jaccard:3"], "sample": 30}
    whole = compared(case.source, case.target, images(), **options)
    small = compared(case.source, case.target, images(), batch_size=3, **options)
    one = compared(case.source, case.target, images(),
                   **options | {"sites": ["block1"], "target_sites": ["block2"]})
    for name in whole.measures:
        loose = 1e-7 if name.partition("@")[0] in ROOTS else 1e-10
        np.testing.assert_allclose(whole.matrix(name), small.matrix(name), rtol=0, atol=loose, err_msg=name)
        np.testing.assert_allclose(whole.matrix(name).loc[["block1"], ["block2"]], one.matrix(name), rtol=0,
                                   atol=loose, err_msg=name)


# -- intervals -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("case", "blocks"), [("two", 10), ("self", 5)], indirect=["case"])
def test_intervals_leave_out_one_block_of_whole_examples_each(case: Case, blocks: int) -> None:
    names = ["cka_debiased", "pwcca", "r2_folds", "gulp:0.1"]
    wanted = [f"{n}{tail}" for n in names for tail in ("", "@pool")]
    result = compared(case.source, case.target, case.x, indices=[*wanted, "jaccard:3", "cka@flatten"],
                      jackknife=blocks, batch_size=9, sites=["block1"], target_sites=["block2"])
    t = stats.t.ppf(0.975, blocks - 1)
    i, j = "block1", "block2"
    for name in wanted:
        x, y, example = case.matrices(i, j, "pool" if "@" in name else "stitch")
        base = name.partition("@")[0]

        def value(kept: Matrix, x: Matrix = x, y: Matrix = y, example: Matrix = example,
                  base: str = base) -> float:
            if base == "gulp:0.1":
                return float(references.gulp(x[kept], y[kept], 0.1))
            return reference(base, x[kept], y[kept], example[kept])

        whole = value(np.ones(len(x), bool))
        left = np.array([value(example % blocks != k) for k in range(blocks)])
        centre = whole if base == "pwcca" else blocks * whole - (blocks - 1) * left.mean()  # not smooth
        half = t * np.sqrt((blocks - 1) / blocks * ((left - left.mean()) ** 2).sum())
        found = [result.matrix(name, what).loc[i, j] for what in ("value", "low", "high")]
        assert found == pytest.approx([whole, centre - half, centre + half], abs=1e-6), name
    for name in ("jaccard:3", "cka@flatten"):
        assert result.matrix(name, "low").isna().to_numpy().all()


def test_fewer_examples_than_blocks_leave_empty_ones_out() -> None:
    few = compared(made(Maps), None, images(12), indices=["cka", "cka@pool"], jackknife=20)
    assert few.matrix("cka", "low").notna().to_numpy().all()
    none = compared(made(Maps), None, images(12), indices=["cka", "cka@pool"])
    for name in none.measures:
        np.testing.assert_allclose(few.matrix(name), none.matrix(name), atol=1e-12)


@pytest.mark.parametrize("blocks", [3, -5, 2.5, True, "20"])
def test_wrong_numbers_of_blocks_are_refused(blocks: Any) -> None:
    with pytest.raises(SutureError, match=rf"jackknife.*got {blocks!r}"):
        compared(made(Maps), None, images(), indices="cka", jackknife=blocks)


@pytest.mark.parametrize("sample", [0, -1, 2.5])
def test_wrong_samples_are_refused(sample: Any) -> None:
    with pytest.raises(SutureError, match=rf"sample: .*got {sample!r}"):
        compared(made(Maps), None, images(), indices="jaccard", sample=sample)


def test_blocks_for_intervals_leave_cross_validated_layers_as_they_are() -> None:
    network, data = seeded(Maps), (images(), torch.arange(N) % 3)
    options: dict[str, Any] = {"methods": ["dm"], "family": "ridge:cv", "sites": SITES, "device": "cpu",
                               "ood": None, "precision": "float64"}
    plain = suture.compare(network, None, data, indices="cka", **options)
    blocks = suture.compare(network, None, data, indices="cka", jackknife=20, **options)
    names = [k for k in plain.arrays if k.startswith(("dm.weight", "dm.bias"))]
    assert len(names) == 8
    for name in names:
        np.testing.assert_allclose(plain.arrays[name], blocks.arrays[name], rtol=1e-6,
                                   atol=1e-9, err_msg=name)


# -- what a site is like -------------------------------------------------------------------------------------

@pytest.mark.parametrize("same", [True, False])
def test_statistics_of_sites_are_those_of_the_captured_matrices(same: bool, tmp_path: Path) -> None:
    target = made(Maps, 1)
    with torch.no_grad():
        target.get_parameter("block1.0.weight")[2] = 0  # a dead channel, whose value is not 0
    source = target if same else made(Mixed)
    result = compared(source, target, images(), indices="cka")
    result.save(tmp_path / "kept")
    for found in (result.statistics(), suture.load(tmp_path / "kept").statistics()):
        assert found.shape == (4, 8)
        for side, network in (("source", source), ("target", target)):
            for site, x in seen(network, images()).items():
                m = stitched(x, x)[1]
                row = found[(found["side"] == side) & (found["site"] == site)].iloc[0]
                values = np.linalg.svd(centred(m), compute_uv=False)
                values = values[values > 1e-9 * values[0]]
                share = values / values.sum()
                assert (row["rows"], row["width"], row["rank"]) == (*m.shape, len(values))
                assert row["effective_rank"] == pytest.approx(np.exp(-(share * np.log(share)).sum()),
                                                              rel=1e-8)
                assert row["participation_ratio"] == pytest.approx(references.participation_ratio(m),
                                                                   rel=1e-8)
                assert row["dead"] == int((np.ptp(m, 0) < 1e-12).sum())
                k = SITES.index(site)
                np.testing.assert_allclose(result.arrays[f"{side}.spectrum/{k}"],
                                           values**2 / (len(m) - 1), rtol=1e-8)
    assert result.statistics()["dead"].sum() == (2 if same else 1)
    assert compared(source, target, images(), indices=()).statistics().empty


# -- tokens --------------------------------------------------------------------------------------------------

def gathered(sources: list[Shape], targets: list[Shape], names: Any, xs: list[Tensor], ys: list[Tensor],
             *masks: Tensor | None, size: int = 11, **wanted: Any) -> Accumulators:
    grid = Accumulators(sources, targets,
                        AccumulatorSettings(chosen(names), precision=torch.float64, **wanted))
    for start in range(0, len(xs[0]), size):
        rows = slice(start, start + size)
        grid.update([x[rows] for x in xs], [y[rows] for y in ys],
                    *(None if m is None else m[rows] for m in masks))
    return grid


def mean(x: Tensor, shape: Shape) -> Matrix:
    x = x.double()
    if shape.kind is Kind.MAP:
        return x.mean((1, 2) if shape.last else (2, 3)).numpy()
    return (x if shape.kind is Kind.VECTOR else x[:, shape.prefix:].mean(1)).numpy()


TOKENS = [("class token, 4x4", "class token, 4x4"), ("class token, 4x4", "class token, 2x2"),
          ("map 4x4", "vector"), ("map 8x8", "class token, 4x4"), ("class token, 4x4", "registers, 4x4"),
          ("class token, 2x2", "map 3x5"),
          ("class token, 4x4", "vector"), ("sequence 12", "sequence 7"), ("vector", "class token, 2x2"),
          ("last 3x5", "map 4x4"), ("text 12, prefix", "text 12, prefix"), ("text 12", "vector")]


@pytest.mark.parametrize(("source", "target"), TOKENS)
def test_rows_of_tokens_with_prefixes(source: str, target: str) -> None:
    s, t = SHAPES[source], SHAPES[target]
    x, y = batch(s), batch(t, seed=1)
    names = ["cka", "cka@pool", "magnitude@pool", "uniformity", "uniformity@pool", "jaccard:3",
             "jaccard:3@pool"]
    found = gathered([s], [t], names, [x], [y])
    values = found.compute_values(0, 0)
    a, b = (m.numpy() for m in references.aligned(x.movedim(-1, 1) if s.last else x, y, plain(s), t))
    rows = len(b) // len(y)
    numbers, place = drawn(len(y), 2000, 0, rows)
    if len(Alignment(s, t).parts) == 2:  # the references put the prefix first, alignments of two parts last
        place = (place + t.prefix) % rows
    at = numbers * rows + place
    pool = mean(x, s), mean(y, t)
    assert values["cka"].value == pytest.approx(references.cka(a, b), abs=1e-8)
    assert values["cka@pool"].value == pytest.approx(references.cka(*pool), abs=1e-8)
    assert values["magnitude@pool"].value == pytest.approx(references.INDICES["magnitude"](*pool), abs=1e-8)
    for name in ("uniformity", "jaccard:3"):
        assert values[name].value == pytest.approx(indices.of_matrices(a[at], b[at], name)[name].value,
                                                   abs=1e-9)
        wanted = indices.of_matrices(pool[0], pool[1], name)[name].value
        assert values[f"{name}@pool"].value == pytest.approx(wanted, abs=1e-9)


def plain(s: Shape) -> Shape:
    return Shape(s.kind, s.width, s.size, s.prefix, s.grid)


TEXT, OTHER, VECTOR = SHAPES["text 12"], Shape(Kind.TOKENS, 5, (12,), varies=True), SHAPES["vector"]
MASK = torch.arange(12) < (torch.arange(30) % 11 + 1)[:, None]
NAMES = ["cka", "cka@pool", "uniformity", "uniformity@pool", "magnitude@pool", "rsa_correlation@pool"]


def masked_means(x: Tensor, mask: Tensor) -> Matrix:
    return torch.stack([r[m].mean(0) for r, m in zip(x.double(), mask, strict=True) if m.any()]).numpy()


def drawn_tokens(mask: Tensor) -> list[tuple[int, int]]:
    """(example, position) of one token that counts of each example that has some."""
    there = [k for k, m in enumerate(mask) if m.any()]
    found = []
    for number, k in enumerate(there):
        where = mask[k].nonzero().flatten().tolist()
        found.append((k, where[int(np.random.default_rng((0, number, 1)).random() * len(where))]))
    return found


@pytest.mark.parametrize("size", [30, 4])
@pytest.mark.parametrize("given", ["both", "source", "target"])
@pytest.mark.parametrize("empty", [(), (4, 5, 6, 7, 29)])
def test_padded_tokens_enter_no_mean_and_no_sample_whichever_side_has_the_mask(
        given: str, empty: tuple[int, ...], size: int) -> None:
    """Padding that enters a mean; an example without tokens that counts as a row of zeros."""
    mask = MASK.clone()
    mask[list(empty)] = False
    x, y = batch(TEXT), batch(OTHER, seed=1)
    x[~mask], y[~mask] = 1e3, -1e3
    masks = [mask if given in (side, "both") else None for side in ("source", "target")]
    found = gathered([TEXT], [OTHER], NAMES, [x], [y], *masks, size=size)
    values, n = found.compute_values(0, 0), found.count_rows(0, 0)
    a, b = masked_means(x, mask), masked_means(y, mask)
    at = drawn_tokens(mask)
    rows = [np.stack([m[k, p].double().numpy() for k, p in at]) for m in (x, y)]
    assert n == {name: int(mask.sum()) if name == "cka" else len(a) for name in NAMES}
    assert values["cka"].value == pytest.approx(references.cka(x[mask].double().numpy(),
                                                               y[mask].double().numpy()), abs=1e-8)
    for name in ("cka", "magnitude", "rsa_correlation"):
        assert values[f"{name}@pool"].value == pytest.approx(references.INDICES[name](a, b), abs=1e-8)
    wanted = [indices.of_matrices(m[0], m[1], "uniformity")["uniformity"].value for m in (rows, (a, b))]
    assert [values["uniformity"].value, values["uniformity@pool"].value] == pytest.approx(wanted, abs=1e-9)


def test_each_side_is_averaged_by_its_own_mask_where_no_token_meets_a_token() -> None:
    x, z = batch(TEXT), batch(VECTOR, seed=1)
    other = torch.ones(30, 5, dtype=torch.bool)
    values = gathered([TEXT], [VECTOR], NAMES, [x], [z], MASK, other).compute_values(0, 0)
    a, b = masked_means(x, MASK), z.double().numpy()
    for tail in ("", "@pool"):
        assert values[f"cka{tail}"].value == pytest.approx(references.cka(a, b), abs=1e-8)
        wanted = indices.of_matrices(a, b, "uniformity")["uniformity"].value
        assert values[f"uniformity{tail}"].value == pytest.approx(wanted, abs=1e-9)


def test_a_mask_of_the_source_alone_does_not_choose_among_resized_tokens() -> None:
    """The mask had 12 tokens, the target 7: a position was drawn that is not there."""
    s, t = SHAPES["sequence 12"], SHAPES["sequence 7"]
    x, y = batch(s), batch(t, seed=1)
    found = gathered([s], [t], ["uniformity"], [x], [y], MASK).compute_values(0, 0)["uniformity"].value
    a, b = references.aligned(x, y, s, t)
    numbers, place = drawn(30, 2000, 0, 7)
    at = numbers * 7 + place
    assert found == pytest.approx(indices.of_matrices(a[at], b[at], "uniformity")["uniformity"].value,
                                  abs=1e-9)


def test_a_block_of_which_no_token_counts_is_left_out() -> None:
    mask = MASK.clone()
    mask[1::5] = False
    x, y = batch(TEXT), batch(OTHER, seed=1)
    value = gathered([TEXT], [OTHER], ["cka"], [x], [y], mask, mask, jackknife=5).compute_values(0, 0)["cka"]
    assert value.value == pytest.approx(references.cka(x[mask].double().numpy(), y[mask].double().numpy()),
                                        abs=1e-8)


def test_a_share_of_tokens_does_not_decide_which_of_them_is_kept() -> None:
    """Both were drawn by the same numbers: the first token was kept wherever it was drawn."""
    n = 1500
    mask = TokenShare(0.3, 0).draw(torch.ones(n, 12, dtype=torch.bool))
    x = torch.eye(12).expand(n, -1, -1)[..., :6] * 1.0 + torch.arange(12.0)[:, None]
    grid = gathered([TEXT], [TEXT], ["uniformity"], [x], [x], mask, mask, size=n)
    kept = grid._rows["stitch"].get_sample(0, 0).x.values
    firsts = mask[mask.any(1)].int().argmax(1).numpy()
    counts = mask[mask.any(1)].sum(1).numpy()
    several = counts > 1
    there = (np.abs(x[0].numpy()[firsts] - kept).max(1) < 1e-9)[several]
    chance = 1 / counts[several]
    assert len(kept) == len(firsts)
    for first_token in (True, False):
        part = (firsts[several] == 0) == first_token
        spread = np.sqrt((chance[part] * (1 - chance[part])).sum())
        assert abs(there[part].sum() - chance[part].sum()) < 4 * spread


class Reader(nn.Module):
    """Token ids (N, T) with a mask -> tokens -> their mean -> (N, 3)."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.embed, self.block1, self.block2 = (nn.Embedding(20, width), nn.Linear(width, width),
                                                nn.Linear(width, 5))
        self.head = nn.Linear(5, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        h = self.block2(self.block1(self.embed(input_ids)).clamp(-2, 2))
        return torch.as_tensor(self.head(h.mean(1)))


def texts(pad: int) -> list[Any]:
    ids = torch.randint(1, 20, (30, 12), generator=torch.Generator().manual_seed(0))
    ids = torch.where(MASK, ids, pad)
    lengths = [int(MASK[k:k + 6].sum(1).max()) for k in range(0, 30, 6)]
    return [({"input_ids": ids[6 * k:6 * k + 6, :t], "attention_mask": MASK[6 * k:6 * k + 6, :t].long()},
             torch.zeros(6, dtype=torch.int64)) for k, t in enumerate(lengths)]


def test_texts_of_any_length_and_padding_give_the_same_and_are_not_flattened() -> None:
    networks = made(Reader), made(lambda: Reader(7), 1)
    options: dict[str, Any] = {"methods": [], "sites": SITES, "device": "cpu", "precision": "float64"}
    names = ["all", "all@pool", "jaccard:3"]
    one, two = (suture.compare(*networks, texts(pad), indices=names, **options) for pad in (0, 19))
    np.testing.assert_array_equal(one.table["value"], two.table["value"])
    assert set(one.matrix("cka@pool", "n").stack()) == {30}
    assert set(one.matrix("cka", "n").stack()) == {int(MASK.sum())}
    assert one.matrix("cka@pool").notna().to_numpy().all()
    for name in ("cka@flatten", "cka@paper"):
        with pytest.raises(SutureError, match=r"tokens ~\d+x6, tokens of texts; write @pool") as e:
            suture.compare(*networks, texts(0), indices=name, **options)
        assert "\n" not in str(e.value)


def test_two_streams_of_the_same_texts_meet_position_by_position() -> None:
    networks = made(Reader), made(Reader)
    result = suture.compare(*networks, Paired(texts(0), texts(3)), methods=[], sites=SITES, device="cpu",
                            indices=["jaccard:3", "cka@pool", "cka"], precision="float64")
    for name in result.measures:
        np.testing.assert_allclose(np.diag(result.matrix(name)), 1, atol=1e-12, err_msg=name)


# -- degenerate, and memory ----------------------------------------------------------------------------------

EVERYTHING = ["all", "all@pool", "all@flatten", "cka_minibatch@flatten", "all@paper"]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 6])
def test_few_examples_give_a_number_or_a_reason(n: int) -> None:
    table = compared(made(Mixed), made(Maps), images(n), indices=EVERYTHING, jackknife=5,
                     target_sites=["block2"]).table
    assert (table["value"].isna() == (table["reason"] != "")).all()
    if n == 1:
        examples = table["measure"].str.contains("@")
        assert table.loc[examples, "reason"].str.contains("row|example").all()


def test_a_constant_site_is_missing_with_the_reason_in_every_alignment() -> None:
    network = made(Maps)
    with torch.no_grad():
        network.get_parameter("block1.0.weight").zero_()
        network.get_parameter("block2.0.weight").add_(torch.randn(3, 4, 2, 2))
    table = compared(network, made(Mixed), images(), indices=EVERYTHING).table
    constant = table[table["source"] == "block1"]
    assert constant["reason"].str.contains("constant source").all()


def test_a_dry_run_knows_the_memory() -> None:
    options: dict[str, Any] = {"methods": [], "device": "cpu", "sites": SITES}
    data = images(), torch.arange(N) % 3
    sizes = [suture.dry_run(made(Maps), None, data, indices=i, **options).state
             for i in ("cka", ["cka", "cka@pool"], ["cka", "cka@pool", "jaccard"], ["cka", "cka@flatten"])]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 4


def test_users_functions_see_the_same_matrices(case: Case) -> None:
    def shapes(pair: Any) -> float:
        return float(pair.moments.sxy.shape[0] * 100 + pair.n)

    def widths(x: Matrix, y: Matrix) -> float:
        return float(x.shape[1] * 1000 + y.shape[1] * 100 + len(x) + (x.dtype != np.float64))

    names = [own(shapes, "gathered_shapes", high=1e3), own(widths, "gathered_widths", high=1e4)]
    result = compared(case.source, case.target, case.x, indices=names, sample=30)
    for i, j in CELLS:
        x, y, _ = case.matrices(i, j, "stitch")
        assert result.matrix("gathered_shapes").loc[i, j] == x.shape[1] * 100 + len(x)
        assert result.matrix("gathered_widths").loc[i, j] == x.shape[1] * 1000 + y.shape[1] * 100 + 30


def test_a_function_of_the_users_at_pool_is_saved_and_loaded(tmp_path: Path) -> None:
    def overlap(x: Any, y: Any) -> float:
        return float(np.corrcoef(x.sum(1), y.sum(1))[0, 1])

    index = indices.own(overlap, low=-1.0)
    made = suture.compare(tiny.network(), None, tiny.data()[0], methods=[],
                          indices=[indices.Request(index, "pool")], device="cpu")
    made.save(tmp_path / "out")
    loaded = suture.load(tmp_path / "out")
    assert loaded.measures == ["overlap@pool"]
    assert np.diag(loaded.matrix("overlap@pool")) == pytest.approx(1)
    assert loaded.equals(made)


def test_an_infinite_representation_is_named_where_only_means_are_asked_for() -> None:
    class Bursting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.site = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return self.site(1 / x).flatten(1)

    x = torch.ones(8, 3, 2, 2)
    x[5] = 0
    with pytest.raises(SutureError,
                       match="NaN or inf at source site 'site' in batch 1"):
        suture.compare(Bursting(), None, [x[:4], x[4:]], sites=["site"], methods=[],
                       indices="cka@pool", device="cpu")


def test_a_request_of_the_flattened_view_is_that_of_its_name() -> None:
    found = chosen([indices.Request(indices.INDICES["cka"], "flatten"), "cka@flatten"])
    assert [r.name for r in found] == ["cka@flatten"]
    assert found[0].index.needs is indices.Needs.KEPT_KERNELS


# -- memory --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize(("names", "fitting", "jackknife"), [
    ("default", True, 0), ("moments", True, 0), ("all@pool", False, 0),
    (["cka", "rsa_pearson@pool"], False, 10), ((), True, 0),
])
def test_the_memory_that_is_planned_is_the_memory_that_is_taken(names: Any, fitting: bool, jackknife: int,
                                                                same: bool) -> None:
    maps = [Shape(Kind.MAP, 5, (4, 4)), Shape(Kind.MAP, 7, (4, 4)), Shape(Kind.MAP, 9, (2, 2))]
    shapes = [*maps, Shape(Kind.VECTOR, 11)]
    others = (shapes if same
              else [Shape(Kind.MAP, 6, (3, 3)), Shape(Kind.VECTOR, 4), Shape(Kind.MAP, 3, (4, 4))])
    gathering = Accumulators(shapes, others, AccumulatorSettings(chosen(names), jackknife, sample=50,
                                                                 fits_layers=fitting), same=same)
    planned = gathering.nbytes_planned
    xs, ys = ([torch.randn(30, s.width, *s.size) for s in side] for side in (shapes, others))
    gathering.update(xs, xs if same else ys)
    gathering._pooled.flush()
    moments = [gathering._stitch, *gathering._pooled.wanted.values()]
    held = [f.nbytes for m in moments if m is not None for f in m._folds]
    held += [t.nbytes for rows in gathering._rows.values() for t in rows._tables.values()]
    assert sum(held) + sum(s.nbytes for s in gathering.own) == planned > 0


def test_sums_that_do_not_fit_are_refused_before_they_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suture._base.runtime.get_free_bytes", lambda device: 1000)
    message = r"to fit into the free memory of 0\.0 MiB, got .*; give fewer sites"
    with pytest.raises(SutureError, match=message):
        suture.compare(tiny.network(), None, tiny.data()[0], methods=[], device="cpu")
    with pytest.raises(SutureError, match="the sums of 40 and 30 columns to fit"):
        indices.of_matrices(np.zeros((5, 40)), np.zeros((5, 30)))


# -- many cells ----------------------------------------------------------------------------------------------

@pytest.fixture
def several_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("several_threads")
def test_many_cells_at_once_are_the_cells_one_by_one() -> None:
    where: list[bool] = []

    def mine(x: Matrix, y: Matrix) -> float:
        where.append(threading.current_thread() is threading.main_thread())
        return float(x[0, 0])

    shapes = [Shape(Kind.MAP, 5, (4, 4)), Shape(Kind.MAP, 7, (2, 2)), Shape(Kind.VECTOR, 6)]
    wanted = AccumulatorSettings(chosen(["all", "all@pool", "cka@flatten", own(mine, "mine_of_rows")]),
                                 jackknife=5, sample=20)
    gathering = Accumulators(shapes, shapes[::-1], wanted)
    xs, ys = ([torch.randn(40, s.width, *s.size) for s in side] for side in (shapes, shapes[::-1]))
    gathering.update(xs, ys)
    cells, threads, seen = list(product(range(3), range(3))), torch.get_num_threads(), []
    found = gathering.compute_all_values(cells, lambda stage, done, total: seen.append((stage, done, total)))
    assert torch.get_num_threads() == threads == 2
    torch.set_num_threads(1)
    assert seen == [("indices", k + 1, 9) for k in range(9)]
    assert list(found) == cells
    assert all(where)
    for cell in cells:
        alone = gathering.compute_values(*cell)
        assert list(found[cell]) == list(alone)
        for name, value in alone.items():
            assert found[cell][name].reason == value.reason, name
            assert found[cell][name].value == pytest.approx(value.value, abs=1e-9, nan_ok=True), name
