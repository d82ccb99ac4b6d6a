"""A recipe checks itself; its schedules and its optimisers."""

from __future__ import annotations

import math

import pytest
import torch

from suture._base.errors import SutureError
from suture.networks.training import Recipe, Schedule, compute_rate_factor, make_optimizer, set_rate


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
    ("lr", math.nan, "nan"), ("lr", "1e-3", "'1e-3'"), ("weight_decay", -1.0, "-1.0"),
    ("weight_decay", math.inf, "inf"), ("flip", 1, "1"), ("optimizer", 3, "3"),
    ("optimizer", "adamm", "'adamm'; nearest: adam"),
    ("schedule", "one_cycle", "'one_cycle'; nearest: onecycle"),
])
def test_a_recipe_checks_itself(field: str, value: object, got: str) -> None:
    with pytest.raises(SutureError, match=rf"{field}.*{got}"):
        Recipe(**{field: value})  # type: ignore[arg-type]


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
