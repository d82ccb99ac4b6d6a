"""A recipe of task loss matching checks itself."""

from __future__ import annotations

import math

import pytest

from suture import SutureError, TaskRecipe
from suture.networks.training_recipe import Recipe


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


@pytest.mark.parametrize(("field", "value", "got"), [
    ("epochs", 0, "0"), ("batch_size", 0, "0"), ("lr", math.nan, "nan"), ("lr", "fast", "'fast'"),
    ("weight_decay", -1.0, "-1"), ("optimizer", "adamm", "'adamm'; nearest: adam"),
    ("schedule", "cosin", "nearest: cosine"), ("crop", -1, "-1"), ("seed", -1, "-1"),
    ("init", "zeros", "'zeros'"), ("objective", "sof", "'sof'; nearest: soft"),
    ("temperature", 0, "0"), ("temperature", math.nan, "nan"), ("temperature", math.inf, "inf"),
    ("mix", 0.0, "0.0"), ("mix", 1, "1"), ("mix", math.nan, "nan"),
    ("precision", "fp16", "'fp16'"), ("precision", 16, "16"), ("patience", 0, "0"), ("patience", 1.5, "1.5"),
    ("patience", True, "True"), ("held_out", 0, "0"), ("held_out", 1.0, "1.0"),
])
def test_a_recipe_checks_itself_in_one_line(field: str, value: object, got: str) -> None:
    with pytest.raises(SutureError, match=rf"{field}.*{got}") as error:
        TaskRecipe(**{field: value})  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_one_example_per_step_is_allowed_where_networks_are_in_eval_mode() -> None:
    assert TaskRecipe(batch_size=1).batch_size == 1
    with pytest.raises(SutureError, match="batch_size: expected at least 2, got 1"):
        Recipe(batch_size=1)
