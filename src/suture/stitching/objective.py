"""The objective of task loss matching: its settings, its losses, and the preparation of batches."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import Doc

from suture._base import (
    Count,
    Positive,
    Seed,
    Share,
    SutureError,
    convert_tensors,
    expect,
    options,
    walk_tensors,
)
from suture.data import Batch
from suture.networks import GradientRecipe, augment, check_images
from suture.stitching.tasks import Task

Init = Literal["random", "dm", "identity"]
Objective = Literal["hard", "soft", "mixed", "match"]
Precision = Literal["float32", "bf16"]


@options
class TaskRecipe(GradientRecipe):
    """Settings of task loss matching. A value outside its bounds raises a `SutureError`.

    The defaults are the paper's, without its augmentation (see `paper`). For loaders of unknown length the
    learning rate changes once per epoch. The objective is a mean over examples or, for a task of tokens,
    scored tokens:

    - "hard" (the paper): cross-entropy of the stitched network on the labels, in nats.
    - "soft": KL divergence to the target network's predictions, both at `temperature`, times `temperature`²
      (Hinton et al. 2015). It needs no labels; labels (N, T) only say which tokens are scored.
    - "mixed": `mix` times soft plus 1 - `mix` times hard.
    - "match": |S - T|² / |T|² of each batch, with stitched S and native T. This is direct matching by
      gradient, for families or penalties without a closed form. It needs no labels and no tail.

    Attributes:
        {options}
    """

    epochs: Annotated[Count, Doc("Training epochs.")] = 30
    batch_size: Annotated[Count, Doc("Examples per step, where suture makes the batches.")] = 256
    seed: Annotated[Seed, Doc(
        "Seed of random layers, the order of the data, the augmentation and the held-out split.")] = 0
    init: Annotated[Init, Doc(
        'Initial layer: "random" (the paper), "dm" (the closed-form solution) or "identity".')] = "random"
    objective: Annotated[Objective, Doc(
        'Objective of a layer: "hard" (labels), "soft" (predictions of the target network), "mixed", or '
        '"match" (representations of the target network).')] = "hard"
    temperature: Annotated[Positive, Doc('Temperature of "soft" and "mixed".')] = 1.0
    mix: Annotated[Share, Doc('Share of the soft part in "mixed".')] = 0.5
    precision: Annotated[Precision, Doc(
        'Precision of the forward passes: "float32", or "bf16" (autocast). Layer and loss stay in float32. '
        "bf16 is faster on GPUs, and too coarse where small differences matter.")] = "float32"
    patience: Annotated[Count | None, Doc(
        "Epochs without a better held-out objective after which a layer stops, with its best weights. None: "
        "every layer runs all epochs, and no data are held out.")] = None
    held_out: Annotated[Share, Doc("Share of the fitting data that is held out with `patience`.")] = 0.1
    seeds: Annotated[Count, Doc(
        "Number of random initialisations of each layer, those of `seed`, `seed` + 1 and so on, trained "
        "together. Results are means over them, and intervals hold their spread: with 1 they hold test "
        "examples only. 3 is a good number.")] = 1

    def __post_init__(self) -> None:
        expect(self.seeds == 1 or self.init == "random", "several initialisations that differ",
               f"seeds={self.seeds} with init={self.init!r}", "write seeds=1, or init='random'")

    @classmethod
    def paper(cls, seed: int = 0) -> Self:
        """Return the settings of Balogh and Jelasity, AAAI 2025 (arXiv 2412.11299), for 32x32 photographs.

        They add crops of the image padded by 4 pixels, and flips, to the defaults.
        """
        return super().paper(seed)

    @property
    def needs_labels(self) -> bool:
        """True if the objective uses labels."""
        return self.objective in ("hard", "mixed")


def compute_task_losses(logits: Tensor, own: Tensor, labels: Tensor | None, recipe: TaskRecipe) -> Tensor:
    """Return the task losses (k, N), in nats, of k stitched networks on N examples or scored tokens.

    `logits` (k N, classes) float32 are theirs, `own` (N, classes) are the target network's.
    """
    k = len(logits) // len(own)
    hard = soft = torch.zeros(())
    if recipe.needs_labels:
        assert labels is not None
        hard = F.cross_entropy(logits, labels.repeat(k), reduction="none").view(k, -1)
    if recipe.objective != "hard":
        t = recipe.temperature
        wanted = F.log_softmax(own.float() / t, 1).repeat(k, 1)
        soft = F.kl_div(F.log_softmax(logits / t, 1), wanted, reduction="none",
                        log_target=True).sum(1).view(k, -1) * t**2
    if recipe.objective == "mixed":
        return recipe.mix * soft + (1 - recipe.mix) * hard
    return soft if recipe.objective == "soft" else hard


def check_batch(batch: Batch, recipe: TaskRecipe, task: Task = Task.CLASSIFICATION) -> None:
    """Check that a batch has the labels and images that the recipe needs; raise a `SutureError` if not.

    Crops and flips need one tensor of images that both networks share, or raw images.
    """
    if batch.labels is None and recipe.needs_labels and task is not Task.NEXT_TOKEN:
        raise SutureError(f"expected labels for objective={recipe.objective!r}, got batches without; yield "
                          "(inputs, labels), write objective='soft', or leave 'tlm' out of methods")
    if recipe.crop or recipe.flip:
        instead = "write crop=0, flip=False"
        expect(batch.remake is not None or batch.source is batch.target,
               "inputs that both networks share for crops and flips", "Paired data", instead)
        found = list(walk_tensors(batch.source if batch.remake is None else batch.raw))
        expect(len(found) == 1, "inputs that are one tensor (N, C, H, W) for crops and flips",
               f"{len(found)} tensors", instead)
        check_images(found[0], recipe)


def augment_batch(batch: Batch, recipe: TaskRecipe, generator: torch.Generator) -> Batch:
    """Return the batch with random crops and flips, the same for both networks.

    Raw images are cropped and flipped before they are prepared for each network.
    """
    def change(t: Tensor) -> Tensor:
        return augment(t, generator, recipe.crop, recipe.flip)

    if not (recipe.crop or recipe.flip):
        return batch
    if batch.remake is not None:
        return batch.remake(convert_tensors(batch.raw, change), batch.labels)
    inputs = convert_tensors(batch.source, change)
    return Batch(inputs, inputs, batch.labels)
