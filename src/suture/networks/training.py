"""Training of whole networks, and their accuracy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suture._base import Progress, SutureError, check_classes, check_equal_lengths, expect, seed_torch
from suture.networks.augmentation import augment, check_images
from suture.networks.recipe import Recipe, make_optimizer, set_rate


@dataclass(frozen=True)
class History:
    """History of a training: per epoch the mean cross-entropy (nats) and the accuracy in [0, 1].

    Both come from augmented training batches in train mode. For a result use `compute_accuracy`.
    """

    losses: tuple[float, ...]
    accuracies: tuple[float, ...]


def train(network: nn.Module, inputs: Tensor, labels: Tensor, recipe: Recipe, *,
          device: str | torch.device = "cpu", progress: Progress | None = None) -> History:
    """Train `network` in place with cross-entropy on hard labels.

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

    Raises:
        SutureError: unfit shapes, types or labels, no parameter to train, or a loss that is not finite.
    """
    expect(inputs.is_floating_point(), "floating point inputs", inputs, "write inputs.float()")
    expect(labels.dtype == torch.int64 and labels.ndim == 1, "int64 labels (N,)", labels)
    check_equal_lengths(inputs, labels, "inputs and labels", "give one label for each input")
    expect(len(labels) >= 2, "at least 2 examples to train on", len(labels))
    check_images(inputs, recipe)
    device = torch.device(device)
    network.to(device)
    inputs, labels = inputs.to(device), labels.to(device)
    parameters = [weight for weight in network.parameters() if weight.requires_grad]
    expect(bool(parameters), "parameters that require a gradient", "none", "write network.requires_grad_()")
    # Steps are fused (CPU and CUDA, PyTorch 2.4), because small networks spend their time in the optimiser.
    optimizer = make_optimizer(parameters, recipe, fused=device.type in ("cpu", "cuda"))
    # Order and augmentation are drawn on the CPU, so they are the same on every device.
    generator = torch.Generator().manual_seed(recipe.seed)
    losses, accuracies = [], []
    with seed_torch(recipe.seed, device), _set_mode(network, training=True), torch.enable_grad():
        for epoch in range(recipe.epochs):
            loss, right = _train_epoch(network, inputs, labels, recipe, optimizer, generator, epoch)
            if not math.isfinite(loss):
                raise SutureError(f"the loss became {loss} in epoch {epoch + 1} at learning rate "
                                  f"{recipe.lr:g}; write lr={recipe.lr / 10:g}, and look for NaN in the "
                                  "inputs")
            losses.append(loss)
            accuracies.append(right)
            if progress is not None:
                progress("train", epoch + 1, recipe.epochs)
    optimizer.zero_grad(set_to_none=True)
    return History(tuple(losses), tuple(accuracies))


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


def _find_batch_bounds(n: int, batch_size: int) -> list[tuple[int, int]]:
    """Return start and end of each batch; a single leftover example joins the batch before it."""
    starts = list(range(0, n, batch_size))
    if len(starts) > 1 and n - starts[-1] == 1:
        starts.pop()
    return list(zip(starts, [*starts[1:], n], strict=True))


def _train_epoch(network: nn.Module, inputs: Tensor, labels: Tensor, recipe: Recipe,
                 optimizer: torch.optim.Optimizer, generator: torch.Generator,
                 epoch: int) -> tuple[float, float]:
    """Run one pass over the data; return the mean loss and the accuracy."""
    n = len(labels)
    bounds = _find_batch_bounds(n, recipe.batch_size)
    order = torch.randperm(n, generator=generator).to(labels.device)
    # Summed on the device and read once, because reading each batch would make a GPU wait.
    total = torch.zeros((), device=labels.device)
    right = torch.zeros((), device=labels.device, dtype=torch.int64)
    for step, (start, stop) in enumerate(bounds, epoch * len(bounds)):
        set_rate(optimizer, recipe, step, recipe.epochs * len(bounds))
        rows = order[start:stop]
        truth = labels[rows]
        logits = network(augment(inputs[rows], generator, recipe.crop, recipe.flip))
        if step == 0:
            expect(logits.ndim == 2 and len(logits) == len(rows), f"logits ({len(rows)}, classes)", logits)
            check_classes(labels, logits.shape[1], "give the network as many logits as there are classes")
        loss = F.cross_entropy(logits, truth)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += loss.detach() * (stop - start)
        right += (logits.detach().argmax(1) == truth).sum()
    return float(total) / n, int(right) / n
