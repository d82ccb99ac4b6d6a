"""Training of whole networks, and their accuracy."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suture._base import (
    NO_KEEPER,
    Keeper,
    KeptPass,
    Progress,
    SutureError,
    SutureWarning,
    check_classes,
    check_equal_lengths,
    expect,
    log_event,
    seed_torch,
)
from suture.networks.calls import set_mode
from suture.networks.training_position import TrainingPosition
from suture.networks.training_recipe import Recipe, augment, check_images, make_optimizer, set_rate


@dataclass(frozen=True)
class History:
    """History of a training: per epoch the mean loss (nats) and the accuracy in [0, 1].

    The loss is the cross-entropy, with the recipe's label smoothing. Both come from augmented training
    batches in train mode. For a result use `compute_accuracy`.
    """

    losses: tuple[float, ...]
    accuracies: tuple[float, ...]

    def __repr__(self) -> str:
        last = [f"last loss {self.losses[-1]:.4g}, accuracy {self.accuracies[-1]:.4g}"] if self.losses else []
        return f"History({', '.join([f'{len(self.losses)} epochs', *last])})"


def train(network: nn.Module, inputs: Tensor, labels: Tensor, recipe: Recipe, *,
          device: str | torch.device = "cpu", progress: Progress | None = None,
          keeper: Keeper = NO_KEEPER, on_epoch: Callable[[History], None] | None = None) -> History:
    """Train `network` in place with cross-entropy on the labels, which the recipe may smooth.

    The same recipe, network and data give the same weights, bit for bit on one CPU with one number of threads
    (`torch.set_num_threads`; it changes the order of sums). PyTorch's global random state is neither used nor
    changed. A last batch of one example joins the batch before it.

    Args:
        network: (N, ...) -> logits (N, classes). Parameters that require no gradient stay as they are. The
            network is moved to `device`; its modes are restored.
        inputs: (N, C, H, W), floating point; any (N, ...) without crops and flips. All must fit on `device`.
        labels: (N,), int64, from 0 to classes - 1.
        device: where to train (default "cpu").
        progress: called as `progress("train", epoch, epochs)` after each epoch.
        keeper: keeps all that training changes.
        on_epoch: called with the history so far, before training and after each epoch, before a checkpoint
            holds that epoch. A training that goes on from a checkpoint calls it for the epochs that are left.

    Warns:
        SutureWarning: bf16 on a device that trains in float32.

    Raises:
        SutureError: unfit shapes, types or labels, no parameter to train, or a loss that is not finite.
    """
    _check_data(inputs, labels, recipe)
    device = torch.device(device)
    if recipe.precision == "bf16" and not recipe.casts_on(device):
        warnings.warn(f"precision 'bf16' is for GPUs; on {device.type} the training runs in float32",
                      SutureWarning, stacklevel=2)
    network.to(device)
    inputs, labels = inputs.to(device), labels.to(device)
    parameters = [weight for weight in network.parameters() if weight.requires_grad]
    expect(bool(parameters), "parameters that require a gradient", "none", "write network.requires_grad_()")
    # Steps are fused (CPU and CUDA, PyTorch 2.4), because small networks spend their time in the optimiser.
    optimizer = make_optimizer(parameters, recipe, fused=device.type in ("cpu", "cuda"))
    # Order and augmentation are drawn on the CPU, so they are the same on every device.
    at = TrainingPosition(torch.Generator().manual_seed(recipe.seed), torch.zeros((), device=device),
                          torch.zeros((), device=device, dtype=torch.int64))
    state = {"position": at, "network": network, "optimizer": optimizer}
    with (seed_torch(recipe.seed, device), set_mode(network, training=True), torch.enable_grad(),
          keeper.keep("train", state) as kept):
        if kept.fill():
            at.set_random_state(device)
        elif on_epoch is not None:
            on_epoch(History((), ()))
        while at.epoch < recipe.epochs:
            _train_epoch(network, inputs, labels, recipe, optimizer, at, kept)
            _end_epoch(at, len(labels), recipe)
            if progress is not None:
                progress("train", at.epoch, recipe.epochs)
            if on_epoch is not None:
                on_epoch(History(tuple(at.losses), tuple(at.accuracies)))
            at.note_random_state(device)
            kept.step(at.epoch)
        kept.finish(at.epoch)
    optimizer.zero_grad(set_to_none=True)
    return History(tuple(at.losses), tuple(at.accuracies))


def _end_epoch(at: TrainingPosition, examples: int, recipe: Recipe) -> None:
    """End an epoch, log it, and check that its loss is finite."""
    at.end_epoch(examples)
    if not math.isfinite(at.losses[-1]):
        raise SutureError(f"the loss became {at.losses[-1]} in epoch {at.epoch} at learning rate "
                          f"{recipe.lr:g}; write lr={recipe.lr / 10:g}, and look for NaN in the inputs")
    log_event(f"epoch {at.epoch} of {recipe.epochs}: loss {at.losses[-1]:.4f}, accuracy "
              f"{at.accuracies[-1]:.4f}", logging.DEBUG, "train")


def _check_data(inputs: Tensor, labels: Tensor, recipe: Recipe) -> None:
    expect(inputs.is_floating_point(), "floating point inputs", inputs, "write inputs.float()")
    expect(labels.dtype == torch.int64 and labels.ndim == 1, "int64 labels (N,)", labels)
    check_equal_lengths(inputs, labels, "inputs and labels", "give one label for each input")
    expect(len(labels) >= 2, "at least 2 examples to train on", len(labels))
    check_images(inputs, recipe)


def compute_accuracy(network: nn.Module, inputs: Tensor, labels: Tensor, batch_size: int = 256) -> float:
    """Compute the share of examples whose label has the largest logit, in [0, 1].

    Args:
        network: (N, ...) -> logits (N, classes). It runs in eval mode on its own device; modes are restored.
        inputs, labels: (N, ...) and (N,), on any device; moved batch by batch.
        batch_size: examples per forward pass (default 256). It affects memory and time only.

    Raises:
        SutureError: no example, or two lengths that differ.
    """
    check_equal_lengths(inputs, labels, "inputs and labels", "give one label for each input")
    expect(len(labels) > 0, "at least 1 example", len(labels))
    device = next((tensor.device for tensor in network.parameters()), inputs.device)
    right = 0
    batches = zip(torch.split(inputs, batch_size), torch.split(labels, batch_size), strict=True)
    with set_mode(network, training=False), torch.no_grad():
        for batch, truth in batches:
            guess = network(batch.to(device)).argmax(1)
            right += int((guess == truth.to(device)).sum())
    return right / len(labels)


def _find_batch_bounds(n: int, batch_size: int) -> list[tuple[int, int]]:
    """Return start and end of each batch; a single leftover example joins the batch before it."""
    starts = list(range(0, n, batch_size))
    if len(starts) > 1 and n - starts[-1] == 1:
        starts.pop()
    return list(zip(starts, [*starts[1:], n], strict=True))


def _train_epoch(network: nn.Module, inputs: Tensor, labels: Tensor, recipe: Recipe,
                 optimizer: torch.optim.Optimizer, at: TrainingPosition, kept: KeptPass) -> None:
    """Run the rest of one pass over the data."""
    n, coarse = len(labels), recipe.casts_on(labels.device)
    bounds = _find_batch_bounds(n, recipe.batch_size)
    if at.order is None:
        at.order = torch.randperm(n, generator=at.generator)
    order = at.order.to(labels.device)
    for step, (start, stop) in list(enumerate(bounds, at.epoch * len(bounds)))[at.batch:]:
        set_rate(optimizer, recipe, step, recipe.epochs * len(bounds))
        rows = order[start:stop]
        truth = labels[rows]
        with torch.autocast(labels.device.type, torch.bfloat16) if coarse else nullcontext():
            logits = network(augment(inputs[rows], at.generator, recipe.crop, recipe.flip))
        if step == 0:
            expect(logits.ndim == 2 and len(logits) == len(rows), f"logits ({len(rows)}, classes)", logits)
            check_classes(labels, logits.shape[1], "give the network as many logits as there are classes")
        loss = F.cross_entropy(logits.float() if coarse else logits, truth,
                               label_smoothing=recipe.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        at.total += loss.detach() * (stop - start)
        at.right += (logits.detach().argmax(1) == truth).sum()
        at.batch += 1
        if kept.active:
            at.note_random_state(labels.device)
            kept.step(at.epoch)
