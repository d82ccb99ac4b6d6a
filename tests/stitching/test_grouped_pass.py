"""Running out of memory against not running out of it."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import suture
from suture import SutureError, TaskRecipe
from suture.data import MicroBatch
from suture.networks.sites import SitedNetwork
from suture.stitching.grouped_pass import make_training_micro_batch
from suture.stitching.tasks import Task
from tests.support import tiny
from tests.support.fit import Fit, N, assert_same


def oom() -> Exception:
    return torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate")


def cpu_oom() -> Exception:
    try:
        torch.empty(2**60)
    except RuntimeError as e:
        return e
    raise AssertionError


def limited(monkeypatch: pytest.MonkeyPatch, most: int, error: Any = oom) -> list[int]:
    """Let every tail run out of memory above `most` examples; the sizes that passed."""
    passed: list[int] = []
    inner = SitedNetwork.tail

    def tail(self: SitedNetwork, index: int, x: Tensor, done: Any) -> Any:
        if len(x) > most:
            raise error()
        passed.append(len(x))
        return inner(self, index, x, done)

    monkeypatch.setattr(SitedNetwork, "tail", tail)
    return passed


SHORT = TaskRecipe(epochs=2, lr=1e-2)


@cache
def trained_in_plenty(network: str) -> Fit:
    """From every site into an early and a late one; in the small network into every site."""
    cells = [(i, j) for i in range(6) for j in (1, 4)] if network == "resnet_digits" else None
    return Fit(SHORT, cells, network=network)


# Each error in the small network; each size that is left in the large one, where one error will do.
@pytest.mark.parametrize(("network", "most", "left", "error"), [
    *(("awkward", 1, 1, error) for error in (oom, cpu_oom, MemoryError)),
    ("resnet_digits", 3 * N, 3 * N, oom), ("resnet_digits", N, 36, oom),
    pytest.param("resnet_digits", 5, 4, oom, marks=pytest.mark.slow)])
def test_running_out_of_memory_changes_no_layer_and_is_said(monkeypatch: pytest.MonkeyPatch,
                                                            network: str, most: int, left: int,
                                                            error: Any) -> None:
    plain = trained_in_plenty(network)
    assert not plain.curves.notes
    passed = limited(monkeypatch, most, error)
    fit = Fit(SHORT, plain.cells, network=network)
    for c in fit.cells:
        assert_same(fit.layers[c], plain.layers[c])
        assert fit.curves.loss[c] == pytest.approx(plain.curves.loss[c], rel=1e-5)
        assert fit.curves.accuracy[c] == plain.curves.accuracy[c]
    assert [n for n in fit.curves.notes if f"at most {left} examples" in n] == fit.curves.notes != []
    assert max(passed) <= most


def test_the_result_says_that_memory_ran_out(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = SitedNetwork.tail

    def tail(self: SitedNetwork, index: int, x: Tensor, done: Any) -> Any:
        if torch.is_grad_enabled() and len(x) > 24:
            raise oom()
        return inner(self, index, x, done)

    def run() -> suture.Comparison:
        return suture.compare(tiny.network(), None, *tiny.data(), tlm=tiny.RECIPE, indices=(), ood=None,
                              device="cpu")

    plain = run()
    monkeypatch.setattr(SitedNetwork, "tail", tail)
    cut = run()
    notes = [n for n in cut.meta["notes"] if n not in plain.meta["notes"]]
    assert notes == ["memory ran out in training: networks ran on at most 16 examples at once"]
    np.testing.assert_allclose(cut.arrays["tlm.loss"], plain.arrays["tlm.loss"], rtol=1e-5)


def test_one_example_that_does_not_fit_is_an_error_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, 0)
    with pytest.raises(SutureError, match="out of memory with a single example") as error:
        Fit(TaskRecipe(epochs=1))
    assert "\n" not in str(error.value)


def test_other_errors_of_a_tail_come_through(monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, 0, lambda: RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        Fit(TaskRecipe(epochs=1))


def test_an_attempt_that_fails_lets_go_of_what_it_made() -> None:
    import weakref

    made: list[Any] = []
    micro = MicroBatch(8)

    def work() -> int:
        assert all(m() is None for m in made)
        t = torch.zeros(3)
        made.append(weakref.ref(t))
        if micro.most > 2:
            raise oom()
        return micro.most

    assert micro.run(work, 100) == 2
    assert len(made) == 3


def test_a_micro_batch_cuts_and_concatenates_up_to_half_of_a_forward_pass() -> None:
    micro = make_training_micro_batch(100)
    assert micro.most == 50
    assert make_training_micro_batch(1).most == 1
    assert [micro.count_at_once(n) for n in (10, 16, 50, 1000)] == [5, 3, 1, 1]
    assert [micro.choose_piece_size(n) for n in (1, 50, 51, 120, 151)] == [1, 50, 26, 40, 38]


def test_the_scored_rows_of_a_piece_are_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found, inner = [0], Task.find_rows

    def find_rows(self: Task, inputs: Any, labels: Tensor | None) -> Any:
        found[0] += 1
        return inner(self, inputs, labels)

    monkeypatch.setattr(Task, "find_rows", find_rows)
    Fit(TaskRecipe(epochs=1), [(0, 0)], micro=10)
    assert found == [5]
