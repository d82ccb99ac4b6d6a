"""Figures: files, overviews, and histograms of scores of detectors."""

from __future__ import annotations

import dataclasses
import io
import sys
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from suture._base.errors import SutureError
from suture.numbers.measures import get_measure
from suture.results import page
from suture.results.drawing import files, histograms
from suture.results.heatmaps import make_printable
from suture.results.verdicts import ARTEFACT, find_artefacts
from tests.results.test_heatmaps import hatches
from tests.support.synthetic import NAMES, comparison


def test_artefacts_are_hatched_in_every_measure_of_their_method():
    given = comparison(detectors=("maha",))
    names = ["dm.accuracy", "tlm.kl", "tlm.auroc_maha", "tlm.frechet", "cka"]
    expected = {m: {(i, j) for i, j in np.argwhere((given.cells(m) == ARTEFACT).to_numpy())}
                for m in ("dm", "tlm")}
    assert len(expected["tlm"]) == 12
    artefacts = find_artefacts(given)
    made = {ax.get_title(): ax for ax in files.draw_overview(given, names).axes if ax.images}
    for name in names:
        want = expected.get(name.partition(".")[0], set())
        plotted = given.plot(name, Figure().add_subplot())
        saved = files._make_figure(given, name, artefacts).axes[0]
        for ax in (made[get_measure(name).label], plotted, saved):
            assert set(hatches(ax)) == want
            assert ("hatched" in ax.get_xlabel()) == bool(want)
    assert not hatches(comparison().plot("tlm.kl", Figure().add_subplot()))


def test_saved_figures(tmp_path):
    given = comparison(7, 5, hostile=True, same_network=False)
    few = given.table[given.table["measure"].isin(["cka", "dm.residual"])]
    given = dataclasses.replace(given, table=few)
    paths = files.save_figures(given, tmp_path / "figures")
    stems = [*given.measures, "all"]
    assert sorted(p.name for p in paths) == sorted(f"{s}.{k}" for s in stems for k in ("png", "pdf"))
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == sorted(p.name for p in paths)
    assert all(p.read_bytes().startswith(b"\x89PNG" if p.suffix == ".png" else b"%PDF") for p in paths)
    pdf = (tmp_path / "figures" / "cka.pdf").read_bytes()
    assert b"/Subtype /Type0" in pdf or b"/CIDFontType2" in pdf  # Type 42 fonts are embedded as CID TrueType
    assert b"/Subtype /Type3" not in pdf


def test_details_have_no_files_and_are_left_out_of_the_overview(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(files, "draw_overview", lambda given, names, _: shown.append(names) or Figure())
    monkeypatch.setattr(files, "_make_figure", lambda *_: Figure(figsize=(1, 1)))
    given = comparison(2, 2, detectors=("maha", "relative_mean"))
    stems = {p.stem for p in files.save_figures(given, tmp_path)}
    assert stems == {*shown[0], "scores_maha", "scores_relative_mean", "all"}
    left_out = set(given.measures) - set(*shown)
    parts = {f"{m}.frechet_{p}" for m in ("dm", "tlm") for p in ("shift", "shrinkage", "rotation")}
    assert left_out == parts | {f"{m}.{w}_{d}" for m in ("dm", "tlm") for w in ("ap", "fpr95")
                                for d in ("maha", "relative_mean")}


def test_a_figure_drawn_once_is_the_figure():
    given = comparison(3, 3)
    data = io.BytesIO()
    with mpl.rc_context(files.STYLE):
        files._make_figure(given, "dm.kl", {}).savefig(data, format="png", dpi=200)
    once = files.render_png(files._make_figure(given, "dm.kl", {}), 200)
    one, other = (plt.imread(io.BytesIO(d)) for d in (data.getvalue(), once))
    np.testing.assert_array_equal(one, other)
    assert files.render_pdf(files._make_figure(given, "dm.kl", {})) == files.render_pdf(
        files._make_figure(given, "dm.kl", {}))


def test_a_grid_has_one_map_per_measure():
    figure = files.draw_overview(comparison(2, 2), NAMES)
    assert len([ax for ax in figure.axes if ax.images]) == len(NAMES)
    assert len([ax for ax in files.draw_overview(comparison(), ["cka", "opd"]).axes if ax.images]) == 2
    with pytest.raises(SutureError, match="nearest: cka"):
        files.draw_overview(comparison(), ["ckaa"])


def test_saved_figures_do_not_need_pyplot(monkeypatch):
    monkeypatch.delattr(mpl, "pyplot")
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # an import of it fails
    with pytest.raises(ImportError):
        comparison(2, 2).plot("cka")
    files.draw_overview(comparison(2, 2), ["cka"])


# -- histograms


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
    titles = [ax.get_title().replace("\n", " ") for ax in made.axes]  # long ones have several lines
    assert titles == [make_printable(t) for t in given.targets]
    kinds = [[p.get_gid() for p in ax.patches] for ax in made.axes]
    every = ["native", "auxiliary", "unseen", "dm", "tlm"]
    assert kinds == [every, every, every[:-1], every, every, every]
    assert [t.get_text() for t in made.legends[0].get_texts()] == ["native", "auxiliary", "unseen",
                                                                   "direct matching", "task loss matching"]
    for ax in made.axes:
        assert len({tuple(p.get_data().edges) for p in ax.patches}) == 1
    assert files.render_png(made, 50).startswith(b"\x89PNG")
    assert files.render_pdf(made).startswith(b"%PDF")


def test_detectors_without_scores_have_no_histogram():
    given = comparison(3, 3, detectors=("maha",))
    for name in ("dm.score_other", "native.third"):
        given.arrays[name] = given.arrays["native.maha"]
    assert histograms.list_scored_detectors(given) == ["maha"]
    only = {k: v for k, v in given.arrays.items() if not k.startswith(("auxiliary", "unseen", "tlm.score"))}
    less = dataclasses.replace(given, arrays=only)
    assert list(histograms.collect_scores(less, "maha", 0)) == ["native", "dm"]
    assert len(histograms.draw_histograms(less, "maha").axes) == 3
    assert 'class="panels"' in page.render_page([less])
    assert 'class="panels"' not in page.render_page([dataclasses.replace(given, arrays={})])
