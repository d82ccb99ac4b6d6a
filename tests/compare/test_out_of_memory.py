"""Memory that runs out without gradients: networks go on in smaller pieces, and no number changes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import suture
from suture import SutureError
from suture._base.keeping import checkpoints
from suture.compare.scoring.chance import ClassCounts
from suture.compare.scoring.evaluation import Evaluator
from suture.data import Batch, MicroBatch
from suture.networks import SitedNetwork
from suture.ood import OOD, DetectorFitter, EnergyRecipe, ScoreCollector
from suture.representations import Accumulators
from tests.support import tiny
from tests.support.interruptions import assert_same_numbers
from tests.support.kept_runs import compare

BRIEF: dict[str, Any] = {"ood": None, "methods": [], "indices": ["cka"]}
PLAIN: dict[str, Any] = {"ood": None, "methods": ["dm"], "target_sites": ["block2"]}
FEWER = PLAIN | {"ood": ["tail_energy", "mahalanobis"]}
MOST = 5
"""Examples that fit; looking at a network takes 4."""
OUTSIDE = tiny.images(40, seed=3) * 3 - 1
DETECTORS = OOD(("mahalanobis", "tail_energy", "energy", "two_sample"), auxiliary=OUTSIDE,
                unseen=OUTSIDE.flip(0),
                energy=EnergyRecipe(epochs=1, tune_epochs=1, batch_size=8, crop=0, flip=False))


def fail() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def limit(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, size: Callable[..., int],
          error: Callable[[], Exception] = fail) -> list[int]:
    """Let a method run out of memory above `MOST` examples; return the sizes that failed."""
    failed: list[int] = []
    inner = getattr(owner, name)

    def call(*args: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled() and (n := size(*args)) > MOST:
            failed.append(n)
            raise error()
        return inner(*args, **named)

    monkeypatch.setattr(owner, name, call)
    return failed


def run(**changes: Any) -> suture.Comparison:
    given = {"tlm": tiny.RECIPE, "device": "cpu", "indices": ["cka", "cka@flatten", "jaccard:3", "cka@paper"],
             "seed": 1, "ood": DETECTORS} | changes
    return suture.compare(tiny.network(), tiny.other(), *tiny.data(), **given)


def run_for(stage: str) -> suture.Comparison:
    """Compare with every detector, with two that need no training, or without any, as a stage needs."""
    return run(**{"front": {}, "fitter": FEWER, "scores": FEWER}.get(stage, PLAIN))


@cache
def run_in_plenty(like: str) -> suture.Comparison:
    return run_for(like)


def assert_same(cut: suture.Comparison, plain: suture.Comparison) -> None:
    keys = ["source", "target", "measure", "reason", "mark", "n"]
    assert cut.table[keys].equals(plain.table[keys])
    np.testing.assert_allclose(cut.table["value"], plain.table["value"], rtol=1e-4, atol=1e-5)
    assert cut.arrays.keys() == plain.arrays.keys()
    for name, array in plain.arrays.items():
        np.testing.assert_allclose(cut.arrays[name], array, rtol=1e-3, atol=1e-4, err_msg=name)


STAGES = {
    "front": (SitedNetwork, "front", lambda _, x: len(x)),
    "run_full": (SitedNetwork, "run_full", lambda _, x: len(x)),
    "tail": (SitedNetwork, "tail", lambda _, j, x, done: len(x)),
    "sums": (Accumulators, "update", lambda _, xs, *others: len(xs[0])),
    "fitter": (DetectorFitter, "update", lambda _, xs, *others: len(xs[0])),
    "scores": (ScoreCollector, "add", lambda _, key, x, *others: len(x)),
    "counts": (ClassCounts, "add", lambda _, kind, classes, width: len(classes)),
    "native": (Evaluator, "_record_native", lambda _, j, grid, *others: len(grid)),
}


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_halves_and_goes_on(monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    plain = run_in_plenty({"front": "front", "fitter": "scores", "scores": "scores"}.get(stage, "sums"))
    failed = limit(monkeypatch, *STAGES[stage])
    cut = run_for(stage)
    assert failed
    assert_same(cut, plain)
    new = [n for n in cut.meta["notes"] if n not in plain.meta["notes"]]
    assert len(new) == 1
    assert new[0].startswith("memory ran out: networks ran on at most")
    assert cut.meta["micro_batch"] <= MOST
    assert len(failed) <= 10  # what was learned holds for the stages that follow


@pytest.mark.parametrize("words", ["", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate",
                                   "MPS backend out of memory (MPS allocated: 18.1 GB)",
                                   "[enforce fail] DefaultCPUAllocator: can't allocate memory: 12 bytes"])
def test_devices_word_it_differently(monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    plain = run(**BRIEF)
    failed = limit(monkeypatch, *STAGES["front"], lambda: RuntimeError(words) if words else MemoryError())
    assert_same(run(**BRIEF), plain)
    assert failed


def test_one_example_that_does_not_fit_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, Accumulators, "update", lambda *_: MOST + 1)
    with pytest.raises(SutureError, match="out of memory with a single example") as caught:
        run(**BRIEF)
    assert "\n" not in str(caught.value)


def test_memory_that_runs_out_otherwise_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, Accumulators, "get_pair", lambda *_: MOST + 1)
    with torch.no_grad(), pytest.raises(SutureError, match="memory ran out in the stage moments"):
        run(**BRIEF)


def test_a_checkpoint_after_memory_ran_out_holds_what_the_pass_has(
        monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int | None) -> None:
        if (stage, done) == ("evaluating dm", 2):
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "INTERVAL", 0.0)
    monkeypatch.setattr(checkpoints, "_SHARE", 0)
    failed = limit(monkeypatch, *STAGES["native"])
    given: dict[str, Any] = {"methods": ["dm"], "ood": None, "indices": ["cka"]}
    whole = compare(None, **given)
    with pytest.raises(KeyboardInterrupt):
        compare(tmp_path, **given, progress=stop)
    assert (tmp_path / "checkpoint-evaluating-dm.safetensors").exists()
    assert_same_numbers(compare(tmp_path, **given), whole)
    assert len(failed) == 3


def test_capture_passes_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = tiny.network(), tiny.images(17)
    plain = suture.capture(network, x)
    failed = limit(monkeypatch, *STAGES["front"])
    cut = suture.capture(network, x)
    assert failed == [17, 8]
    assert cut.keys() == plain.keys()
    for name, found in plain.items():
        torch.testing.assert_close(cut[name], found)


def test_a_batch_is_cut_in_order_and_moved_piece_by_piece() -> None:
    micro, seen = MicroBatch(6), list[list[int]]()

    def work(piece: Any) -> Tensor:
        if piece.size > 2:
            raise fail()
        seen.append(piece.source.tolist())
        return piece.source * 2

    batch = Batch(torch.arange(13), torch.arange(13) + 1, torch.arange(13) + 2)
    found = list(micro.map(batch, torch.device("cpu"), work))
    assert [i for s in seen for i in s] == list(range(13))
    assert max(map(len, seen)) <= micro.most <= 2
    for piece, made in found:
        assert torch.equal(made, piece.source * 2)
        assert torch.equal(piece.target, piece.source + 1)
        assert torch.equal(piece.labels, piece.source + 2)


def test_a_resumed_run_says_once_that_memory_ran_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int | None) -> None:
        if stage == "evaluating dm":
            raise KeyboardInterrupt

    given: dict[str, Any] = FEWER | {"save_to": tmp_path}
    limit(monkeypatch, *STAGES["front"])
    with monkeypatch.context() as more:
        more.setattr(f"{__name__}.MOST", 6)
        with pytest.raises(KeyboardInterrupt):
            run(**given, progress=stop)
    before = suture.load(tmp_path).meta["notes"]
    notes = [[n for n in of if n.startswith("memory ran out")] for of in (before, run(**given).meta["notes"])]
    assert [len(of) for of in notes] == [1, 1]
    assert notes[0] != notes[1]
