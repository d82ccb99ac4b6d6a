"""Running out of memory against not running out of it."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import suture
from suture import SutureError, TaskRecipe
from suture.networks.calls import freeze
from suture.networks.sites import SitedNetwork
from suture.stitching import batch_budget as room
from suture.stitching.batch_budget import BatchBudget, measure_saved_bytes, measure_tail_bytes, try_in_memory
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


SHORT = TaskRecipe(epochs=3, lr=1e-2)


@cache
def trained_in_plenty(network: str) -> Fit:
    """From every site into an early, a middle and the last one; in the small network into every site."""
    cells = [(i, j) for i in range(6) for j in (0, 2, 5)] if network == "resnet_digits" else None
    return Fit(SHORT, cells, network=network)


@pytest.mark.parametrize("error", [oom, cpu_oom, MemoryError])
@pytest.mark.parametrize(("network", "most", "words"), [
    ("resnet_digits", 3 * N, ["at most 3"]), ("resnet_digits", N, ["at most 1"]),
    ("resnet_digits", N - 1, ["at most 1", "at most 12 examples"]),
    ("resnet_digits", 5, ["at most 3 examples"]), ("awkward", 1, ["at most 1 examples"])])
def test_running_out_of_memory_changes_no_layer_and_is_said(monkeypatch: pytest.MonkeyPatch, error: Any,
                                                            network: str,
                                                            most: int, words: list[str]) -> None:
    plain = trained_in_plenty(network)
    assert not plain.curves.notes
    passed = limited(monkeypatch, most, error)
    fit = Fit(SHORT, plain.cells, network=network)
    for c in fit.cells:
        assert_same(fit.layers[c], plain.layers[c])
        assert fit.curves.loss[c] == pytest.approx(plain.curves.loss[c], rel=1e-5)
        assert fit.curves.accuracy[c] == plain.curves.accuracy[c]
    assert all(any(w in n for n in fit.curves.notes) for w in words), fit.curves.notes
    assert max(passed) <= most


def test_the_result_says_that_memory_ran_out(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = SitedNetwork.tail

    def tail(self: SitedNetwork, index: int, x: Tensor, done: Any) -> Any:
        if torch.is_grad_enabled() and len(x) > 24:
            raise oom()
        return inner(self, index, x, done)

    def run() -> suture.Comparison:
        return suture.compare(tiny.network(), None, *tiny.data(), tlm=tiny.RECIPE, indices=(), device="cpu")

    plain = run()
    monkeypatch.setattr(SitedNetwork, "tail", tail)
    cut = run()
    assert [n for n in cut.meta["notes"] if n not in plain.meta["notes"]] == [
        f"memory ran out in training: stitched batches into {name} were concatenated by at most 1"
        for name in tiny.SITES]
    np.testing.assert_allclose(cut.arrays["tlm.loss"], plain.arrays["tlm.loss"], rtol=1e-5)


def test_one_example_that_does_not_fit_is_an_error_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, 0)
    with pytest.raises(SutureError, match="out of memory with a single example"):
        Fit(TaskRecipe(epochs=1))


def test_other_errors_of_a_tail_come_through(monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, 0, lambda: RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        Fit(TaskRecipe(epochs=1))


def test_an_attempt_that_fails_lets_go_of_what_it_made() -> None:
    import weakref

    made: list[Any] = []

    def work() -> None:
        t = torch.zeros(3)
        made.append(weakref.ref(t))
        raise oom()

    assert try_in_memory(work) is None
    assert made[0]() is None


def test_saved_bytes_counts_every_storage_once() -> None:
    x = torch.randn(4, 6, requires_grad=True)
    weight = torch.randn(6, 6)
    # the weight, relu's result
    assert measure_saved_bytes(lambda: (x @ weight).relu()) == weight.numel() * 4 + 4 * 6 * 4
    assert measure_saved_bytes(lambda: x[:2].exp() + x[2:].view(12).sum()) == 2 * 6 * 4
    # saved by exp and twice by the product
    assert measure_saved_bytes(lambda: (lambda y: y * y)(x.exp())) == 4 * 6 * 4


def test_bytes_of_a_tail_are_those_of_one_example_without_the_weights() -> None:
    network = nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 9), nn.ReLU(), nn.Linear(9, 3))
    x = torch.randn(5, 6)
    sited = SitedNetwork(network, x, ["0", "2"])
    with freeze(network), torch.no_grad():
        done = sited.run_full(x)
        reps = sited.pick_representations(done)
    with freeze(network):
        # Each ReLU keeps its result; frozen linear layers keep their weight only. Twice the stitched one.
        assert measure_tail_bytes(sited, 0, reps[0], done) == 4 * (7 + 9) + 2 * 4 * 7
        assert measure_tail_bytes(sited, 1, reps[1], done) == 4 * 9 + 2 * 4 * 9


def test_a_measured_budget_cuts_the_groups_and_no_layer_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = trained_in_plenty("resnet_digits")
    sizes: list[tuple[int, int]] = []
    monkeypatch.setattr(room, "find_backward_budget", lambda device: 4_000_000)
    monkeypatch.setattr("suture.stitching.grouped_pass.find_backward_budget", lambda device: 4_000_000)
    learned: dict[int, int] = {}
    learn = BatchBudget.set_tail_bytes
    monkeypatch.setattr(BatchBudget, "set_tail_bytes",
                        lambda self, found: [learned.update(found), learn(self, found)][1])
    inner = SitedNetwork.tail
    monkeypatch.setattr(SitedNetwork, "tail",
                        lambda self, j, x, done: [sizes.append((j, len(x))), inner(self, j, x, done)][1])
    fit = Fit(SHORT, plain.cells, network="resnet_digits")
    assert learned[0] > learned[5], "an early tail saves more"
    for j, n in sizes[2 * len(learned):]:
        assert n <= max(N, 4_000_000 // learned[j]), (j, n)
    assert max(n for j, n in sizes if j == 5) > max(n for j, n in sizes[2 * len(learned):] if j == 0)
    for c in fit.cells:
        assert_same(fit.layers[c], plain.layers[c])
    assert not fit.curves.notes


def test_room_takes_what_fits() -> None:
    cpu = BatchBudget(["a", "b"], 100, None)
    assert not cpu.to_measure
    assert cpu.examples_at_once == 50
    assert BatchBudget("a", 1, None).examples_at_once == 1
    assert [cpu.count_at_once(0, n) for n in (10, 16, 50, 1000)] == [5, 3, 1, 1]
    assert [cpu.choose_piece_size(n) for n in (1, 50, 51, 120, 151)] == [1, 50, 26, 40, 38]
    gpu = BatchBudget(["a", "b"], 1000, 6000)
    assert gpu.to_measure
    gpu.set_tail_bytes({0: 10, 1: 2})
    assert not gpu.to_measure
    assert (gpu.examples_at_once, gpu.count_at_once(0, 100), gpu.count_at_once(1, 100)) == (600, 6, 30)
    gpu.halve_batches(1, 30)
    assert (gpu.count_at_once(0, 100), gpu.count_at_once(1, 100)) == (6, 15)
    gpu.halve_examples(600)
    assert gpu.examples_at_once == 300
    assert [n.rpartition(" ")[0] for n in gpu.describe_cuts()] == [
        "memory ran out in training: stitched batches into b were concatenated by at most",
        "memory ran out in training: networks ran on at most 300 examples at"]
