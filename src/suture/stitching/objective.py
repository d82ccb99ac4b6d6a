"""What a stitched network is trained for: losses of each example, and the checks on logits, labels and inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from suture._errors import SutureError
from suture.batches import Batch, convert, tensors
from suture.calls import main_output
from suture.stitching.recipe import TaskRecipe
from suture.training import augment, check_images


def task_losses(logits: Tensor, own: Tensor, labels: Tensor | None, recipe: TaskRecipe) -> Tensor:
    """The task loss of each example, before any mean.

    Args:
        logits: (k N, classes) float32 of k stitched networks on the same N examples.
        own: (N, classes) logits of the target network on them.
        labels: (N,) class numbers; None where the objective is "soft".
        recipe: gives the objective, the temperature and the mix.

    Returns:
        (k, N), in nats.
    """
    k = len(logits) // len(own)
    hard = soft = torch.zeros(())
    if recipe.objective != "soft":
        assert labels is not None
        hard = F.cross_entropy(logits, labels.repeat(k), reduction="none").view(k, -1)
    if recipe.objective != "hard":
        t = recipe.temperature
        wanted = F.log_softmax(own.float() / t, 1).repeat(k, 1)
        soft = F.kl_div(F.log_softmax(logits / t, 1), wanted, reduction="none", log_target=True).sum(1).view(k, -1)
        soft = soft * t**2
    if recipe.objective == "mixed":
        return recipe.mix * soft + (1 - recipe.mix) * hard
    return soft if recipe.objective == "soft" else hard


def logits_of(output: Any) -> Tensor:
    """The logits (N, classes) in a network's output: ``output["logits"]``, or the first floating point tensor.

    Raises:
        SutureError: it is not (N, classes).
    """
    logits = main_output(output)
    if logits is None or logits.ndim != 2:
        got = type(output).__name__ if logits is None else tuple(logits.shape)
        raise SutureError(f"expected logits (N, classes) from the network, got {got}; wrap it so that it returns them")
    return logits


def check_labels(labels: Tensor, logits: Tensor) -> None:
    """Labels must be class numbers of the network.

    Raises:
        SutureError: a label below 0 or not below the number of classes.
    """
    if labels.is_floating_point() or labels.ndim != 1:
        raise SutureError(f"expected integer labels (N,), got {labels.dtype} of shape {tuple(labels.shape)}; yield one "
                          "class number for each example")
    if len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= logits.shape[1]):
        bad = int(labels.min()) if int(labels.min()) < 0 else int(labels.max())
        raise SutureError(f"expected labels from 0 to {logits.shape[1] - 1}, got {bad}; the network has "
                          f"{logits.shape[1]} outputs")


def check_batch(batch: Batch, recipe: TaskRecipe) -> None:
    """Whether a batch has what the recipe needs.

    Raises:
        SutureError: no labels where the objective is of labels; crops or flips of what is not one tensor of images
            that both networks get.
    """
    if batch.labels is None and recipe.needs_labels:
        raise SutureError(f"expected labels for task loss matching with objective={recipe.objective!r}, got batches "
                          "without; yield (inputs, labels), write objective='soft' to learn from the target network's "
                          "predictions, or leave 'tlm' out of methods")
    if not (recipe.crop or recipe.flip):
        return
    if batch.source is not batch.target:
        raise SutureError("crops and flips need inputs that both networks share, got Paired data; augment in your "
                          "loaders, and write crop=0, flip=False")
    found = list(tensors(batch.source))
    if len(found) > 1:
        raise SutureError(f"crops and flips need inputs that are one tensor (N, C, H, W), got {len(found)} tensors; "
                          "write crop=0, flip=False")
    check_images(found[0], recipe)


def augmented(batch: Batch, recipe: TaskRecipe, generator: torch.Generator) -> Batch:
    """The batch with random crops and flips, the same for both networks; the batch itself where there are none."""
    if not (recipe.crop or recipe.flip):
        return batch
    inputs = convert(batch.source, lambda t: augment(t, generator, recipe.crop, recipe.flip))
    return Batch(inputs, inputs, batch.labels)
