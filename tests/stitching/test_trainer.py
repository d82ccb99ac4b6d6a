"""Fitting by gradient: grouped training against training alone, early stopping, a loss that is not finite."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import suture
from suture import Paired, SutureError, TaskRecipe
from suture._base import NO_KEEPER, Keeper
from suture._base.keeping import checkpoints
from suture.data import Batches
from suture.networks import SitedNetwork, apply, compute_rate_factor, freeze
from suture.representations import Alignment, AlignmentRule
from suture.stitching import Curves, StitchingLayer
from suture.stitching import trainer as task
from suture.stitching.trainer import GroupTrainer, make_training_batches
from tests.support import tiny
from tests.support.fit import CPU, Fit, N, assert_same, moved, too_late
from tests.support.sequences import TEXTS, collated, two

# -- law 5: grouped is alone ---------------------------------------------------------------------------------

RECIPES = {
    "adam": TaskRecipe(lr=1e-2), "adamw": TaskRecipe(optimizer="adamw", weight_decay=0.1, lr=1e-2),
    "sgd": TaskRecipe(optimizer="sgd", lr=0.3), "cosine": TaskRecipe(schedule="cosine", lr=1e-2),
    "onecycle": TaskRecipe(schedule="onecycle", lr=1e-2),
    "soft": TaskRecipe(objective="soft", temperature=3, lr=1e-2),
    "mixed": TaskRecipe(objective="mixed", mix=0.3, lr=1e-2), "match": TaskRecipe(objective="match", lr=1e-2),
}


@cache
def trained_alone(name: str) -> dict[tuple[int, int], StitchingLayer]:
    """The layer of each cell, trained without any other, which no micro-batch changes."""
    recipe = replace(RECIPES[name], epochs=4)
    return {c: Fit(recipe, [c]).layers[c] for c in product(range(2), repeat=2)}


# Every recipe in pieces; pieces of other sizes for one.
@pytest.mark.parametrize(("name", "micro"), [*((name, 7) for name in RECIPES), ("mixed", 40),
                                             ("mixed", 10_000)])
def test_grouped_training_equals_training_alone(name: str, micro: int) -> None:
    together = Fit(replace(RECIPES[name], epochs=4), micro=micro)
    assert set(together.cells) == set(trained_alone(name))
    for c in together.cells:
        assert_same(together.layers[c], trained_alone(name)[c])
        assert moved(together, c) > 0.02


def test_every_objective_and_optimiser_gives_other_layers() -> None:
    made = [Fit(replace(r, epochs=3), [(0, 1)]).layers[0, 1].weight
            for r in RECIPES.values()]
    assert len({float(w.detach().sum()) for w in made}) == len(RECIPES)


@pytest.mark.parametrize("patience", [1, 3])
def test_a_layer_that_stops_early_is_the_one_that_stops_alone(patience: int) -> None:
    recipe = TaskRecipe(epochs=20, lr=3e-2, patience=patience)
    together = Fit(recipe, held=True)
    stopped = together.curves.stopped
    assert len(set(stopped.values())
               | {20 for c in together.cells if c not in stopped}) > 1, "all stop at once"
    for c in together.cells:
        alone = Fit(recipe, [c], held=True)
        assert_same(together.layers[c], alone.layers[c])
        assert alone.curves.stopped.get(c) == stopped.get(c)
        assert together.curves.loss[c] == pytest.approx(alone.curves.loss[c], rel=1e-5)
        assert together.curves.held_out[c] == pytest.approx(alone.curves.held_out[c], rel=1e-5)
        assert len(together.curves.loss[c]) == stopped.get(c, 20)


def test_an_objective_that_goes_on_from_a_checkpoint_counts_every_example_once(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "INTERVAL", 0.0)
    monkeypatch.setattr(checkpoints, "_SHARE", 0)
    fit = Fit(TaskRecipe(epochs=1), [(0, 1)])
    ordered = list(zip(*(t.split(8) for t in fit.data), strict=True))

    def find(data: Any, keeper: Keeper = NO_KEEPER, progress: Any = None) -> float:
        with freeze(fit.network):
            return fit.trainer.compute_objective(Batches(data), CPU, fit.layers, progress, keeper)[0, 1]

    def stop(stage: str, done: int, total: int | None) -> None:
        if done == 2:
            raise InterruptedError

    for other in (ordered, ordered[::-1]):  # a loader may have another order the second time
        with pytest.raises(InterruptedError):
            find(ordered, Keeper(tmp_path), stop)
        assert any(tmp_path.iterdir())
        keeper = Keeper(tmp_path)
        assert find(other, keeper) == pytest.approx(find(ordered), rel=1e-9)
        assert keeper.notes[0].startswith("went on" if other is ordered else "started")
        keeper.remove_all()


def test_a_pass_over_held_out_data_goes_on_from_its_checkpoint(tmp_path: Path,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "INTERVAL", 0.0)
    monkeypatch.setattr(checkpoints, "_SHARE", 0)
    recipe = TaskRecipe(epochs=3, lr=3e-2, patience=3)

    fit = Fit(TaskRecipe(epochs=1), [(0, 1)])
    ordered = list(zip(*(t.split(8) for t in fit.data), strict=True))

    def train(held_out: Any, keeper: Keeper = NO_KEEPER) -> Curves:
        with freeze(fit.network):
            fresh = GroupTrainer(fit.source, fit.target, {c: fit.layer(c) for c in fit.cells}, recipe, N)
            return fresh.fit(Batches(ordered), CPU, None, Batches(held_out), keeper)

    whole = train(ordered)

    class Stopped(list[Any]):
        """Data that stop in the middle of the second pass over them."""

        passes = 0

        def __iter__(self) -> Any:
            self.passes += 1
            for k, item in enumerate(super().__iter__()):
                if (self.passes, k) == (2, 2):
                    raise ValueError
                yield item

    with pytest.raises(SutureError, match="reading batch 2"):
        train(Stopped(ordered), Keeper(tmp_path))
    keeper = Keeper(tmp_path)
    again = train(ordered, keeper)
    assert "went on from a checkpoint of held-out data after epoch 2" in keeper.notes
    assert again.held_out == whole.held_out
    keeper.finish("tlm")
    assert not any(tmp_path.iterdir())


def test_the_weights_with_the_best_held_out_objective_are_put_back() -> None:
    recipe = TaskRecipe(epochs=40, lr=3e-2, patience=3)
    fit = Fit(recipe, held=True)
    x, y = fit.data
    held_out = Batches([(x[16:], y[16:].flip(0))])
    with freeze(fit.network):
        ends = fit.trainer.compute_objective(held_out, CPU, fit.layers)
    for c in fit.cells:
        curve = fit.curves.held_out[c]
        assert ends[c] == pytest.approx(min(curve), rel=2 * task.LEAST_IMPROVEMENT)
        if c in fit.curves.stopped:
            assert curve[-4] == pytest.approx(
                min(curve), rel=2 * task.LEAST_IMPROVEMENT), "not three epochs after its best"
    assert fit.curves.stopped


def test_patience_without_held_out_data_is_refused() -> None:
    with pytest.raises(SutureError, match="held-out data"):
        Fit(TaskRecipe(epochs=1, patience=1))


def test_a_layer_without_parameters_is_trained_over_in_peace() -> None:
    class Fixed(StitchingLayer):
        def __init__(self, alignment: Alignment) -> None:
            super().__init__(alignment)
            self.requires_grad_(False)

    fit = Fit(TaskRecipe(epochs=3), make=Fixed)
    assert all(len(set(loss)) == 1 for loss in fit.curves.loss.values())


@pytest.mark.slow
def test_direct_matching_by_gradient_finds_direct_matching() -> None:
    fit = Fit(TaskRecipe(epochs=800, objective="match", lr=0.3, weight_decay=0, schedule="cosine"),
              [(0, 1), (1, 0)], dtype=torch.float32)
    result = suture.compare(fit.network, data=fit.data, methods=["dm"], indices=(), device="cpu")
    for c in fit.cells:
        name = tuple(str(fit.target.sites[k]) for k in c)
        assert fit.curves.loss[c][-1] == pytest.approx(result.matrix("dm.residual").loc[name], rel=1e-2)


def test_layers_shrink_after_each_step_at_its_rate() -> None:
    rates: list[float] = []

    class Shrinking(StitchingLayer):
        def shrink(self, lr: float) -> None:
            rates.append(lr)

    Fit(TaskRecipe(epochs=3, lr=0.5, schedule="cosine"), [(0, 1)], make=Shrinking, batch=8)
    assert rates == [0.5 * compute_rate_factor("cosine", k, 9) for k in range(9)]


def test_layers_of_one_cell_and_own_layers_of_a_target_are_trained_as_each_alone() -> None:
    alone = Fit(TaskRecipe(epochs=5, lr=1e-2), [(0, 0), (0, 1)])
    fit = Fit(TaskRecipe(epochs=1), two=True)
    layers = {key: fit.layer((key[0] % 2, key[1])) for key in ((0, 1, 0), (2, 0, 0), (0, 1, 1))}
    layers[0, 1, 1].init_random(7)
    with freeze(fit.network), freeze(fit.source.network):
        GroupTrainer(fit.source, fit.target, layers, TaskRecipe(epochs=5, lr=1e-2), 10_000).fit(
            Batches([fit.data]), CPU)
    assert_same(layers[0, 1, 0], alone.layers[0, 1])
    assert_same(layers[2, 0, 0], alone.layers[0, 0])
    assert not torch.allclose(layers[0, 1, 1].weight, layers[0, 1, 0].weight)


# -- precision -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("objective", ["hard", "match"])
def test_bf16_runs_the_networks_in_bf16_and_layer_and_loss_in_float32(
        objective: Any,
        monkeypatch: pytest.MonkeyPatch) -> None:
    kinds: set[torch.dtype] = set()
    given: set[torch.dtype] = set()
    inner, layer = F.conv2d, StitchingLayer.forward
    monkeypatch.setattr(nn.Conv2d, "_conv_forward",
                        lambda self, x, w, b: [out := inner(x, w, b, self.stride, self.padding),
                                               kinds.add(out.dtype)][0])
    monkeypatch.setattr(StitchingLayer, "forward",
                        lambda self, x, *a: [out := layer(self, x, *a),
                                             given.update((x.dtype, out.dtype))][0])
    low = Fit(TaskRecipe(epochs=5, lr=1e-2, precision="bf16", objective=objective), dtype=torch.float32)
    assert given == {torch.float32}
    assert torch.bfloat16 in kinds
    high = Fit(TaskRecipe(epochs=5, lr=1e-2, objective=objective), dtype=torch.float32)
    for c in low.cells:
        assert all(p.dtype == p.grad.dtype == torch.float32 for p in low.layers[c].parameters())
        assert low.curves.loss[c] == pytest.approx(high.curves.loss[c], rel=0.03)
        assert low.curves.loss[c] != high.curves.loss[c]


# -- a loss that is not finite -------------------------------------------------------------------------------

def test_a_cell_that_becomes_nan_names_its_step_and_the_others_go_on() -> None:
    class Failing(StitchingLayer):
        calls = 0

        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            out = super().forward(x, mask)
            if self.alignment.source != self.alignment.target:
                return out
            Failing.calls += 1
            return out * math.nan if Failing.calls > 2 * 6 else out

    recipe = TaskRecipe(epochs=4, lr=1e-2)
    fit = Fit(recipe, batch=4, make=Failing)
    plain = Fit(recipe, batch=4)
    bad = [c for c in fit.cells if c[0] == c[1]]
    assert sorted(fit.curves.failed) == bad[:2]
    assert "the task loss is not finite at step 7 (epoch 2)" in fit.curves.failed[0, 0]
    for c in fit.cells:
        if c not in bad:
            assert_same(fit.layers[c], plain.layers[c])
            assert len(fit.curves.loss[c]) == 4
    assert [len(fit.curves.loss[c]) for c in bad] == [2, 2]


def test_a_last_step_that_spoils_the_weights_is_found() -> None:
    fit = Fit(TaskRecipe(epochs=1, lr=3e38, weight_decay=3e38, optimizer="sgd"), [(0, 1)],
              dtype=torch.float32)
    assert math.isfinite(fit.curves.loss[0, 1][0])
    assert "weights are not finite after step 1" in fit.curves.failed[0, 1]


# -- the data of fitting and of early stopping ---------------------------------------------------------------

def test_early_stopping_holds_out_a_share_that_is_never_trained_on() -> None:
    x = torch.arange(50.0).view(50, 1)
    for data in ((x, torch.arange(50)), TensorDataset(x, torch.arange(50)), [x, torch.arange(50)]):
        fit, held = make_training_batches(data, TaskRecipe(patience=2, held_out=0.2, batch_size=7))
        assert held is not None
        mine, theirs = (torch.cat([b.labels for b in batches]) for batches in (fit, held))
        assert len(theirs) == 10
        assert sorted([*mine.tolist(), *theirs.tolist()]) == list(range(50))
        again = make_training_batches(data, TaskRecipe(patience=2, held_out=0.2, seed=1))[1]
        assert again is not None
        assert not torch.equal(torch.cat([b.labels for b in again]), theirs)
    assert make_training_batches([(x, x)], TaskRecipe())[1] is None


@pytest.mark.parametrize("make", [
    lambda x, y: DataLoader(TensorDataset(x, y), batch_size=8), lambda x, y: [(x, y)],
    lambda x, y: Paired((x, y), (x, y))])
def test_early_stopping_on_a_loader_is_refused_before_any_work(make: Any) -> None:
    words = r"early stopping needs data that can be split: pass a Dataset or \(inputs, labels\)"
    with pytest.raises(SutureError, match=words):
        suture.compare(tiny.network(), data=make(tiny.images(), tiny.labels()), tlm=TaskRecipe(patience=1),
                       device="cpu", on_stage=too_late)


def test_progress_and_the_end_of_training_when_all_have_stopped() -> None:
    x, y = tiny.data()[0]
    result = suture.compare(tiny.network(), data=(x, y), methods=["tlm"], indices=(), ood=None, device="cpu",
                            tlm=TaskRecipe(epochs=60, batch_size=24, lr=0.3, patience=1, held_out=0.3))
    loss, held = result.arrays["tlm.loss"], result.arrays["tlm.held_out"]
    ran = (~torch.tensor(loss).isnan()).sum(2)
    assert (ran < 60).any()
    assert torch.equal(ran, (~torch.tensor(held).isnan()).sum(2))
    for i, j in product(range(2), repeat=2):
        assert not torch.tensor(loss[i, j, : int(ran[i, j])]).isnan().any()


def test_accuracy_curves_are_those_of_the_stitched_network() -> None:
    fit = Fit(TaskRecipe(epochs=1), [(1, 0)])
    x, y = fit.data
    with torch.no_grad(), freeze(fit.network):
        done = fit.target.run_full(x)
        stitched = fit.layer((1, 0))(fit.target.pick_representations(done)[1])
        guess = fit.target.tail(0, stitched, done)["logits"].argmax(1)
        assert apply(fit.network, x)["logits"].shape == (N, 4)
    assert fit.curves.accuracy[1, 0] == [pytest.approx(float((guess == y).float().mean()))]


def test_layers_of_texts_are_trained_on_batches_of_any_length() -> None:
    a, b = two()
    batches = Batches(collated(TEXTS, 7))
    one, other = (SitedNetwork(n.requires_grad_(False), next(iter(batches)).source, s) for n, s in (
        (a, ["blocks.0@tokens:1", "blocks.1@tokens:1"]), (b, ["blocks.0@tokens:1", "pool"])))
    rules: tuple[Any, ...] = (("auto", "drop", "hard"), ("map", "drop", "soft"), ("drop", "auto", "match"))
    for into_tokens, into_vector, objective in rules:
        layers = {(i, j): StitchingLayer(Alignment(s, t, AlignmentRule(prefix=(into_tokens, into_vector)[j])))
                  .init_random(1) for i, s in enumerate(one.shapes) for j, t in enumerate(other.shapes)}
        recipe = TaskRecipe(epochs=2, lr=1e-2, objective=objective)
        curves = GroupTrainer(one, other, layers, recipe, 4).fit(batches, CPU)
        assert not curves.failed
        assert all(np.isfinite(v).all() and v[1] < v[0] for v in curves.loss.values())
