"""Training of whole networks, and their accuracy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suture._base import Progress, SutureError, seed_torch
from suture.networks.augmentation import augment, check_images
from suture.networks.recipe import Recipe, make_optimizer, set_rate


@dataclass(frozen=True)
class History:
    """History of a training: per epoch the mean cross-entropy (nats) and the accuracy in [0, 1].

    Both are computed on the augmented training batches while the weights still change, in train mode. They
    show that training works and are not results. For a result use `compute_accuracy`.
    """

    losses: tuple[float, ...]
    accuracies: tuple[float, ...]


def train(
    network: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    recipe: Recipe,
    *,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
) -> History:
    """Train `network` in place with cross-entropy on hard labels.

    Arguments:
        network: (N, ...) -> logits (N, classes). Parameters that require no gradient stay as they are. It is
            moved to `device` and left there; the train or eval mode of each of its modules is restored.
        inputs: (N, C, H, W), floating point; any (N, ...) when the recipe has neither crops nor flips. They
            stay on `device` as a whole during the call.
        labels: (N,), int64, from 0 to classes - 1.
        recipe: see `Recipe`.
        device: where to train (default "cpu").
        progress: called as `progress("train", epoch, epochs)` after each epoch.

    The same recipe, network and data give the same weights, bit for bit on one CPU with one number of threads
    (`torch.set_num_threads`: it changes the order of sums). PyTorch's global random state is neither read nor
    moved. A last batch of one example joins the batch before it.

    Raises SutureError when shapes, types or labels do not fit, when nothing in the network can be trained,
    and when the loss of an epoch is not finite (the weights are then useless).
    """
    device = torch.device(device)
    _check_data(inputs, labels, recipe)
    network.to(device)
    inputs, labels = inputs.to(device), labels.to(device)
    parameters = [weight for weight in network.parameters() if weight.requires_grad]
    if not parameters:
        raise SutureError("no parameter requires a gradient; write network.requires_grad_()")
    # Steps are fused (CPU and CUDA, PyTorch 2.4), because small networks spend their time in the optimiser.
    optimizer = make_optimizer(parameters, recipe, fused=device.type in ("cpu", "cuda"))
    # Order and augmentation are drawn on the CPU, so they are the same on every device.
    generator = torch.Generator().manual_seed(recipe.seed)
    losses, accuracies = [], []
    with seed_torch(recipe.seed, device), _set_mode(network, training=True), torch.enable_grad():
        for epoch in range(recipe.epochs):
            loss, right = _train_epoch(network, inputs, labels, recipe, optimizer, generator, epoch)
            if not math.isfinite(loss):
                raise SutureError(
                    f"the loss became {loss} in epoch {epoch + 1} of {recipe.epochs} at learning rate "
                    f"{recipe.lr:g}; try lr={recipe.lr / 10:g}, and look for NaN in the inputs"
                )
            losses.append(loss)
            accuracies.append(right)
            if progress is not None:
                progress("train", epoch + 1, recipe.epochs)
    optimizer.zero_grad(set_to_none=True)
    return History(tuple(losses), tuple(accuracies))


def compute_accuracy(network: nn.Module, inputs: Tensor, labels: Tensor, batch_size: int = 256) -> float:
    """Compute the share of examples whose largest logit is their label's, in [0, 1].

    Arguments:
        network: (N, ...) -> logits (N, classes). It runs in eval mode on its own device; modes are restored.
        inputs, labels: (N, ...) and (N,), on any device; moved batch by batch.
        batch_size: examples per forward pass (default 256). It affects memory and time only.

    Raises SutureError when there is no example or when the two lengths differ.
    """
    if len(inputs) != len(labels) or len(labels) == 0:
        raise SutureError(
            f"expected as many labels as inputs and at least one, got {len(inputs)} inputs and "
            f"{len(labels)} labels"
        )
    device = next((tensor.device for tensor in network.parameters()), inputs.device)
    right = 0
    batches = zip(torch.split(inputs, batch_size), torch.split(labels, batch_size), strict=True)
    with _set_mode(network, training=False), torch.no_grad():
        for batch, truth in batches:
            guess = network(batch.to(device)).argmax(1)
            right += int((guess == truth.to(device)).sum())
    return right / len(labels)


@contextmanager
def _set_mode(network: nn.Module, *, training: bool) -> Iterator[None]:
    before = [(module, module.training) for module in network.modules()]
    network.train(training)
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode


def _check_data(inputs: Tensor, labels: Tensor, recipe: Recipe) -> None:
    if not inputs.is_floating_point():
        raise SutureError(f"inputs must be floating point, got {inputs.dtype}; write inputs.float()")
    if labels.dtype != torch.int64 or labels.ndim != 1:
        raise SutureError(f"labels must be int64 of shape (N,), got {labels.dtype} of {tuple(labels.shape)}")
    if len(inputs) != len(labels) or len(labels) < 2:
        raise SutureError(
            f"expected as many labels as inputs and at least two, got {len(inputs)} inputs and "
            f"{len(labels)} labels"
        )
    check_images(inputs, recipe)
    if int(labels.min()) < 0:
        raise SutureError(f"labels must not be negative, got {int(labels.min())}")


def _find_batch_bounds(n: int, batch_size: int) -> list[tuple[int, int]]:
    """Return start and end of each batch; a single leftover joins the batch before it."""
    starts = list(range(0, n, batch_size))
    if len(starts) > 1 and n - starts[-1] == 1:
        starts.pop()
    return list(zip(starts, [*starts[1:], n], strict=True))


def _train_epoch(
    network: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    recipe: Recipe,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    epoch: int,
) -> tuple[float, float]:
    """Run one pass over the data; return the mean loss and the accuracy."""
    n = len(labels)
    bounds = _find_batch_bounds(n, recipe.batch_size)
    order = torch.randperm(n, generator=generator).to(labels.device)
    top = int(labels.max())
    # Summed on the device and read once, because reading each batch would make a GPU wait.
    total = torch.zeros((), device=labels.device)
    right = torch.zeros((), device=labels.device, dtype=torch.int64)
    for step, (start, stop) in enumerate(bounds):
        set_rate(optimizer, recipe, epoch * len(bounds) + step, recipe.epochs * len(bounds))
        rows = order[start:stop]
        truth = labels[rows]
        logits = network(augment(inputs[rows], generator, recipe.crop, recipe.flip))
        _check_logits(logits, stop - start, top)
        loss = F.cross_entropy(logits, truth)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += loss.detach() * (stop - start)
        right += (logits.detach().argmax(1) == truth).sum()
    return float(total) / n, int(right) / n


def _check_logits(logits: Tensor, n: int, top: int) -> None:
    if logits.ndim != 2 or len(logits) != n:
        raise SutureError(f"the network must give logits ({n}, classes), got {tuple(logits.shape)}")
    if top >= logits.shape[1]:
        raise SutureError(f"labels go up to {top} but the network has {logits.shape[1]} classes")
