"""The faults of well-known tools (design, section 8)."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import suture
from suture.indices import of_matrices
from suture.numbers import measures
from tests.support import references, tiny
from tests.support.matrices import Matrix, X, Y, compared, matrices

CANONICAL = ("cca", "cca_squared", "svcca", "pwcca", "pwcca_target", "eigenspace_overlap")


@pytest.mark.parametrize("scale", [1.0, 1e-8, 1e8])
def test_fault_canonical_correlations_above_one_for_rank_deficient_data(scale: float) -> None:
    g = np.random.default_rng(3)
    low = X @ g.normal(size=(5, 3)) @ g.normal(size=(3, 40)) * scale
    copies = np.hstack([low, low, low + 1e-14 * scale * g.normal(size=low.shape)])
    for name in CANONICAL:
        for x, y in ((low, copies), (copies, Y), (low, low)):
            value = of_matrices(x, y, name)[name]
            assert value.reason == ""
            assert value.value <= 1 + 1e-9, name
            assert value.value == pytest.approx(references.INDICES[name](x, y), abs=1e-6), name


def test_fault_fewer_rows_than_columns_give_confident_nonsense() -> None:
    g = np.random.default_rng(4)
    x, y = g.normal(size=(20, 30)), g.normal(size=(20, 25))
    found = of_matrices(x, y, ["default", *CANONICAL, "r2_folds", "dm_residual"])
    for name in (*CANONICAL, "r2", "r2_folds", "dm_residual"):
        assert "rows" in found[name].reason, name
    assert abs(found["cka_debiased"].value) < 0.2
    assert found["cka"].value > 0.5, "the biased estimator is what it is, and says so by its name"


def test_fault_svcca_keeps_one_component() -> None:
    g = np.random.default_rng(5)
    x = g.normal(size=(300, 6))
    y = np.hstack([x[:, :3], g.normal(size=(300, 3))])
    assert of_matrices(x, y, "svcca:1")["svcca:1"].value == pytest.approx(references.cca(x, y), abs=1e-9)
    assert (of_matrices(x, y, "svcca:0.9")["svcca:0.9"].value
            < 0.8), "one component of each would correlate otherwise"
    for share in (0.3, 0.6, 0.9):
        name = f"svcca:{share:g}"
        assert of_matrices(x, y, name)[name].value == pytest.approx(references.svcca(x, y, share), abs=1e-9)


def test_fault_positions_subsampled_with_a_stride_hit_only_the_top_left_pixel() -> None:
    class Corner(torch.nn.Module):
        """A map whose channel says at which of 16 positions it is."""

        def __init__(self) -> None:
            super().__init__()
            self.block1 = torch.nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            place = torch.arange(16.0).view(1, 1, 4, 4).expand(len(x), 1, 4, 4)
            return torch.as_tensor(self.block1(torch.cat([place, x[:, :1, :4, :4]], 1)).mean((2, 3)))

    places: list[Matrix] = []

    def positions(x: Matrix, y: Matrix) -> float:
        places.append(x[:, 0])
        return 0.0

    data = torch.rand(640, 2, 8, 8), torch.zeros(640, dtype=torch.int64)
    suture.compare(Corner(), None, data, indices=positions, methods=[], device="cpu", sites=["block1"])
    counts = np.bincount(places[0].astype(int), minlength=16)
    assert counts.sum() == 640
    assert ((counts > 15) & (counts < 70)).all(), counts


@pytest.mark.parametrize("last", [1, 2, 3, 4])
def test_fault_a_last_batch_of_fewer_than_four_rows_fails_after_the_whole_pass(last: int) -> None:
    n = 256 + last
    x, y = matrices(n)
    found = of_matrices(x, y, ["cka_minibatch@flatten", "cka_debiased"])
    parts = [(x[:256], y[:256])] + ([(x[256:], y[256:])] if last >= 4 else [])
    sums = [sum(references.hsic_unbiased(*(centred_gram(p[k]) for k in pair)) / (len(p[0]) * (len(p[0]) - 3))
                for p in parts) for pair in ((0, 1), (0, 0), (1, 1))]
    assert found["cka_minibatch@flatten"].value == pytest.approx(sums[0] / np.sqrt(sums[1] * sums[2]),
                                                                 abs=1e-9)
    names = ["cka_debiased", "cka_minibatch@flatten", "cka_debiased@pool", "all"]
    data = tiny.images(16 + last), tiny.labels(16 + last)
    table = suture.compare(tiny.network(), None, tiny.batches(*data, 16), methods=[], indices=names,
                           device="cpu").table
    assert table.loc[table["measure"].isin(names[:3]), "value"].notna().all()


def centred_gram(x: Matrix) -> Matrix:
    return (x - x.mean(0)) @ (x - x.mean(0)).T


@pytest.mark.parametrize("name", ["svcca:0.9", "cka@pool", "opd@flatten", "jaccard:3@pool", "r2_folds@pool"])
def test_fault_limits_of_maps_are_taken_from_the_data(name: str) -> None:
    result = compared("cka")
    entry = measures.get_measure(name)
    for value in (0.001, 0.4, 7.0):
        table = result.table.assign(measure=name, value=value)
        ax = replace(result, table=table).plot(name, Figure().add_subplot())
        assert ax.images[0].get_clim() == (entry.low, entry.high)


def test_fault_a_mean_of_many_deviations_costs_the_digits() -> None:
    steps: list[tuple[Literal["float32", "float64"], float]] = [("float64", 1e-6), ("float32", 2e-3)]
    for precision, loose in steps:
        class Far(torch.nn.Module):
            def __init__(self, by: float) -> None:
                super().__init__()
                self.by, self.block1 = by, torch.nn.Identity()

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return torch.as_tensor(self.block1(x + self.by).mean((2, 3)))

        x = (tiny.images(40) * 64).round() / 64
        names = ["cka", "opd@pool", "cka@pool", "cka_debiased", "cka@flatten", "r2"]
        near, far = (suture.compare(Far(by), tiny.network(), (x, tiny.labels(40)), sites=["block1"],
                                    methods=[], indices=names, precision=precision, device="cpu")
                     for by in (0.0, 1024.0))
        for name in names:
            np.testing.assert_allclose(near.matrix(name), far.matrix(name), atol=loose,
                                       err_msg=f"{precision} {name}")
