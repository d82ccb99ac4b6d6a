"""The recipe of a training: bounds, optimiser, learning rates, crops and flips."""

from __future__ import annotations

import math

import pytest
import torch

from suture._base.errors import SutureError
from suture.networks.training_recipe import (
    Recipe,
    Schedule,
    augment,
    check_images,
    compute_rate_factor,
    make_optimizer,
    set_rate,
)


def test_schedules_start_peak_and_end_where_they_say() -> None:
    def factors(schedule: Schedule) -> list[float]:
        return [compute_rate_factor(schedule, step, 1000) for step in range(1000)]

    assert set(factors("constant")) == {1.0}
    cosine, onecycle = factors("cosine"), factors("onecycle")
    assert cosine[0] == 1
    assert cosine[500] == pytest.approx(0.5)
    assert cosine == sorted(cosine, reverse=True)
    assert onecycle[0] == pytest.approx(1 / 25)
    assert onecycle.index(max(onecycle)) == 300
    assert onecycle[300] == 1
    assert 0 < onecycle[-1] < 1e-4
    assert 0 < cosine[-1] < 1e-4
    assert compute_rate_factor("onecycle", 0, 1) > 0


@pytest.mark.parametrize(("field", "value", "got"), [
    ("epochs", 0, "at least 1, got 0"), ("epochs", 2.5, "2.5"), ("epochs", True, "True"),
    ("batch_size", 1, "at least 2, got 1"), ("crop", -1, "-1"), ("seed", -1, "-1"), ("lr", 0.0, "0.0"),
    ("label_smoothing", 1.0, "1.0"), ("label_smoothing", -0.1, "-0.1"), ("label_smoothing", math.nan, "nan"),
    ("precision", "bfloat16", "'bfloat16'"), ("lr", math.nan, "nan"), ("lr", "1e-3", "'1e-3'"),
    ("weight_decay", -1.0, "-1.0"),
    ("weight_decay", math.inf, "inf"), ("flip", 1, "1"), ("optimizer", 3, "3"),
    ("optimizer", "adamm", "'adamm'; nearest: adam"),
    ("schedule", "one_cycle", "'one_cycle'; nearest: onecycle"),
])
def test_a_recipe_checks_itself(field: str, value: object, got: str) -> None:
    with pytest.raises(SutureError, match=rf"{field}.*{got}"):
        Recipe(**{field: value})  # type: ignore[arg-type]


def test_keys_of_recipes_hold_new_options_only_where_they_differ() -> None:
    """Files of weights that an earlier version wrote are then those of the same recipe."""
    old = {"epochs": 100, "batch_size": 64, "lr": 1e-3, "weight_decay": 1e-5, "optimizer": "adam",
           "schedule": "constant", "crop": 0, "flip": False, "seed": 0}
    assert Recipe().as_key() == old
    assert Recipe(label_smoothing=0.1).as_key() == {**old, "label_smoothing": 0.1}
    assert Recipe(precision="bf16").as_key() == {**old, "precision": "bf16"}


def test_the_paper_recipe_is_the_papers() -> None:
    expected = Recipe(
        epochs=100,
        batch_size=64,
        lr=1e-3,
        weight_decay=1e-5,
        optimizer="adam",
        schedule="constant",
        crop=4,
        flip=True,
    )
    assert Recipe.paper() == expected
    assert Recipe.paper(seed=3).seed == 3


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_a_parameter_without_a_gradient_is_passed_over_with_its_state(optimizer: str) -> None:
    """What early stopping of single layers relies on: two of three steps, with another parameter moving
    between."""
    recipe = Recipe(optimizer=optimizer, lr=0.1, weight_decay=0.1)  # type: ignore[arg-type]
    one, two, alone = (torch.ones(3, requires_grad=True) for _ in range(3))
    both, single = make_optimizer([one, two], recipe), make_optimizer([alone], recipe)
    for step in range(3):
        one.grad = None if step == 1 else torch.full((3,), 0.5)
        two.grad = torch.ones(3)
        both.step()
        if step != 1:
            alone.grad = torch.full((3,), 0.5)
            single.step()
    assert torch.equal(one, alone)
    assert not torch.equal(two, one)


def test_set_rate_says_what_it_sets() -> None:
    recipe = Recipe(lr=2.0, schedule="cosine")
    optimizer = make_optimizer([torch.ones(1, requires_grad=True)], recipe)
    assert set_rate(optimizer, recipe, 5, 10) == pytest.approx(1.0)
    assert [group["lr"] for group in optimizer.param_groups] == [pytest.approx(1.0)]


def slow_augment(images: torch.Tensor, generator: torch.Generator, crop: int, flip: bool) -> torch.Tensor:
    """One image, one shift, one flip at a time, with the draws in the documented order."""
    n, _, height, width = images.shape
    shifts = torch.randint(0, 2 * crop + 1, (2, n), generator=generator) if crop else torch.zeros(2, n).long()
    mirrored = torch.rand(n, generator=generator) < 0.5 if flip else torch.zeros(n).bool()
    out = torch.zeros_like(images)
    for i in range(n):
        for y in range(height):
            for x in range(width):
                from_y = y + int(shifts[0, i]) - crop
                from_x = (width - 1 - x if mirrored[i] else x) + int(shifts[1, i]) - crop
                if 0 <= from_y < height and 0 <= from_x < width:
                    out[i, :, y, x] = images[i, :, from_y, from_x]
    return out


@pytest.mark.parametrize(("crop", "flip"), [(0, False), (1, False), (0, True), (2, True), (9, True)])
def test_augment_equals_the_slow_reference(crop: int, flip: bool) -> None:
    images = torch.rand((12, 2, 5, 7), generator=torch.Generator().manual_seed(0))
    kept = images.clone()
    fast = augment(images, torch.Generator().manual_seed(4), crop, flip)
    slow = slow_augment(images, torch.Generator().manual_seed(4), crop, flip)
    assert torch.equal(fast, slow)
    assert torch.equal(images, kept)
    assert fast.is_contiguous()


def test_augment_draws_every_shift_and_both_sides() -> None:
    """A lit pixel in the middle must reach all (2 * 2 + 1)^2 places, and its neighbour either side of it."""
    images = torch.zeros(2000, 1, 5, 5)
    images[:, 0, 2, 2] = 1
    assert (augment(images, torch.Generator().manual_seed(0), 2, False).sum((0, 1)) > 0).all()
    images[:, 0, 2, 1] = 2
    sides = augment(images, torch.Generator().manual_seed(0), 0, True)[:, 0, 2, 3] == 2
    assert 0.45 < sides.float().mean() < 0.55


def test_images_in_a_batch_are_shifted_each_on_its_own() -> None:
    images = torch.rand((1, 1, 6, 6), generator=torch.Generator().manual_seed(0)).expand(30, 1, 6, 6)
    moved = augment(images, torch.Generator().manual_seed(0), 1, True)
    assert len(torch.unique(moved.flatten(1), dim=0)) > 9


@pytest.mark.parametrize("recipe", [Recipe(crop=1), Recipe(flip=True)])
def test_images_are_checked_only_where_they_are_augmented(recipe: Recipe) -> None:
    with pytest.raises(SutureError, match=r"\(N, C, H, W\).*\(4, 2\); write crop=0, flip=False"):
        check_images(torch.zeros(4, 2), recipe)
    check_images(torch.zeros(4, 1, 2, 2), recipe)
    check_images(torch.zeros(4, 2), Recipe())
