"""A recipe of task loss matching checks itself."""

from __future__ import annotations

import math

import pytest

from suture import SutureError, TaskRecipe
from suture.networks.recipe import Recipe


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
