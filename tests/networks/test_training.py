"""The training loop: what it promises."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from suture._base import seed_torch
from suture._base.errors import SutureError, SutureWarning
from suture._base.hashing import fingerprint_network
from suture.networks import training
from suture.networks.training import compute_accuracy, train
from suture.networks.training_recipe import Recipe


def blobs(n: int = 96, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose class is the row that is lit."""
    generator = torch.Generator().manual_seed(7)
    labels = torch.arange(n) % classes
    images = 0.3 * torch.rand((n, 1, 6, 6), generator=generator)
    images[torch.arange(n), 0, 2 * labels] += 1
    return images, labels


def small(dropout: float = 0.0) -> nn.Sequential:
    with seed_torch(11):
        return nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(64, 3),
        )


FAST = Recipe(epochs=3, batch_size=16, lr=1e-2, crop=1, flip=True)


def trained(recipe: Recipe = FAST, dropout: float = 0.3) -> str:
    network = small(dropout)
    train(network, *blobs(), recipe)
    return fingerprint_network(network)


# Determinism


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_same_seed_same_weights_bit_for_bit(optimizer: str) -> None:
    recipe = dataclasses.replace(FAST, optimizer=optimizer)
    assert trained(recipe) == trained(recipe)


def test_another_seed_gives_other_weights() -> None:
    assert trained() != trained(dataclasses.replace(FAST, seed=1))


def test_order_alone_depends_on_the_seed() -> None:
    plain = dataclasses.replace(FAST, crop=0, flip=False)
    assert trained(plain, dropout=0) != trained(dataclasses.replace(plain, seed=1), dropout=0)


def test_global_random_state_is_neither_read_nor_moved() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = trained()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert trained() == first


def test_global_random_state_comes_back_after_an_error() -> None:
    def stumble() -> None:
        with seed_torch(3):
            torch.rand(1)
            raise RuntimeError("on purpose")

    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="on purpose"):
        stumble()
    assert torch.equal(torch.get_rng_state(), before)


def test_seeded_draws_what_the_seed_says() -> None:
    with seed_torch(3):
        drawn = torch.rand(4)
    assert torch.equal(drawn, torch.rand(4, generator=torch.Generator().manual_seed(3)))


# Learning


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "onecycle"])
def test_it_learns(optimizer: str, schedule: str) -> None:
    network = small()
    inputs, labels = blobs()
    recipe = Recipe(epochs=6, batch_size=16, lr=2e-2, optimizer=optimizer, schedule=schedule)
    history = train(network, inputs, labels, recipe)
    assert len(history.losses) == len(history.accuracies) == 6
    assert history.losses[-1] < 0.5 * history.losses[0]
    assert compute_accuracy(network, inputs, labels) > 0.95


def test_the_optimizers_differ() -> None:
    names = ("adam", "adamw", "sgd")
    assert len({trained(Recipe(epochs=2, weight_decay=0.1, optimizer=name)) for name in names}) == 3


def test_history_is_the_mean_over_examples() -> None:
    """Without dropout, batch norm and learning, each epoch's history is the network's own on all examples."""
    inputs, labels = blobs(37)
    with seed_torch(0):
        network = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    history = train(network, inputs, labels, Recipe(epochs=1, batch_size=16, lr=1e-30))
    with torch.no_grad():
        loss = F.cross_entropy(network(inputs), labels)
    assert history.losses[0] == pytest.approx(float(loss), rel=1e-5)
    assert history.accuracies[0] == compute_accuracy(network, inputs, labels)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_label_smoothing_is_its_formula(smoothing: float) -> None:
    """The first step by hand: a label is 1 - s + s / K for its class, and s / K for the other ones."""
    images, labels = blobs(12)
    recipe = Recipe(epochs=1, batch_size=12, lr=0.1, weight_decay=0, optimizer="sgd",
                    label_smoothing=smoothing)
    network, other = small().double(), small().double()
    history = train(network, images.double(), labels, recipe)
    logits = other(images.double())
    spread = torch.full((12, 3), smoothing / 3, dtype=torch.float64)
    spread[torch.arange(12), labels] += 1 - smoothing
    loss = -(spread * logits.log_softmax(1)).sum(1).mean()
    weight = other[5].weight
    step = torch.autograd.grad(loss, weight)[0]
    assert history.losses == pytest.approx([loss.item()], rel=1e-6)  # summed in float32
    # Nesterov's first step is 1 + momentum times the gradient.
    torch.testing.assert_close(network[5].weight, weight - 0.1 * 1.9 * step)


def test_bf16_on_the_cpu_trains_in_float32_and_says_so() -> None:
    with pytest.warns(SutureWarning, match=r"bf16.*cpu.*float32") as found:
        coarse = trained(dataclasses.replace(FAST, precision="bf16"))
    assert len(found) == 1
    assert coarse == trained()


def test_every_example_is_seen_once_per_epoch() -> None:
    seen: list[torch.Tensor] = []
    network = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    network.register_forward_pre_hook(lambda _, args: seen.append(args[0].flatten()))
    inputs = torch.arange(33.0).reshape(33, 1, 1, 1)
    train(network, inputs, torch.arange(33) % 2, Recipe(epochs=2, batch_size=8))
    assert [len(batch) for batch in seen] == [8, 8, 8, 9] * 2
    first, second = torch.cat(seen[:4]), torch.cat(seen[4:])
    assert torch.equal(first.sort().values, torch.arange(33.0))
    assert torch.equal(second.sort().values, torch.arange(33.0))
    assert not torch.equal(first, second)


def test_the_order_does_not_depend_on_what_the_network_draws() -> None:
    def order(dropout: float) -> torch.Tensor:
        seen: list[torch.Tensor] = []
        network = nn.Sequential(nn.Flatten(), nn.Linear(1, 2), nn.Dropout(dropout))
        network.register_forward_pre_hook(lambda _, args: seen.append(args[0].flatten()))
        train(network, torch.arange(32.0).reshape(32, 1, 1, 1), torch.arange(32) % 2, Recipe(epochs=2))
        return torch.cat(seen)

    assert torch.equal(order(0.0), order(0.5))


@pytest.mark.parametrize(("n", "sizes"), [(5, [5]), (8, [8]), (9, [9]), (10, [8, 2]), (17, [8, 9]), (2, [2])])
def test_a_single_leftover_joins_the_batch_before_it(n: int, sizes: list[int]) -> None:
    assert [stop - start for start, stop in training._find_batch_bounds(n, 8)] == sizes


def test_a_last_batch_of_one_does_not_crash_batch_norm() -> None:
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(36), nn.Linear(36, 3))
    train(network, *blobs(33), Recipe(epochs=1, batch_size=16))


def test_the_schedule_reaches_the_optimizer() -> None:
    recipe = Recipe(epochs=2, batch_size=16, lr=1e-2, optimizer="sgd")
    names = ("constant", "cosine", "onecycle")
    assert len({trained(dataclasses.replace(recipe, schedule=name)) for name in names}) == 3


# What is left behind


def test_modes_come_back_module_by_module() -> None:
    network = small()
    network.train()
    network[1].eval()
    train(network, *blobs(), FAST)
    compute_accuracy(network, *blobs())
    assert [module.training for module in network] == [True, False, True, True, True, True]
    network.eval()
    train(network, *blobs(), FAST)
    assert not any(module.training for module in network.modules())


def test_training_is_in_train_mode_and_accuracy_in_eval_mode() -> None:
    modes: list[bool] = []
    network = small()
    network.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    network.eval()
    train(network, *blobs(32), Recipe(epochs=1, batch_size=16))
    assert modes == [True, True]
    network.train()
    compute_accuracy(network, *blobs(32))
    assert modes == [True, True, False]


def test_frozen_weights_stay_and_gradients_are_cleared() -> None:
    network = small()
    network[0].requires_grad_(False)
    before, free = network[0].weight.clone(), network[5].weight.clone()
    train(network, *blobs(), FAST)
    assert torch.equal(network[0].weight, before)
    assert not torch.equal(network[5].weight, free)
    assert all(weight.grad is None for weight in network.parameters())


def test_it_trains_where_gradients_are_switched_off() -> None:
    with torch.no_grad():
        assert trained() == trained()


def test_progress_is_told_once_per_epoch() -> None:
    calls: list[tuple[str, int, int]] = []
    train(small(), *blobs(), FAST, progress=lambda *call: calls.append(call))
    assert calls == [("train", 1, 3), ("train", 2, 3), ("train", 3, 3)]


# Accuracy


@pytest.mark.parametrize("batch_size", [1, 7, 96, 1000])
def test_accuracy_counts(batch_size: int) -> None:
    labels = blobs()[1]
    logits = F.one_hot((labels + (torch.arange(96) < 24)) % 3, 3).float()
    network = nn.Flatten()
    assert compute_accuracy(network, logits, labels, batch_size) == 0.75


@pytest.mark.parametrize(("lengths", "words"), [((4, 3), "got 4 and 3"), ((0, 0), "got 0")])
def test_accuracy_needs_matching_examples(lengths: tuple[int, int], words: str) -> None:
    with pytest.raises(SutureError, match=words):
        compute_accuracy(nn.Flatten(), torch.zeros(lengths[0], 3), torch.zeros(lengths[1], dtype=torch.int64))


# Errors


def test_a_loss_that_is_not_finite_names_epoch_and_learning_rate() -> None:
    inputs, labels = blobs()
    inputs[5, 0, 3, 3] = math.nan
    network = small()
    network.eval()
    with pytest.raises(SutureError, match=r"loss became nan in epoch 1 at learning rate 0\.01"):
        train(network, inputs, labels, FAST)
    assert not network.training
    with pytest.raises(SutureError, match=r"in epoch [12] at learning rate 1e\+30; write lr=1e\+29"):
        train(network, *blobs(), dataclasses.replace(FAST, optimizer="sgd", lr=1e30))


IMAGES, LABELS = blobs(8)


@pytest.mark.parametrize(
    ("inputs", "labels", "words"),
    [
        (IMAGES.long(), LABELS, r"floating point inputs, got int64 .*; write inputs\.float\(\)"),
        (IMAGES, LABELS.float(), r"int64 labels \(N,\), got float32"),
        (IMAGES, F.one_hot(LABELS), r"int64 labels \(N,\), got int64 of shape \(8, 3\)"),
        (IMAGES, LABELS[:7], "inputs and labels .*got 8 and 7"),
        (IMAGES[:1], LABELS[:1], "at least 2 examples to train on, got 1"),
        (IMAGES[:, 0], LABELS, r"images \(N, C, H, W\).*\(8, 6, 6\)"),
        (IMAGES, LABELS - 1, "labels from 0 to 2, got -1"),
        (IMAGES, LABELS + 1, "labels from 0 to 2, got 3"),
    ],
)
def test_train_refuses_what_does_not_fit(inputs: torch.Tensor, labels: torch.Tensor, words: str) -> None:
    with pytest.raises(SutureError, match=words):
        train(small(), inputs, labels, FAST)


def test_train_refuses_a_network_without_weights_or_logits() -> None:
    with pytest.raises(SutureError, match="parameters that require a gradient, got none"):
        train(small().requires_grad_(False), *blobs(), FAST)
    with pytest.raises(SutureError, match=r"expected logits \(16, classes\), got .*\(16, 4, 6, 6\)"):
        train(nn.Conv2d(1, 4, 1), *blobs(), FAST)


def test_vectors_can_be_trained_on_without_augmentation() -> None:
    images, labels = blobs()
    with seed_torch(0):
        probe = nn.Linear(36, 3)
    train(probe, images.flatten(1), labels, Recipe(epochs=20, batch_size=16, lr=1e-1))
    assert compute_accuracy(probe, images.flatten(1), labels) > 0.95
