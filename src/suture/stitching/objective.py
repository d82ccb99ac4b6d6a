"""The losses of stitched networks, and the preparation of batches for training."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from suture._base import SutureError, convert_tensors, expect, walk_tensors
from suture.data import Batch
from suture.networks import augment, check_images
from suture.stitching.recipe import TaskRecipe
from suture.stitching.tasks import Task


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
