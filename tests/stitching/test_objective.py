"""Objectives against hand-made ones; augmentation in step."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import suture
from suture import Paired, Prepared, SutureError, TaskRecipe
from suture.data import Batch, Batches
from suture.networks import SitedNetwork, augment, freeze
from suture.stitching import StitchingLayer
from suture.stitching.objective import augment_batch, check_batch
from tests.support import tiny
from tests.support.fit import Fit, N, assert_same, too_late
from tests.support.tiny import twice_as_large

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
                            methods=["tlm"], tlm=TaskRecipe(epochs=1, objective="soft"), ood=None,
                            device="cpu")
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
    first = [suture.compare(network, data=data, methods=["tlm"], indices=(), ood=None, device="cpu",
                            tlm=TaskRecipe(epochs=1, crop=crop)).arrays["tlm.loss"]
             for data, crop in (([{"pixels": x, "labels": y}], 1), ([(x, y)], 1), ([(x, y)], 0))]
    assert (first[0] == first[1]).all()
    assert (first[0] != first[2]).all()


RECIPE = TaskRecipe(epochs=1, crop=1, flip=True)


def test_crops_and_flips_are_of_the_raw_images_and_so_in_step() -> None:
    raw = (tiny.images(12) * 255).to(torch.uint8)
    batch = next(iter(Batches(Prepared((raw, tiny.labels(12)), twice_as_large, None))))
    check_batch(batch, RECIPE)
    changed = augment_batch(batch, RECIPE, torch.Generator().manual_seed(3))
    assert torch.equal(changed.source, twice_as_large(changed.target))
    assert not torch.equal(changed.target, raw)
    assert changed.labels is not None
    assert torch.equal(changed.labels, tiny.labels(12))


def test_the_same_draws_whether_suture_prepares_the_images_or_not() -> None:
    images, labels = tiny.images(12), tiny.labels(12)
    made = [augment_batch(b, RECIPE, torch.Generator().manual_seed(3)).source
            for b in (Batch(images, images, labels), next(iter(Batches(Prepared((images, labels), None)))))]
    assert torch.equal(*made)


def test_crops_of_two_kinds_of_inputs_that_suture_did_not_make_are_refused() -> None:
    images = tiny.images(4)
    with pytest.raises(SutureError, match="share"):
        check_batch(Batch(images, images.clone(), tiny.labels(4)), RECIPE)
    several = Batch(images, images, tiny.labels(4), [images[0], images[1]],
                    lambda raw, labels: pytest.fail("no"))
    with pytest.raises(SutureError, match="2 tensors"):
        check_batch(several, RECIPE)
