"""Histograms of scores of detectors."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest

from suture._base.errors import SutureError
from suture.results.report import figure_format as style
from suture.results.report import figures, histograms, page
from tests.support.synthetic import comparison


@pytest.mark.parametrize("same", [True, False])
def test_stitched_scores_are_of_all_sources_but_the_layer_itself(same):
    given = comparison(5, 4, same_network=same, detectors=("maha", "energy"))
    for j, target in enumerate(given.targets):
        found = histograms.collect_scores(given, "energy", j)
        assert list(found) == ["native", "auxiliary", "unseen", "dm", "tlm"]
        others = [i for i, s in enumerate(given.sources) if not (same and s == target)]
        assert len(others) == 5 - same
        for method in ("dm", "tlm"):
            expected = np.concatenate([given.arrays[f"{method}.score_energy"][i, j] for i in others])
            np.testing.assert_array_equal(np.sort(found[method]), np.sort(expected))
        for kind in ("native", "auxiliary", "unseen"):
            np.testing.assert_array_equal(found[kind], given.arrays[f"{kind}.energy"][j])


def samples(seed, far=4.0, spread=1.0):
    rng = np.random.default_rng(seed)
    return {"native": rng.standard_normal(500), "dm": rng.standard_normal(900) * spread - far}


@pytest.mark.parametrize("far", [0.0, 4.0, 1e3, 1e9])
def test_every_score_is_in_a_bin_and_native_ones_stay_wide(far):
    found = samples(0, far)
    found["dm"][:2] = -np.inf, np.inf
    bins = histograms.choose_bins(found)
    assert len(bins) == histograms.BINS + 1
    assert (np.diff(bins) > 0).all()
    low, high = np.percentile(found["native"], [1, 99])
    assert bins[0] <= low < high <= bins[-1]
    assert (high - low) / (bins[-1] - bins[0]) > 1 / 9.01
    for kind, height in histograms.compute_densities(found, bins).items():
        assert (height * np.diff(bins)).sum() == pytest.approx(1), kind
    slow = [np.mean((found["native"] >= a) & (found["native"] < b)) / (b - a) for a, b in pairwise(bins)]
    np.testing.assert_allclose(histograms.compute_densities(found, bins)["native"][1:-1],
                               slow[1:-1], rtol=1e-9)


def test_the_range_does_not_follow_one_far_score():
    found = samples(0)
    before = histograms.choose_bins(found)
    found["dm"][0] = -1e6
    np.testing.assert_allclose(histograms.choose_bins(found), before, atol=0.1)


@pytest.mark.parametrize("found", [{}, {"native": np.zeros(5)}, {"native": np.zeros(5), "dm": np.ones(3)},
                                   {"dm": np.full(3, -np.inf)},
                                   {"native": np.array([7.0]), "dm": np.array([1e12])}])
def test_bins_of_samples_without_a_spread(found):
    bins = histograms.choose_bins(found)
    assert np.isfinite(bins).all()
    assert (np.diff(bins) > 0).all()
    for height in histograms.compute_densities(found, bins).values():
        assert (height * np.diff(bins)).sum() == pytest.approx(1)


def test_one_panel_per_target_site():
    given = comparison(7, 6, hostile=True, detectors=("maha",))
    given.arrays["dm.score_maha"][0, 0, :3] = np.nan
    given.arrays["tlm.score_maha"][:, 2] = np.nan
    made = histograms.draw_histograms(given, "maha")
    assert [ax.get_title() for ax in made.axes] == [figures.make_printable(t) for t in given.targets]
    kinds = [[p.get_gid() for p in ax.patches] for ax in made.axes]
    every = ["native", "auxiliary", "unseen", "dm", "tlm"]
    assert kinds == [every, every, every[:-1], every, every, every]
    assert [t.get_text() for t in made.legends[0].get_texts()] == ["native", "auxiliary", "unseen",
                                                                   "direct matching", "task loss matching"]
    for ax in made.axes:
        assert len({tuple(p.get_data().edges) for p in ax.patches}) == 1
    assert style.render_png(made, 50).startswith(b"\x89PNG")
    assert style.render_pdf(made).startswith(b"%PDF")


def test_detectors_without_scores_have_no_histogram():
    given = comparison(3, 3, detectors=("maha",))
    for name in ("dm.score_other", "native.third"):
        given.arrays[name] = given.arrays["native.maha"]
    assert histograms.list_scored_detectors(given) == ["maha"]
    with pytest.raises(SutureError, match="nearest: maha"):
        histograms.draw_histograms(given, "maah")
    with pytest.raises(SutureError, match=r"ood=suture\.OOD"):
        histograms.draw_histograms(comparison(2, 2), "maha")
    only = {k: v for k, v in given.arrays.items() if not k.startswith(("auxiliary", "unseen", "tlm.score"))}
    less = dataclasses.replace(given, arrays=only)
    assert list(histograms.collect_scores(less, "maha", 0)) == ["native", "dm"]
    assert len(histograms.draw_histograms(less, "maha").axes) == 3
    assert "<img" in page.render_page([less])
    assert "<img" not in page.render_page([dataclasses.replace(given, arrays={})])
