"""A factorisation without a result makes the values missing that need it, with its reason, and no others."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import suture
from suture.compare import run as compare_run
from suture.indices import of_blocks
from suture.numbers import MomentBlock, Moments, Spectra, factorisations
from suture.ood import two_sample
from suture.results import Comparison

INDICES = "svcca", "shape", "correlation_hard", "permutation", "soft_matching", "r2_folds", "cka"
"""Those that factorise beside the default ones, and one that does not."""


def fail(x: torch.Tensor) -> Any:
    raise torch._C._LinAlgError("linalg.svd: (Batch element 0): The algorithm failed to converge because the "
                                "input matrix is ill-conditioned (error code: 4).")


class FailingCall:
    """A replacement of `factorisations._factorise`: all drivers of call `k` fail; None: it counts the calls.

    `calls` are the names of the factorisations in order.
    """

    original = staticmethod(factorisations._factorise)

    def __init__(self, k: int | None = None) -> None:
        self.k, self.calls = k, list[str]()

    def __call__(self, what: str, x: torch.Tensor) -> Any:
        self.calls.append(what)
        if self.k != len(self.calls) - 1:
            return self.original(what, x)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(factorisations.DRIVERS, what, (factorisations.Driver(fail),) * 3)  # type: ignore
            return self.original(what, x)

    @property
    def reason(self) -> str:
        """Beginning of the reason of what is missing."""
        assert self.k is not None
        return f"no {self.calls[self.k]} of a matrix of "


def make_network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Sequential(nn.Linear(5, 4), nn.Tanh()), nn.Sequential(nn.Linear(4, 4), nn.Tanh()),
                         nn.Linear(4, 3))


def run(family: str, **settings: Any) -> Comparison:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 5, generator=generator), torch.randint(0, 3, (60,), generator=generator)
    given: dict[str, Any] = {"methods": ["dm"], "indices": (), "ood": None}
    if names := settings.pop("detectors", ()):
        given["ood"] = suture.OOD(names)
    return suture.compare(make_network(0), make_network(1), (x, y), (x[:20], y[:20]), sites=["0", "1"],
                          target_sites=["1"], family=family, **given | settings)


def values(result: Comparison) -> pd.DataFrame:
    return result.table.set_index(["source", "target", "measure"]).sort_index()


def run_counted(patch: pytest.MonkeyPatch, k: int | None, family: str,
                **settings: Any) -> tuple[Comparison, FailingCall]:
    call = FailingCall(k)
    patch.setattr(factorisations, "_factorise", call)
    return run(family, **settings), call


def check(before: pd.DataFrame, after: pd.DataFrame, call: FailingCall, notes: list[str], cells: int) -> None:
    """Check that values are missing in at most so many cells, for the reason of `call`, and no others."""
    assert after.index.equals(before.index)
    lost = after["value"].isna() & before["value"].notna()
    without = ~lost & after["low"].isna() & before["low"].notna()
    for why in [*after.loc[lost, "reason"], *after.loc[without, "mark"]]:
        assert call.reason in why, call.k
        assert "no algorithm converges" in why
    assert lost.sum() + without.sum() or any(call.reason in note for note in notes), call.k
    assert len({c[:2] for c in after.index[lost | without]}) <= cells, call.k
    same = ~(lost | without)
    kept = ["value", "low", "high"]
    np.testing.assert_allclose(after.loc[same, kept], before.loc[same, kept], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(after.loc[without, "value"], before.loc[without, "value"], rtol=1e-9)
    assert (after.loc[same, "reason"] == before.loc[same, "reason"]).all()


def check_each_failure(family: str, monkeypatch: pytest.MonkeyPatch, calls: Iterable[int] | None = None,
                       cells: int = 1, **settings: Any) -> None:
    """Let each call fail in turn, or some, and check what is missing."""
    before, counter = run_counted(monkeypatch, None, family, **settings)
    for k in range(len(counter.calls)) if calls is None else calls:
        after, call = run_counted(monkeypatch, k, family, **settings)
        check(values(before), values(after), call, after.meta["notes"], cells)


EVERYTHING: dict[str, Any] = {"methods": ["dm", "tlm"], "indices": "default", "jackknife": 5,
                              "detectors": ("mahalanobis",),
                              "tlm": suture.TaskRecipe(epochs=1, batch_size=60)}
WITHOUT_INDICES = EVERYTHING | {"indices": (), "jackknife": 0}


@pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_factorisations_of_a_comparison_fail_in_turn(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage of moments runs anew for each of its calls, on the moments of one pass; all for what comes
    before, and all but the indices for what comes after."""
    kept: list[Any] = []
    describe, solve = compare_run.describe_moments, compare_run.match
    counter, places = FailingCall(), list[int]()

    def keep_match(*given: Any) -> Any:
        places.append(len(counter.calls))
        return solve(*given)

    def keep(*given: Any) -> Any:
        kept.append(given)
        found = describe(*given)
        places.append(len(counter.calls))
        return found

    monkeypatch.setattr(factorisations, "_factorise", counter)
    monkeypatch.setattr(compare_run, "match", keep_match)
    monkeypatch.setattr(compare_run, "describe_moments", keep)
    whole = run("full", **EVERYTHING)
    monkeypatch.undo()
    (setup, accumulators, _, *rest), (start, end) = kept[0], places

    def run_moments(k: int | None) -> tuple[pd.DataFrame, list[str], FailingCall]:
        for moments in accumulators.tables.values():
            moments.spectra = Spectra()
        call = FailingCall(k)
        monkeypatch.setattr(factorisations, "_factorise", call)
        matched = solve(setup, accumulators)
        found = describe(setup, accumulators, matched, *rest)
        table = pd.DataFrame(found.rows).set_index(["source", "target", "measure"]).sort_index()
        return table, [*found.notes, *matched.fitted.failed.values()], call

    before, _, inner = run_moments(None)
    assert inner.calls == counter.calls[start:end]
    for k in range(0, len(inner.calls), step):
        after, notes, call = run_moments(k)
        check(before, after, call, notes, 1)
    assert 0 < start < end < len(counter.calls)
    for k in range(0, start, step):
        after, call = run_counted(monkeypatch, k, "full", **EVERYTHING)
        check(values(whole), values(after), call, after.meta["notes"], 2)
    _, counted = run_counted(monkeypatch, None, "full", **WITHOUT_INDICES)
    later = len(counter.calls) - end
    assert counted.calls[-later:] == counter.calls[end:]
    calls = range(len(counted.calls) - later, len(counted.calls), step)
    check_each_failure("full", monkeypatch, calls, 2, **WITHOUT_INDICES)


def test_a_first_map_that_cannot_be_drawn_is_missing_in_its_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    given = WITHOUT_INDICES | {"detectors": ()}
    before, counter = run_counted(monkeypatch, None, "orthogonal", **given)
    drawn = counter.calls.index("QR decomposition")
    after, call = run_counted(monkeypatch, drawn, "orthogonal", **given)
    check(values(before), values(after), call, [], 1)
    missing = after.table[after.table["value"].isna()]
    assert set(missing["source"]) == {"0"}
    assert missing["measure"].str.startswith("tlm.").all()


@pytest.mark.parametrize("intervals", [False, True])
def test_each_index_is_missing_alone(intervals: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    y = x @ torch.randn(3, 4, generator=generator, dtype=torch.float64)
    y = y + torch.randn(50, 4, generator=generator, dtype=torch.float64)
    blocks = [MomentBlock(Moments.of(x[k::5], y[k::5])) for k in range(5)]
    monkeypatch.setattr(factorisations, "_factorise", counter := FailingCall())
    before = of_blocks(blocks, INDICES, intervals=intervals)
    for k in range(0, len(counter.calls), 8 if intervals else 1):
        monkeypatch.setattr(factorisations, "_factorise", call := FailingCall(k))
        after = of_blocks(blocks, INDICES, intervals=intervals)
        changed = [name for name in before if repr(before[name]) != repr(after[name])]
        assert len(changed) == 1, k
        value = after[changed[0]]
        assert math.isnan(value.low)
        assert call.reason in (value.reason or value.mark)


def test_a_classifier_that_fails_is_missing_in_its_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    before, count, score = values(run("full", detectors=("two_sample",))), [0], two_sample._score_fold

    def score_once(*given: Any) -> Any:
        count[0] += 1
        if count[0] == 2:
            raise np.linalg.LinAlgError("Eigenvalues did not converge")
        return score(*given)

    monkeypatch.setattr(two_sample, "_score_fold", score_once)
    after = values(run("full", detectors=("two_sample",)))
    lost = after["value"].isna() & before["value"].notna()
    assert lost.sum() == 4
    assert {(s, m.split(".")[1].split("_")[0]) for s, _, m in after.index[lost]} == {
        ("0", "ood"), ("0", "auroc"), ("0", "ap"), ("0", "fpr95")}
    assert set(after.loc[lost, "reason"]) == {"Eigenvalues did not converge"}


FAMILIES = ["ridge:cv", "rank:2", "permutation"]


@pytest.mark.parametrize("family", FAMILIES)
def test_direct_matching_is_missing_in_one_cell(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_each_failure(family, monkeypatch, [0, 2])


@pytest.mark.parametrize("error", [np.linalg.LinAlgError("SVD did not converge"),
                                   torch.linalg.LinAlgError("linalg.eigh: failed to converge")])
def test_a_detector_of_the_user_is_missing_at_its_site_alone(error):
    class Mine(suture.ood.Detector):
        about = "Mine."

        def fit(self, native: Any) -> Any:
            if native.data is not None:
                raise error
            return self

        def score(self, seen: Any) -> torch.Tensor:
            return -seen.spread.norm(dim=1)

    found = values(run("full", ood=suture.OOD(("neighbours",), own={"mine": Mine()})))
    missing = found[found["value"].isna()]
    assert len(missing) == 8
    assert missing.index.get_level_values("measure").str.endswith("_mine").all()
    assert set(missing["reason"]) == {str(error)}
