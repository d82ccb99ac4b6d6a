"""The settings of one comparison: the arguments of `suture.compare`, checked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from suture._base import Progress, SutureError, count_examples, is_number, make_unknown_error
from suture.data import Batch, Batches
from suture.indices import FOLDS, Named, Request, chosen
from suture.networks import SitedNetwork, find_device, take_first
from suture.ood import OOD, EnergyRecipe, as_batches
from suture.representations import AccumulatorSettings, AlignmentRule
from suture.stitching import TASKS, Family, Task, TaskRecipe, check_batch, resolve_task

METHODS = ("dm", "tlm")
PRECISIONS = {"float32": torch.float32, "float64": torch.float64}
FORWARD_DTYPES = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Types of the networks' forward passes (autocast). Statistics and stitching layers are in float32 or
more."""


@dataclass(frozen=True)
class Settings:
    """The checked settings of one comparison."""

    methods: list[str]
    indices: list[Request]
    recipe: TaskRecipe
    precision: str
    seed: int
    device: torch.device
    progress: Progress | None
    held_out: bool
    family: Family
    alignment: AlignmentRule
    examples: int | None
    relu: bool
    ood: OOD | None
    task: str = "auto"
    token_rate: float = 1.0
    forward: str = "float32"
    jackknife: int = 0
    sample: int = 2000

    def __post_init__(self) -> None:
        if not isinstance(self.sample, int) or isinstance(self.sample, bool) or self.sample < 1:
            raise SutureError(f"expected a sample of at least one example, got {self.sample!r}; "
                              "leave it out for 2000")
        _ = self.accumulator_settings.blocks  # raises for a wrong number of blocks
        if "tlm" in self.methods:
            self.family.check_training()

    @classmethod
    def of(cls, *, methods: Sequence[str], indices: Iterable[Named] | Named, tlm: TaskRecipe | None,
           precision: str, seed: int, device: str | torch.device, progress: Progress | None, held_out: bool,
           family: Family | str, alignment: AlignmentRule, examples: int | None, relu: bool, ood: OOD | None,
           task: str = "auto", token_rate: float = 1.0, forward: str = "float32", jackknife: int = 0,
           sample: int = 2000) -> Settings:
        """Return the settings of a user's arguments (see `suture.compare`).

        Raises:
            SutureError: an argument that is unknown or out of range.
        """
        listed = [methods] if isinstance(methods, str) else list(methods or ())
        for m in listed:
            if m not in METHODS:
                raise make_unknown_error("method", m, METHODS)
        if precision not in PRECISIONS:
            raise SutureError(f"expected precision to be one of {', '.join(PRECISIONS)}, got {precision!r}")
        if seed < 0:
            raise SutureError(f"expected a seed of at least 0, got {seed}")
        if task not in TASKS:
            raise make_unknown_error("task", str(task), TASKS)
        if forward not in FORWARD_DTYPES:
            raise make_unknown_error("precision of the forwards", str(forward), FORWARD_DTYPES)
        if not is_number(token_rate) or not 0 < token_rate <= 1:
            raise SutureError(f"expected a token_rate above 0 and at most 1, got {token_rate!r}; leave it "
                              "out for all tokens")
        return cls(listed, chosen(indices), tlm or TaskRecipe(seed=seed),
                   precision, seed, find_device(device), progress, held_out,
                   Family.parse(family) if isinstance(family, str) else family, alignment, examples, relu,
                   _fill_energy_recipe(ood, seed) if listed else None, task, float(token_rate), forward,
                   jackknife, sample)

    @property
    def folds(self) -> int:
        """Number of parts of the data with separate moments."""
        return FOLDS if self.family.needs_folds else 1

    @property
    def accumulator_settings(self) -> AccumulatorSettings:
        """Settings of the accumulators in the pass over the data."""
        return AccumulatorSettings(self.indices, self.jackknife, self.folds, self.sample, self.seed,
                                   PRECISIONS[self.precision], bool(self.methods))

    def replace_task(self, target: SitedNetwork, first: Batch) -> Settings:
        """Return the settings with the task that was found; "none" without stitched networks.

        Raises:
            SutureError: an output or data that do not fit the task, or task loss matching without a task.
        """
        if not self.methods:
            return replace(self, task=Task.NONE.value)
        size = count_examples(take_first(first.target))
        labels = None if first.labels is None else first.labels[:size]
        trained = "tlm" in self.methods
        task = resolve_task(self.task, target.network, take_first(first.target), labels,
                            trained=trained and self.recipe.needs_labels)
        if trained:
            if task is Task.NONE and self.recipe.objective != "match":
                raise SutureError("expected logits of the target network for task loss matching, got an "
                                  "output that is none (task='none'); write methods=['dm'], or a task if "
                                  "they are logits")
            check_batch(first, self.recipe, task)
        return replace(self, task=task.value)

    def open_auxiliary(self) -> list[Batches]:
        """Return the auxiliary and unseen data that were given."""
        given = ([] if self.ood is None
                 else [d for d in (self.ood.auxiliary, self.ood.unseen) if d is not None])
        return [as_batches(d) for d in given]

    def as_record(self) -> dict[str, Any]:
        """Return the settings that decide the numbers, for the record and for the key of earlier results."""
        return {"methods": self.methods, "indices": [r.key for r in self.indices], "tlm": asdict(self.recipe),
                "precision": self.precision, "seed": self.seed, "held_out": self.held_out,
                "family": str(self.family), "alignment": asdict(self.alignment),
                "examples": self.examples, "relu": self.relu, "task": self.task, "token_rate":
                self.token_rate, "forward": self.forward, "jackknife": self.jackknife, "sample": self.sample,
                "ood": None if self.ood is None else self.ood.settings()}


def _fill_energy_recipe(ood: OOD | None, seed: int) -> OOD | None:
    """Return the OOD settings with the default recipe of the trained detector filled in."""
    return ood if ood is None or ood.energy is not None else replace(ood, energy=EnergyRecipe(seed=seed))
