"""A factorisation without a result makes the values missing that need it, with its reason, and no others."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import suture
from suture.indices import of_matrices
from suture.numbers import NumericalError, factorisations
from suture.results import Comparison

REASON = "no test decomposition"
INDICES = "cka", "pwcca", "svcca", "nuclear", "shape", "correlation_hard", "permutation", "r2", "r2_folds"
"""All that call a factorisation, and one that calls none."""


class FailingCall:
    """A replacement of `factorisations._factorise` whose call number `k` fails; None: it counts the calls."""

    def __init__(self, k: int | None = None) -> None:
        self.k, self.calls, self.original = k, 0, factorisations._factorise

    def __call__(self, what: str, *rest: Any) -> Any:
        self.calls += 1
        if self.k == self.calls - 1:
            raise NumericalError(REASON)
        return self.original(what, *rest)


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


@cache
def solve_soundly(family: str, *settings: tuple[str, Any]) -> tuple[pd.DataFrame, int]:
    with pytest.MonkeyPatch.context() as patch:
        counter = FailingCall()
        patch.setattr(factorisations, "_factorise", counter)
        return values(run(family, **dict(settings))), counter.calls


def check_each_failure(family: str, monkeypatch: pytest.MonkeyPatch, most: int,
                       *settings: tuple[str, Any]) -> None:
    """Let each call fail in turn; check that at most `most` values of one cell or site are missing."""
    before, calls = solve_soundly(family, *settings)
    for k in range(0, calls, 1 + (calls > 12)):  # every second of many, for time
        monkeypatch.setattr(factorisations, "_factorise", FailingCall(k))
        result = run(family, **dict(settings))
        monkeypatch.undo()
        after = values(result)
        assert after.index.equals(before.index)
        lost = after["value"].isna() & before["value"].notna()
        assert set(after.loc[lost, "reason"]) <= {REASON}
        assert lost.sum() or any(REASON in note for note in result.meta["notes"]), k
        assert lost.sum() <= most
        assert len({c[:2] for c in after.index[lost]}) <= (1 + bool(settings) if most > 1 else 1)
        kept = ["value", "low", "high"]
        np.testing.assert_allclose(after.loc[~lost, kept], before.loc[~lost, kept], rtol=1e-9, atol=1e-12)
        assert (after.loc[~lost, "reason"] == before.loc[~lost, "reason"]).all()


def test_each_index_is_missing_alone(monkeypatch):
    check_each_failure("full", monkeypatch, 1, ("indices", INDICES), ("methods", ()))


FAMILIES = ["ridge:cv", "rank:2", "orthogonal", "permutation"]


@pytest.mark.parametrize("family", FAMILIES)
def test_direct_matching_is_missing_in_one_cell(family, monkeypatch):
    check_each_failure(family, monkeypatch, 12)


def test_detectors_and_distances_are_missing_alone(monkeypatch):
    check_each_failure("full", monkeypatch, 20, ("detectors", ("mahalanobis", "neighbours")))


def test_an_interval_is_missing_alone_and_the_mark_says_why(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    y = x @ torch.randn(3, 4, generator=generator, dtype=torch.float64) + torch.randn(50, 4).double()
    counter = FailingCall()
    monkeypatch.setattr(factorisations, "_factorise", counter)
    before = of_matrices(x, y, INDICES, jackknife=5)
    for k in range(0, counter.calls, 4):
        monkeypatch.setattr(factorisations, "_factorise", failing := FailingCall(k))
        failing.original = counter.original
        after = of_matrices(x, y, INDICES, jackknife=5)
        changed = [name for name in before if repr(before[name]) != repr(after[name])]
        assert len(changed) == 1, k
        value = after[changed[0]]
        assert math.isnan(value.low)
        assert value.reason == REASON or value.mark.endswith(f"no interval: {REASON}")


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
