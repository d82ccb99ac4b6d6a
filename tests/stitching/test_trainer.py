"""Fitting by gradient: objectives against hand-made ones, grouped training against training alone, running
out of memory against not running out of it."""

from __future__ import annotations

import copy
import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import suture
from suture import Paired, SutureError, TaskRecipe
from suture.data.batches import Batches
from suture.networks.augmentation import augment
from suture.networks.calls import apply, freeze
from suture.networks.recipe import Recipe, compute_rate_factor
from suture.networks.sites import SitedNetwork
from suture.representations.alignment import Alignment
from suture.stitching import StitchingLayer
from suture.stitching import batch_budget as room
from suture.stitching import trainer as task
from suture.stitching.batch_budget import BatchBudget, measure_saved_bytes, measure_tail_bytes, try_in_memory
from suture.stitching.trainer import GroupTrainer, make_training_batches
from tests.support import tiny
from tests.support.networks import NETWORKS, images

CPU = torch.device("cpu")
N = 24


class Fit:
    """One network stitched to itself (or to another), small layers, their training.

    In float64: in float32 rounding, which grouping changes, flips a ReLU once in a while, and Adam makes it
    grow.
    """

    def __init__(self, recipe: TaskRecipe, cells: list[tuple[int, int]] | None = None, *,
                 network: str = "awkward",
                 micro: int = 10_000, labels: bool = True, make: type[StitchingLayer] = StitchingLayer,
                 held: bool = False, batch: int | None = None, two: bool = False,
                 dtype: torch.dtype = torch.float64) -> None:
        self.network, example = NETWORKS[network]()
        self.network.to(dtype)
        x = images(*example.shape[1:3], N).to(dtype)
        y = torch.arange(N) % 4
        self.data = (x, y)
        with freeze(self.network):
            self.target = SitedNetwork(self.network, x)
            other = copy.deepcopy(self.network)
            self.source = SitedNetwork(other, x) if two else self.target
            n = len(self.target.sites)
            self.cells = cells or list(product(range(n), repeat=2))
            self.layers = {c: self.layer(c, make) for c in self.cells}
            data: Any = [(x, y)] if batch is None else list(zip(x.split(batch), y.split(batch), strict=True))
            held_out = None
            if held:
                # Held-out labels that the network does not predict: the layers stop one after the other.
                data, held_out = [(x[:16], y[:16])], Batches([(x[16:], y[16:].flip(0))])
            if not labels:
                data = [b for b, _ in data]
            self.trainer = GroupTrainer(self.source, self.target, self.layers, recipe, micro)
            self.curves = self.trainer.fit(Batches(data), CPU, held_out=held_out)

    def layer(self, cell: tuple[int, int], make: type[StitchingLayer] = StitchingLayer) -> StitchingLayer:
        i, j = cell
        alignment = Alignment(self.target.shapes[i], self.target.shapes[j])
        return make(alignment).init_random(100 * i + j).to(self.data[0].dtype)


def too_late(result: suture.Comparison) -> None:
    raise AssertionError("the error comes after work was done")


def assert_same(one: StitchingLayer, other: StitchingLayer, tolerance: float = 1e-5) -> None:
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert float((a - b).detach().norm()) <= tolerance * float(b.detach().norm())


def moved(fit: Fit, cell: tuple[int, int]) -> float:
    start = fit.layer(cell)
    return float((fit.layers[cell].weight - start.weight).detach().norm() / start.weight.detach().norm())


# -- the recipe ----------------------------------------------------------------------------------------------


def test_the_paper_recipe_is_the_papers() -> None:
    """Section 7 of the design, field by field."""
    recipe = TaskRecipe.paper()
    assert isinstance(recipe, TaskRecipe)
    assert recipe.init == "random"
    assert (recipe.optimizer, recipe.lr, recipe.weight_decay) == ("adam", 1e-3, 1e-5)
    assert (recipe.batch_size, recipe.epochs, recipe.schedule) == (256, 30, "constant")
    assert recipe.objective == "hard"
    assert (recipe.crop, recipe.flip) == (4, True)
    assert (recipe.precision, recipe.patience, recipe.seed) == ("float32", None, 0)
    assert TaskRecipe.paper(seed=3).seed == 3
    assert TaskRecipe(crop=4, flip=True) == recipe


@pytest.mark.parametrize(("field", "value", "words"), [
    ("epochs", 0, "epochs must be a whole number of at least 1"),
    ("batch_size", 0, "batch_size must be a whole number of at least 1"),
    ("lr", math.nan, "lr must be finite and above 0"), ("lr", "fast", "lr must be finite"),
    ("weight_decay", -1.0, "weight_decay must be"), ("optimizer", "adamm", "nearest: adam"),
    ("schedule", "cosin", "nearest: cosine"), ("crop", -1, "crop must be"), ("seed", -1, "seed must be"),
    ("init", "zeros", "unknown init 'zeros'"), ("objective", "sof", "unknown objective 'sof'; nearest: soft"),
    ("temperature", 0, "temperature must be finite and above 0, got 0"),
    ("temperature", math.nan, "temperature"), ("temperature", math.inf, "temperature"),
    ("mix", 0.0, "mix must be between 0 and 1"), ("mix", 1, "objective="), ("mix", math.nan, "mix must"),
    ("precision", "fp16", "unknown precision 'fp16'"), ("precision", 16, "unknown"),
    ("patience", 0, "patience must be a whole number"), ("patience", 1.5, "patience must"),
    ("patience", True, "True"),
    ("held_out", 0, "held_out must be between 0 and 1"), ("held_out", 1.0, "held_out must"),
])
def test_a_recipe_checks_itself_in_one_line(field: str, value: object, words: str) -> None:
    with pytest.raises(SutureError, match=words) as error:
        TaskRecipe(**{field: value})  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_one_example_per_step_is_allowed_where_networks_are_in_eval_mode() -> None:
    assert TaskRecipe(batch_size=1).batch_size == 1
    with pytest.raises(SutureError, match="batch_size must be a whole number of at least 2"):
        Recipe(batch_size=1)


# -- law 5: grouped is alone ---------------------------------------------------------------------------------

RECIPES = {
    "adam": TaskRecipe(lr=1e-2), "adamw": TaskRecipe(optimizer="adamw", weight_decay=0.1, lr=1e-2),
    "sgd": TaskRecipe(optimizer="sgd", lr=0.3), "cosine": TaskRecipe(schedule="cosine", lr=1e-2),
    "onecycle": TaskRecipe(schedule="onecycle", lr=1e-2),
    "soft": TaskRecipe(objective="soft", temperature=3, lr=1e-2),
    "mixed": TaskRecipe(objective="mixed", mix=0.3, lr=1e-2), "match": TaskRecipe(objective="match", lr=1e-2),
}


@pytest.mark.parametrize("micro", [7, 40, 10_000])
@pytest.mark.parametrize("name", RECIPES)
def test_grouped_training_equals_training_alone(name: str, micro: int) -> None:
    recipe = TaskRecipe(**{**vars(RECIPES[name]), "epochs": 20})
    together = Fit(recipe, micro=micro)
    for c in together.cells:
        assert_same(together.layers[c], Fit(recipe, [c]).layers[c])
        assert moved(together, c) > 0.02


def test_every_objective_and_optimiser_gives_other_layers() -> None:
    made = [Fit(TaskRecipe(**{**vars(r), "epochs": 3}), [(0, 1)]).layers[0, 1].weight
            for r in RECIPES.values()]
    assert len({float(w.detach().sum()) for w in made}) == len(RECIPES)


@pytest.mark.parametrize("patience", [1, 3])
def test_a_layer_that_stops_early_is_the_one_that_stops_alone(patience: int) -> None:
    recipe = TaskRecipe(epochs=40, lr=3e-2, patience=patience)
    together = Fit(recipe, held=True)
    stopped = together.curves.stopped
    assert len(set(stopped.values())
               | {40 for c in together.cells if c not in stopped}) > 1, "all stop at once"
    for c in together.cells:
        alone = Fit(recipe, [c], held=True)
        assert_same(together.layers[c], alone.layers[c])
        assert alone.curves.stopped.get(c) == stopped.get(c)
        assert together.curves.loss[c] == pytest.approx(alone.curves.loss[c], rel=1e-5)
        assert together.curves.held_out[c] == pytest.approx(alone.curves.held_out[c], rel=1e-5)
        assert len(together.curves.loss[c]) == stopped.get(c, 40)


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


# -- objectives ----------------------------------------------------------------------------------------------


def slow_losses(fit: Fit, cell: tuple[int, int], recipe: TaskRecipe) -> float:
    """The objective of the untrained layer of a cell, from its definition."""
    x, y = fit.data
    with torch.no_grad(), freeze(fit.network):
        done = fit.target.run_full(x)
        reps = fit.target.pick_representations(done)
        stitched = fit.layer(cell)(reps[cell[0]])
        if recipe.objective == "match":
            native = reps[cell[1]]
            return float((stitched - native).square().sum() / native.square().sum())
        logits = fit.target.tail(cell[1], stitched, done)["logits"]
        own = done.output["logits"]
    hard = float(-logits.log_softmax(1)[torch.arange(N), y].mean())
    p, q = (own / recipe.temperature).softmax(1), (logits / recipe.temperature).softmax(1)
    soft = float((p * (p / q).log()).sum(1).mean()) * recipe.temperature**2
    return {"hard": hard, "soft": soft,
            "mixed": recipe.mix * soft + (1 - recipe.mix) * hard}[recipe.objective]


@pytest.mark.parametrize("recipe", [
    TaskRecipe(epochs=1), TaskRecipe(epochs=1, objective="soft"),
    TaskRecipe(epochs=1, objective="soft", temperature=4.0),
    TaskRecipe(epochs=1, objective="mixed", temperature=2.0, mix=0.25),
    TaskRecipe(epochs=1, objective="match")])
def test_the_loss_is_the_objective_as_it_is_defined(recipe: TaskRecipe) -> None:
    for micro in (10_000, 5):
        fit = Fit(recipe, micro=micro)
        for c in fit.cells:
            assert fit.curves.loss[c] == [pytest.approx(slow_losses(fit, c, recipe), rel=1e-4, abs=1e-6)]


def test_direct_matching_by_gradient_finds_direct_matching() -> None:
    fit = Fit(TaskRecipe(epochs=1500, objective="match", lr=0.1, weight_decay=0, schedule="cosine"),
              [(0, 1), (1, 0)], dtype=torch.float32)
    result = suture.compare(fit.network, data=fit.data, methods=["dm"], indices=(), device="cpu")
    for c in fit.cells:
        name = tuple(str(fit.target.sites[k]) for k in c)
        assert fit.curves.loss[c][-1] == pytest.approx(result.matrix("dm.residual").loc[name], rel=1e-2)


@pytest.mark.parametrize("micro", [5, 10_000])
def test_a_step_of_match_follows_the_gradient_of_the_whole_batchs_ratio(micro: int) -> None:
    recipe = TaskRecipe(epochs=1, objective="match", optimizer="sgd", lr=0.1, weight_decay=0)
    fit = Fit(recipe, [(0, 1)], micro=micro)
    start = fit.layer((0, 1))
    with torch.no_grad(), freeze(fit.network):
        x, y = fit.target.front(fit.data[0])
    ((start(x) - y).square().sum() / y.square().sum()).backward()
    for p, end in zip(start.parameters(), fit.layers[0, 1].parameters(), strict=True):
        assert p.grad is not None
        expected = p - 0.1 * 1.9 * p.grad  # Nesterov's first step
        torch.testing.assert_close(end, expected, rtol=1e-5, atol=1e-7)


def test_soft_and_match_need_no_labels_and_match_no_tail(monkeypatch: pytest.MonkeyPatch) -> None:
    soft = Fit(TaskRecipe(epochs=2, objective="soft"), labels=False)
    assert all(math.isnan(a) for curve in soft.curves.accuracy.values() for a in curve)
    assert_same(soft.layers[0, 1], Fit(TaskRecipe(epochs=2, objective="soft")).layers[0, 1], 0)
    monkeypatch.setattr(SitedNetwork, "tail", lambda *a: pytest.fail("the tail ran"))
    Fit(TaskRecipe(epochs=2, objective="match"), labels=False)


@pytest.mark.parametrize("objective", ["hard", "mixed"])
def test_labels_that_are_absent_are_asked_for_with_the_way_out(objective: Any) -> None:
    with pytest.raises(SutureError, match=r"expected labels.*objective='soft'"):
        Fit(TaskRecipe(epochs=1, objective=objective), labels=False)
    with pytest.raises(SutureError, match="objective='soft'"):
        suture.compare(tiny.network(), data=[tiny.images()], methods=["tlm"], device="cpu", on_stage=too_late)


def test_labels_outside_the_classes_do_not_matter_to_soft() -> None:
    x, _ = tiny.data()[0]
    result = suture.compare(tiny.network(), data=(x, torch.full((len(x),), 9)), test=tiny.data()[1],
                            methods=["tlm"], tlm=TaskRecipe(epochs=1, objective="soft"), device="cpu")
    assert result.matrix("tlm.agreement").notna().all(axis=None)


class Penalized(StitchingLayer):
    def penalty(self) -> Tensor:
        return 0.5 * 0.3 * sum(p.square().sum() for p in self.parameters())  # type: ignore[return-value]


@pytest.mark.parametrize("micro", [5, 10_000])
@pytest.mark.parametrize("objective", ["hard", "match"])
def test_a_penalty_is_added_to_the_layers_own_loss(objective: Any, micro: int) -> None:
    """Half of 0.3 |w|² is what SGD calls a weight decay of 0.3."""
    options: Any = {"epochs": 10, "optimizer": "sgd", "lr": 1e-2, "objective": objective}
    penalized = Fit(TaskRecipe(weight_decay=0, **options), make=Penalized, micro=micro)
    decayed = Fit(TaskRecipe(weight_decay=0.3, **options))
    for c in penalized.cells:
        assert_same(penalized.layers[c], decayed.layers[c])
        start = float(Penalized.penalty(penalized.layer(c)).detach())  # type: ignore[arg-type]
        assert penalized.curves.loss[c][0] == pytest.approx(decayed.curves.loss[c][0] + start, rel=1e-4)


def test_layers_shrink_after_each_step_at_its_rate() -> None:
    rates: list[float] = []

    class Shrinking(StitchingLayer):
        def shrink(self, lr: float) -> None:
            rates.append(lr)

    Fit(TaskRecipe(epochs=3, lr=0.5, schedule="cosine"), [(0, 1)], make=Shrinking, batch=8)
    assert rates == [0.5 * compute_rate_factor("cosine", k, 9) for k in range(9)]


# -- augmentation --------------------------------------------------------------------------------------------


def test_both_networks_see_the_same_augmented_images_new_ones_in_every_epoch(
        monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Tensor, Tensor]] = []

    def watched(x: Tensor, *args: Any) -> Tensor:
        calls.append((x, augment(x, *args)))
        return calls[-1][1]

    monkeypatch.setattr("suture.stitching.objective.augment", watched)
    seen: dict[str, list[Tensor]] = {"front": [], "run_full": []}

    def watch(name: str) -> None:
        inner = getattr(SitedNetwork, name)
        monkeypatch.setattr(SitedNetwork, name, lambda self, x: [seen[name].append(x), inner(self, x)][1])

    for name in seen:
        watch(name)
    Fit(TaskRecipe(epochs=2, crop=2, flip=True), two=True)
    assert len(calls) == len(seen["front"]) == len(seen["run_full"]) == 2
    for (raw, made), a, b in zip(calls, seen["front"], seen["run_full"], strict=True):
        assert torch.equal(a, made)
        assert torch.equal(b, made)
        assert not torch.equal(raw, made)
    assert not torch.equal(calls[0][1], calls[1][1])


@pytest.mark.parametrize(("data", "words"), [
    (lambda x, y: Paired([(x, y)], [(x.clone(), y)]), "both networks share.*crop=0, flip=False"),
    (lambda x, y: [((x, x), y)], "one tensor"), (lambda x, y: (x.flatten(1), y), r"\(N, C, H, W\)"),
])
def test_crops_and_flips_of_what_is_no_shared_image_are_refused_before_any_work(data: Any,
                                                                                words: str) -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(128, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU())
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor, again: Tensor | None = None) -> Tensor:
            return self.head(self.body(x.flatten(1)))

    x, y = tiny.images(), tiny.labels()
    with pytest.raises(SutureError, match=words):
        suture.compare(Flat(), data=data(x, y), sites=["body.1", "body.3"], methods=["tlm"],
                       tlm=TaskRecipe(epochs=1, flip=True), device="cpu", on_stage=too_late)


def test_images_in_a_mapping_are_augmented() -> None:
    class Either(tiny.Tiny):
        def forward(self, pixels: Tensor) -> Any:
            return super().forward(pixels)

    network = tiny.seeded(Either)
    x, y = tiny.data()[0]
    first = [suture.compare(network, data=data, methods=["tlm"], indices=(), device="cpu",
                            tlm=TaskRecipe(epochs=1, crop=crop)).arrays["tlm.loss"]
             for data, crop in (([{"pixels": x, "labels": y}], 1), ([(x, y)], 1), ([(x, y)], 0))]
    assert (first[0] == first[1]).all()
    assert (first[0] != first[2]).all()


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


# -- memory --------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("error", [oom, cpu_oom, MemoryError])
@pytest.mark.parametrize(("network", "most", "words"), [
    ("resnet_digits", 3 * N, ["at most 3"]), ("resnet_digits", N, ["at most 1"]),
    ("resnet_digits", N - 1, ["at most 1", "at most 12 examples"]),
    ("resnet_digits", 5, ["at most 3 examples"]), ("awkward", 1, ["at most 1 examples"])])
def test_running_out_of_memory_changes_no_layer_and_is_said(monkeypatch: pytest.MonkeyPatch, error: Any,
                                                            network: str,
                                                            most: int, words: list[str]) -> None:
    recipe = TaskRecipe(epochs=4, lr=1e-2)
    plain = Fit(recipe, network=network)
    assert not plain.curves.notes
    passed = limited(monkeypatch, most, error)
    fit = Fit(recipe, network=network)
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
    recipe = TaskRecipe(epochs=3, lr=1e-2)
    plain = Fit(recipe, network="resnet_digits")
    sizes: list[int] = []
    monkeypatch.setattr(room, "find_backward_budget", lambda device: 4_000_000)
    monkeypatch.setattr("suture.stitching.grouped_pass.find_backward_budget", lambda device: 4_000_000)
    learned: dict[int, int] = {}
    learn = BatchBudget.set_tail_bytes
    monkeypatch.setattr(BatchBudget, "set_tail_bytes",
                        lambda self, found: [learned.update(found), learn(self, found)][1])
    inner = SitedNetwork.tail
    monkeypatch.setattr(SitedNetwork, "tail", lambda self, j, x, done: [sizes.append((j, len(x))),  # type: ignore[arg-type]
                                                                        inner(self, j, x, done)][1])
    fit = Fit(recipe, network="resnet_digits")
    assert learned[0] > learned[5], "an early tail saves more"
    for j, n in sizes[2 * len(learned):]:  # type: ignore[misc]
        assert n <= max(N, 4_000_000 // learned[j]), (j, n)
    assert max(n for j, n in sizes if j == 5) > max(n for j, n in sizes[2 * len(learned):] if j == 0)  # type: ignore[misc]
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
    result = suture.compare(tiny.network(), data=(x, y), methods=["tlm"], indices=(), device="cpu",
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
