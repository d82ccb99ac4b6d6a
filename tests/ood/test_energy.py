"""Energy detectors: the loss against slow references, and what training promises."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F

from suture import EnergyRecipe, SutureError, zoo
from suture._base import fingerprint_network, seed_torch
from suture.data import Batch, Batches
from suture.networks import MLP, SitedNetwork, ViT, disable_gradients, freeze
from suture.ood import NativeData, SiteFeatures
from suture.ood import energy as module
from suture.ood.energy import train_classifiers
from suture.ood.energy_classifier import EnergyClassifier, compute_energy, compute_energy_loss
from suture.representations import Kind, Shape
from tests.support import tiny
from tests.support.sequences import TEXTS, collated, texts, two

CPU = torch.device("cpu")
FAST = EnergyRecipe(epochs=2, tune_epochs=2, batch_size=8, lr=1e-2)
BRIEF = dataclasses.replace(FAST, epochs=1, tune_epochs=1)
MAP, TOKENS, VECTOR = Shape(Kind.MAP, 3, (4, 4)), Shape(Kind.TOKENS, 6, (5,)), Shape(Kind.VECTOR, 7)


class Words(nn.Module):
    """Token numbers (N, 5) with a mask -> embeddings -> one block -> logits (N, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.block, self.head = nn.Embedding(9, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.block(self.embed(input_ids)) * attention_mask[..., None]
        logits: Tensor = self.head(x.mean(1))
        return logits


class Flat(nn.Module):
    """(N, 2, 8, 8) -> vectors -> logits (N, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.head = nn.Linear(128, 7), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.enter(x.flatten(1)))
        return logits


def sited(sites: Any = ("block1", "block2")) -> SitedNetwork:
    return SitedNetwork(tiny.network(), tiny.images(4), list(sites))


def batches(inputs: Tensor | None = None, labels: Tensor | None = None, size: int = 8) -> Batches:
    return Batches((tiny.images() if inputs is None else inputs, tiny.labels() if labels is None else labels),
                   size=size, shuffle=True, seed=5)


def outside(n: int = 10, channels: int = 2) -> Tensor:
    return tiny.images(n, channels, seed=9) * 3 - 1


def trained(recipe: EnergyRecipe = BRIEF, target: SitedNetwork | None = None, data: Any = None,
            auxiliary: Any = None, sites: Any = (0,), micro_batch: int = 64,
            progress: Any = None) -> dict[int, EnergyClassifier]:
    stream = batches() if data is None else data
    native = NativeData(target or sited(), None, stream, recipe, CPU, micro_batch,
                        auxiliary=outside() if auxiliary is None else auxiliary, progress=progress)
    return train_classifiers(native, stream, sites)


def prints(found: dict[int, EnergyClassifier]) -> dict[int, str]:
    return {j: fingerprint_network(d) for j, d in found.items()}


def logits(n: int, seed: int, scale: float = 12) -> Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


# -- the loss ------------------------------------------------------------------------------------------------

def by_hand(inside: Tensor, other: Tensor, labels: Tensor, r: EnergyRecipe) -> float:
    """Liu et al. 2020, equations 7 and 8, example by example."""
    def log_sum_exp(row: list[float]) -> float:
        return max(row) + math.log(sum(math.exp(v - max(row)) for v in row))

    ce = [log_sum_exp(row) - row[y] for row, y in zip(inside.tolist(), labels.tolist(), strict=True)]
    above = [max(0.0, -log_sum_exp(row) - r.inside) ** 2 for row in inside.tolist()]
    below = [max(0.0, r.outside + log_sum_exp(row)) ** 2 for row in other.tolist()]
    return sum(ce) / len(ce) + r.weight * (sum(above) / len(above) + sum(below) / len(below))


RECIPES = [EnergyRecipe(), EnergyRecipe(inside=-9.0, outside=-3.5), EnergyRecipe(weight=0.0),
           EnergyRecipe(weight=2.0)]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("m", [1, 7, 11])
def test_loss_is_that_of_a_loop(recipe: EnergyRecipe, m: int) -> None:
    a, b, labels = logits(7, 0), logits(m, 1), torch.arange(7) % 4
    got = float(compute_energy_loss(a, b, labels, recipe))
    assert got == pytest.approx(by_hand(a, b, labels, recipe), rel=1e-12)


def of_pytorch_ood(both: Tensor, labels: Tensor, recipe: EnergyRecipe) -> Tensor:
    """Each example's part of `pytorch_ood.loss.EnergyRegularizedLoss` by its documented formula; -1 is
    outside."""
    known, e = labels >= 0, -both.logsumexp(1)
    hinge = torch.where(known, (e - recipe.inside).relu() ** 2, (recipe.outside - e).relu() ** 2)
    return (torch.where(known, F.cross_entropy(both, labels.clamp(min=0), reduction="none"), 0)
            + recipe.weight * hinge)


@pytest.mark.parametrize("recipe", RECIPES)
def test_loss_is_the_sum_of_pytorch_oods_means_of_either_side(recipe: EnergyRecipe) -> None:
    for n, m in ((6, 6), (6, 9)):
        a, b, labels = logits(n, 2), logits(m, 3), torch.arange(n) % 4
        each = of_pytorch_ood(torch.cat([a, b]), torch.cat([labels, torch.full((m,), -1)]), recipe)
        mine = compute_energy_loss(a, b, labels, recipe)
        torch.testing.assert_close(mine, each[:n].mean() + each[n:].mean())
        if n == m:  # some of its versions average over both sides together: half of this
            torch.testing.assert_close(mine, 2 * each.mean())


def test_loss_is_cross_entropy_where_both_margins_hold() -> None:
    a, b, labels = logits(5, 4) + 100, logits(5, 5) - 100, torch.arange(5) % 4
    assert float(compute_energy_loss(a, b, labels, EnergyRecipe())) == pytest.approx(
        float(F.cross_entropy(a, labels)))


def test_energy_is_minus_log_sum_exp_also_of_large_logits() -> None:
    assert compute_energy(torch.tensor([[1000.0, 1000.0]])).item() == pytest.approx(-1000 - math.log(2))
    torch.testing.assert_close(compute_energy(logits(9, 6)), -logits(9, 6).exp().sum(1).log())


# -- what training promises ----------------------------------------------------------------------------------

def test_same_seed_same_detector_bit_for_bit_and_another_seed_another() -> None:
    recipe = dataclasses.replace(BRIEF, crop=1, flip=True)
    first = prints(trained(recipe))
    torch.manual_seed(123)
    state = torch.get_rng_state()
    assert prints(trained(recipe)) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert prints(trained(dataclasses.replace(recipe, seed=1))) != first


def test_the_seed_decides_start_augmentation_and_auxiliary_order(monkeypatch: pytest.MonkeyPatch) -> None:
    start = [EnergyClassifier(MAP, 3, dataclasses.replace(FAST, seed=s), site="x") for s in (0, 0, 1)]
    assert fingerprint_network(start[0]) == fingerprint_network(start[1]) != fingerprint_network(start[2])
    assert fingerprint_network(EnergyClassifier(MAP, 3, FAST, site="y")) != fingerprint_network(start[0])
    with monkeypatch.context() as m:
        # of augmentation and order; starts have their own
        m.setattr(module, "derive_site_seed", lambda seed, site: 0)
        still = prints(trained(BRIEF))
    assert still != prints(trained(BRIEF))


@pytest.mark.parametrize("others", [[0, 1], [1, 0, 1]])
def test_a_detector_does_not_depend_on_other_sites(others: list[int]) -> None:
    recipe = dataclasses.replace(BRIEF, crop=1)
    alone = prints(trained(recipe, sites=[0])) | prints(trained(recipe, sites=[1]))
    assert prints(trained(recipe, sites=others)) == alone
    assert prints(trained(recipe, target=sited(["block2"]), sites=[0]))[0] == alone[1]


def test_micro_batches_cut_the_front_alone() -> None:
    a, b = trained(micro_batch=64)[0], trained(micro_batch=3)[0]
    for name, t in a.state_dict().items():
        torch.testing.assert_close(t, b.state_dict()[name], rtol=1e-4, atol=1e-4)


def test_the_network_is_left_as_it_was() -> None:
    target = sited()
    target.network.train()
    before = fingerprint_network(target.network)
    found = trained(target=target, sites=[0, 1])
    assert fingerprint_network(target.network) == before
    assert all(m.training for m in target.network.modules())
    assert all(p.requires_grad and p.grad is None for p in target.network.parameters())
    for d in found.values():
        assert not any(m.training for m in d.modules())
        assert not any(p.requires_grad for p in d.parameters())


def test_training_works_where_gradients_are_off() -> None:
    first = prints(trained())
    with torch.no_grad():
        assert prints(trained()) == first


class Spy:
    """Wraps `make_optimizer`: the rates of each step, and which optimiser took it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rates: list[float] = []
        self.made = 0
        make = module.make_optimizer

        def spied(*args: Any, **options: Any) -> torch.optim.Optimizer:
            self.made += 1
            optimizer = make(*args, **options)
            step = optimizer.step

            def noted() -> None:
                self.rates.append(optimizer.param_groups[0]["lr"])
                step()

            optimizer.step = noted  # type: ignore[method-assign, assignment]
            return optimizer

        monkeypatch.setattr(module, "make_optimizer", spied)


def test_fine_tuning_rate_falls_after_half_of_its_epochs_and_not_of_as_many_batches(
        monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch)
    trained(dataclasses.replace(FAST, lr=1e-2, tune_lr=1e-3, epochs=2, tune_epochs=4))  # 3 batches an epoch
    assert spy.rates == pytest.approx([1e-2] * 6 + [1e-3] * 6 + [1e-4] * 6)
    assert spy.made == 2  # fine-tuning starts with a new optimiser


@pytest.mark.parametrize(("tune", "rates"), [(0, []), (1, [1.0]), (2, [1.0, 0.1]), (3, [1.0, 0.1, 0.1])])
def test_short_fine_tuning(monkeypatch: pytest.MonkeyPatch, tune: int, rates: list[float]) -> None:
    spy = Spy(monkeypatch)
    trained(dataclasses.replace(FAST, epochs=1, tune_epochs=tune, tune_lr=1.0, lr=0.5, batch_size=24),
            data=batches(size=24))
    assert spy.rates == pytest.approx([0.5, *rates])


def test_cross_entropy_schedule_is_the_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch)
    trained(dataclasses.replace(FAST, schedule="cosine", lr=1.0, tune_epochs=0))
    assert spy.rates == pytest.approx([0.5 * (1 + math.cos(math.pi * k / 6)) for k in range(6)])


def test_both_sides_are_augmented_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is seen of the black border, and how many are mirrored, is the same on both sides."""
    fronts: list[Tensor] = []
    front = SitedNetwork.front

    def spied(self: SitedNetwork, inputs: Tensor) -> list[Tensor]:
        fronts.append(inputs)
        return front(self, inputs)

    monkeypatch.setattr(SitedNetwork, "front", spied)
    # Half of the images are even, the other half rise to the right: a mirrored one falls by one from pixel to
    # pixel.
    images = torch.cat([torch.full((200, 2, 8, 8), 5.0), torch.arange(11.0, 19).expand(200, 2, 8, 8)])
    trained(dataclasses.replace(FAST, epochs=1, tune_epochs=1, crop=2, flip=True), auxiliary=images.clone(),
            data=batches(images, torch.arange(400) % 2, size=400), micro_batch=400)
    measured, cross, inside, other = fronts
    assert float((measured == 0).float().mean()) == 0
    black = [float((x == 0).float().mean()) for x in (cross, inside, other)]
    # A window of 8 in 12 leaves 8 - E|shift| = 8 - 1.2 rows, so 1 - 0.85² = 0.2775 is black; s.e. 0.007.
    assert black == pytest.approx([1 - 0.85**2] * 3, abs=0.03)
    mirrored = [float(((x.diff(dim=3) == -1).any(3).any(2).any(1)).float().mean())
                for x in (cross, inside, other)]
    assert mirrored == pytest.approx([0.25] * 3, abs=0.07)
    assert not torch.equal(inside, other)


def test_auxiliary_examples_are_drawn_in_step_each_as_often(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    front = SitedNetwork.front

    def spied(self: SitedNetwork, inputs: Tensor) -> list[Tensor]:
        seen.append(inputs[:, 0, 0, 0])
        return front(self, inputs)

    monkeypatch.setattr(SitedNetwork, "front", spied)
    auxiliary = torch.arange(100.0, 106)[:, None, None, None].expand(6, 2, 8, 8).clone()
    trained(dataclasses.replace(FAST, epochs=1, tune_epochs=2), auxiliary=auxiliary)
    drawn = [s for s in seen if float(s.min()) >= 100]
    assert [len(s) for s in drawn] == [8] * 6
    order = torch.cat(drawn).view(8, 6)
    for cycle in order:
        assert sorted(cycle.tolist()) == list(range(100, 106))
    assert len({tuple(c.tolist()) for c in order}) > 1


def test_no_auxiliary_example_passes_before_fine_tuning(monkeypatch: pytest.MonkeyPatch) -> None:
    a = prints(trained(dataclasses.replace(FAST, tune_epochs=0)))
    assert prints(trained(dataclasses.replace(FAST, tune_epochs=0), auxiliary=outside() + 5)) == a
    assert prints(trained(auxiliary=outside() + 5)) != prints(trained())


def test_progress_counts_epochs() -> None:
    message: list[tuple[str, int, int | None]] = []
    trained(FAST, progress=lambda *a: message.append(a))
    assert message == [("energy detectors", k, 4) for k in (1, 2, 3, 4)]


def test_a_lone_last_example_is_passed_over() -> None:
    inputs, labels = tiny.images(17), tiny.labels(17)
    plain = [Batch(inputs[k:k + 8], inputs[k:k + 8], labels[k:k + 8]) for k in (0, 8, 16)]
    assert plain[-1].size == 1
    assert all(bool(t.isfinite().all()) for t in trained(data=plain)[0].state_dict().values())


# -- the detector --------------------------------------------------------------------------------------------

def test_channels_are_standardised_with_the_spread_of_the_data() -> None:
    target, data = sited(), batches()
    d = trained(target=target)[0]
    with torch.no_grad():
        x = target.front(tiny.images())[0]
    torch.testing.assert_close(d.mean, x.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(d.std, x.std((0, 2, 3), correction=0), rtol=1e-4, atol=1e-6)
    assert {"mean", "std"} <= dict(d.named_buffers()).keys()
    assert len(list(data)) == 3


def test_channels_of_texts_are_those_of_the_tokens_without_padding() -> None:
    with seed_torch(0):
        target = SitedNetwork(Words(), words(4, 0), ["block"])
    inside = words(24, 1)
    mask = inside["attention_mask"]
    d = trained(FAST, target, [Batch(inside, inside, tiny.labels(24))], words(10, 2))[0]
    with disable_gradients():
        rows = target.front(inside)[0][mask].double()
    torch.testing.assert_close(d.mean.double(), rows.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(d.std.double(), rows.std(0, correction=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_a_silent_channel_is_not_blown_up(scale: float) -> None:
    with seed_torch(0):
        network = Flat()
    with torch.no_grad():
        network.enter.weight.mul_(scale)
        network.enter.weight[2] = 0
    d = trained(target=SitedNetwork(network, tiny.images(4), ["enter"]))[0]
    if scale:
        assert float(d.std[2]) == pytest.approx(0.01 * float(d.std.square().mean().sqrt()), rel=0.01)
    else:
        assert d.std.tolist() == [1.0] * 7


def test_score_is_minus_the_energy_in_eval_mode_and_in_pieces() -> None:
    d = trained()[0]
    x = torch.randn(600, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2
    whole = -compute_energy(d(x))
    d.train().requires_grad_(True)
    scores = d.score(SiteFeatures(x, d.shape))
    assert scores.shape == (600,)
    assert not scores.requires_grad
    torch.testing.assert_close(scores, whole, rtol=1e-4, atol=1e-4)
    assert d.training
    assert d.score(SiteFeatures(x[:0], d.shape)).shape == (0,)


def test_a_state_dict_holds_all() -> None:
    d = trained(sites=[1])[1]
    fresh = EnergyClassifier(d.shape, 3, FAST, (8, 8))
    fresh.load_state_dict(d.state_dict())
    x = torch.rand(4, 4, 4, 4)
    assert torch.equal(fresh.score(SiteFeatures(x, d.shape)), d.score(SiteFeatures(x, d.shape)))


@pytest.mark.parametrize(("size", "expected"), [(None, (4, 4)), ((5, 6), (5, 6))])
def test_maps_are_resized(size: tuple[int, int] | None, expected: tuple[int, int]) -> None:
    assert trained(sites=[1])[1](torch.rand(2, 4, 4, 4)).shape == (2, 3)
    d = EnergyClassifier(Shape(Kind.MAP, 4, (4, 4)), 3, FAST, size)
    got: list[Tensor] = []
    d.body.register_forward_pre_hook(lambda m, args: got.append(args[0]))
    x = torch.rand(2, 4, 4, 4)
    d(x)
    want = F.interpolate((x - d.mean[:, None, None]) / d.std[:, None, None], expected, mode="bilinear",
                         align_corners=False)
    torch.testing.assert_close(got[0], want)


def test_a_vector_site_is_trained_too() -> None:
    with seed_torch(0):
        target = SitedNetwork(Flat(), tiny.images(4), ["enter"])
    d = trained(target=target)[0]
    assert isinstance(d.body, MLP)
    with disable_gradients():
        x = target.front(tiny.images())[0]
    assert d.score(SiteFeatures(x, target.shapes[0])).shape == (24,)


# -- tokens and masks ----------------------------------------------------------------------------------------

def words(n: int, seed: int) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 6, (n,), generator=g)
    return {"input_ids": torch.randint(9, (n, 5), generator=g),
            "attention_mask": (torch.arange(5) < lengths[:, None])}


def token_detector(poison: float = 0.0) -> tuple[EnergyClassifier, SitedNetwork]:
    with seed_torch(0):
        network = Words()
    target = SitedNetwork(network, words(4, 0), ["block"])
    front = target.front

    def poisoned(inputs: dict[str, Tensor]) -> list[Tensor]:
        return [x.masked_fill(~inputs["attention_mask"][..., None], poison) for x in front(inputs)]

    target.front = poisoned  # type: ignore[method-assign]
    inside = words(24, 1)
    data = [Batch(b, b, tiny.labels(24)[k:k + 8]) for k in (0, 8, 16)
            for b in [{name: t[k:k + 8] for name, t in inside.items()}]]
    return trained(target=target, data=data, auxiliary=words(10, 2))[0], target


def test_padding_changes_neither_training_nor_scores() -> None:
    d, target = token_detector()
    other, _ = token_detector(poison=float("inf"))
    assert fingerprint_network(d) == fingerprint_network(other)
    inputs = words(6, 3)
    mask = inputs["attention_mask"]
    with disable_gradients():
        x = target.front(inputs)[0]
    clean = d.score(SiteFeatures(x, d.shape, mask))
    torch.testing.assert_close(clean, -compute_energy(d.body((x - d.mean) / d.std, mask)), rtol=1e-4,
                               atol=1e-5)
    for value in (7.0, float("nan"), float("inf")):
        assert torch.equal(d.score(SiteFeatures(x.masked_fill(~mask[..., None], value), d.shape, mask)),
                           clean)
    inside = x.clone()
    inside[:, 0] += 1
    assert not torch.equal(d.score(SiteFeatures(inside, d.shape, mask)), clean)
    assert not torch.equal(d.score(SiteFeatures(x + 1, d.shape)), clean)


def test_a_mask_of_other_tokens_is_none_of_these() -> None:
    d = EnergyClassifier(TOKENS, 3, FAST)
    x = torch.rand(4, 5, 6)
    assert torch.equal(d(x, torch.zeros(4, 9, dtype=torch.bool)), d(x))
    assert torch.equal(d(x, torch.ones(4, 5, dtype=torch.bool)), d(x)) or torch.allclose(
        d(x, torch.ones(4, 5, dtype=torch.bool)), d(x), atol=1e-6)


def test_vit_with_a_mask_is_the_vit_without_the_padded_tokens() -> None:
    with seed_torch(0):
        vit = ViT(6, 5, 3, dim=8, depth=2, heads=2).eval()
    for p in vit.parameters():
        p.data += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    x = torch.rand(4, 5, 6)
    mask = torch.tensor([True, True, True, False, False]).expand(4, 5)
    positions = vit.positions.data
    masked = vit(x, mask)
    vit.positions.data = positions[:, :4]
    torch.testing.assert_close(masked, vit(x[:, :3]), rtol=1e-5, atol=1e-6)


def test_vit_is_pytorchs_pre_norm_encoder() -> None:
    dim, heads = 8, 2
    with seed_torch(0):
        vit = ViT(6, 5, 3, dim=dim, depth=2, heads=heads).eval()
    layer = nn.TransformerEncoderLayer(dim, heads, 4 * dim, 0.0, "gelu", 1e-6, batch_first=True,
                                       norm_first=True)
    x = torch.rand(4, 5, 6)
    padded = torch.rand(4, 5) < 0.3
    h = torch.cat([vit.token.expand(4, -1, -1), vit.embed(x)], 1) + vit.positions
    for block in vit.blocks:
        layer.load_state_dict({
            "self_attn.in_proj_weight": block.qkv.weight, "self_attn.in_proj_bias": block.qkv.bias,
            "self_attn.out_proj.weight": block.out.weight, "self_attn.out_proj.bias": block.out.bias,
            "linear1.weight": block.up.weight, "linear1.bias": block.up.bias,
            "linear2.weight": block.down.weight, "linear2.bias": block.down.bias,
            "norm1.weight": block.norm1.weight, "norm1.bias": block.norm1.bias,
            "norm2.weight": block.norm2.weight, "norm2.bias": block.norm2.bias})
        layer.train()  # dropout is 0; its fast path of eval mode rounds otherwise
        h = layer(h, src_key_padding_mask=F.pad(padded, (1, 0)))
    torch.testing.assert_close(vit(x, ~padded), vit.head(vit.norm(h[:, 0])), rtol=1e-5, atol=1e-6)


# -- bodies --------------------------------------------------------------------------------------------------

def parameters(d: EnergyClassifier) -> int:
    return sum(p.numel() for p in d.body.parameters())


def test_paper_bodies_have_the_size_of_the_papers() -> None:
    paper = EnergyRecipe.paper(seed=3)
    assert (paper.crop, paper.flip, paper.epochs, paper.tune_epochs, paper.seed) == (4, True, 100, 10, 3)
    assert (paper.batch_size, paper.lr, paper.weight_decay, paper.tune_lr) == (64, 1e-3, 1e-5, 1e-3)
    assert (paper.inside, paper.outside, paper.weight, paper.optimizer) == (-25, -7, 0.1, "adam")
    assert parameters(EnergyClassifier(Shape(Kind.MAP, 3, (32, 32)), 10, paper)) == 11_173_962
    # ViT-Ti at 32x32 with patches of 4x4x3: only the embedding has other inputs.
    assert parameters(EnergyClassifier(Shape(Kind.TOKENS, 48, (64,)), 10, paper)) == 5_362_762


@pytest.mark.parametrize(("body", "shape", "count"), [
    ("auto", MAP, None), ("resnet_small", MAP, None), ("auto", TOKENS, None), ("vit_small", TOKENS, None),
    ("auto", VECTOR, 7 * 128 + 128 + 3 * 128 + 3), ("mlp", VECTOR, None), ("paper", VECTOR, None)])
def test_bodies_give_logits(body: Any, shape: Shape, count: int | None) -> None:
    d = EnergyClassifier(shape, 3, dataclasses.replace(FAST, body=body)).eval()
    dims = (shape.width, *shape.size) if shape.kind is Kind.MAP else (*shape.size, shape.width)
    assert d(torch.rand(2, *dims)).shape == (2, 3)
    assert d(torch.rand(2, *dims, dtype=torch.float64)).dtype == torch.float32
    assert count is None or parameters(d) == count


# -- what it is for ------------------------------------------------------------------------------------------

def test_held_out_digits_are_told_from_noise() -> None:
    fit, test = zoo.digits("train").subset(150), zoo.digits("test").subset(100)
    g = torch.Generator().manual_seed(0)
    target = SitedNetwork(zoo.build("resnet_digits"), fit.inputs[:4], ["layer1.1", "layer3.0"])
    recipe = EnergyRecipe(epochs=4, tune_epochs=2, lr=3e-3, tune_lr=3e-3)
    found = trained(recipe, target, Batches(fit.tensors, size=50, shuffle=True),
                    torch.rand(150, 1, 8, 8, generator=g), [0, 1])
    target.network.eval()
    with disable_gradients():
        native, noise = target.front(test.inputs), target.front(torch.rand(100, 1, 8, 8, generator=g))
    for j, d in found.items():
        scores = torch.cat([d.score(SiteFeatures(x[j], target.shapes[j])) for x in (native, noise)])
        assert roc_auc_score([1] * 100 + [0] * 100, scores) > 0.8


def test_fine_tuning_pulls_energies_apart() -> None:
    target = sited()
    with disable_gradients():
        native, other = target.front(tiny.images())[0], target.front(outside())[0]
    gaps = []
    for tune in (0, 8):
        d = trained(dataclasses.replace(FAST, tune_epochs=tune, tune_lr=1e-2), target=target)[0]
        gaps.append(float(d.score(SiteFeatures(native, d.shape)).mean()
                          - d.score(SiteFeatures(other, d.shape)).mean()))
    assert gaps[1] > gaps[0] + 1


# -- bad input -----------------------------------------------------------------------------------------------

def refuse(match: str, act: Callable[[], object]) -> None:
    with pytest.raises(SutureError, match=match) as error:
        act()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("options", "match"), [
    ({"epochs": 0}, "^epochs: .*got 0"), ({"tune_epochs": -1}, "^tune_epochs: .*got -1"),
    ({"tune_epochs": 1.5}, "^tune_epochs: .*got 1.5"), ({"tune_epochs": True}, "^tune_epochs: .*got True"),
    ({"tune_lr": 0}, "^tune_lr: .*got 0"), ({"tune_lr": float("nan")}, "^tune_lr: .*got nan"),
    ({"weight": -0.1}, "^weight: .*got -0.1"), ({"weight": float("inf")}, "^weight: .*got inf"),
    ({"inside": -7, "outside": -25}, r"inside: .*-25.0, got -7.0"), ({"inside": -7.0}, "got -7.0"),
    ({"outside": float("inf")}, "^outside: .*got inf"), ({"inside": "a"}, "^inside: .*got 'a'"),
    ({"body": "resnet"}, "unknown body 'resnet'; nearest: resnet"), ({"schedule": "x"}, "unknown schedule")])
def test_recipes_are_checked(options: dict[str, Any], match: str) -> None:
    refuse(match, lambda: EnergyRecipe(**options))


@pytest.mark.parametrize(("body", "shape"), [("resnet18", TOKENS), ("vit_small", MAP), ("mlp", MAP),
                                             ("resnet_small", VECTOR)])
def test_a_body_must_suit_the_site(body: Any, shape: Shape) -> None:
    refuse(f"expected a body for {shape.kind.value}, got '{body}' for the site 'here'.*write body='auto'",
           lambda: EnergyClassifier(shape, 3, dataclasses.replace(FAST, body=body), site="here"))


def pairs(inputs: Tensor, labels: Tensor | None) -> list[Batch]:
    return [Batch(inputs, inputs, labels)]


X, Y = tiny.images(), tiny.labels()
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no labels": ({"data": pairs(X, None)}, "expected labels .* for energy detectors, got none.*mahalanobis"),
    "no class numbers": ({"data": pairs(X, torch.rand(24))}, "labels that are class numbers"),
    "labels of two axes": ({"data": pairs(X, torch.zeros(24, 2, dtype=torch.int64))},
                           r"expected labels \(N,\).*got \(24, 2\)"),
    "label too large": ({"data": pairs(X, Y + 1)},
                        "expected labels from 0 to 2, got 3"),
    "label too small": ({"data": pairs(X, Y - 1)}, "expected labels from 0 to 2, got -1"),
    "one class": ({"data": pairs(X, Y * 0 + 2)}, "at least 2 classes.*got only class 2; choose a detector"),
    "single examples": ({"data": [Batch(X[k:k + 1], X[k:k + 1], Y[k:k + 1]) for k in range(6)]},
                        "at least 2 examples"),
    "inputs not finite": ({"data": pairs(X * float("nan"), Y)},
                          "NaN or inf in the representation at site 'block1'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str) -> None:
    options, match = BAD[case]
    refuse(match, lambda: trained(**options))


class Sum(tiny.Tiny):
    """Two images -> their sum -> logits."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        found: Tensor = super().forward(x + y)
        return found


def test_crops_are_of_one_tensor_of_images() -> None:
    with seed_torch(0):
        target = SitedNetwork(nn.Sequential(nn.Linear(6, 7), nn.Linear(7, 3)), torch.rand(4, 6), ["0"])
    x = torch.rand(24, 6)
    crop = dataclasses.replace(FAST, crop=1)
    refuse(r"to crop and flip, got .*\(24, 6\)",
           lambda: trained(crop, target=target, data=pairs(x, Y), auxiliary=x))
    both = SitedNetwork(Sum(), (X[:4], X[:4]), ["block1"])
    refuse("one tensor to crop and flip, got 2 tensors",
           lambda: trained(crop, target=both, data=[Batch((X, X), (X, X), Y)], auxiliary=(X, X)))


@pytest.mark.parametrize(("options", "where", "what"), [
    ({"lr": 1e30}, "epoch [12] of 4", "try lr=1e[+]29"),
    ({"tune_lr": 1e30}, "epoch [34] of 4", "try tune_lr=1e[+]29")])
def test_a_loss_that_is_not_finite_names_site_and_epoch(options: dict[str, Any], where: str,
                                                        what: str) -> None:
    refuse(f"loss of the energy detector at site 'block2' became (nan|inf) in {where}; {what}",
           lambda: trained(dataclasses.replace(FAST, **options), sites=[1]))


def test_auxiliary_inputs_that_are_not_finite() -> None:
    refuse("site 'block1' became nan in epoch 3", lambda: trained(FAST, auxiliary=outside() * float("nan")))



def test_mlp_is_one_hidden_layer_of_relus() -> None:
    with seed_torch(0):
        mlp = MLP(4, 3, hidden=5)
    x = torch.randn(6, 4)
    hidden = torch.clamp(x @ mlp.hidden.weight.T + mlp.hidden.bias, min=0)
    torch.testing.assert_close(mlp(x), hidden @ mlp.head.weight.T + mlp.head.bias)


@pytest.mark.parametrize(("make", "match"), [
    (lambda: ViT(6, 5, 3, dim=8, heads=3), "multiple of heads, got 8 and 3; write dim=6"),
    (lambda: ViT(0, 5, 3), "^width: .*got 0"), (lambda: MLP(4, 0), "^classes: .*got 0")])
def test_impossible_bodies(make: Callable[[], nn.Module], match: str) -> None:
    refuse(match, make)


def test_energy_detectors_are_trained_on_texts_and_auxiliary_ones_of_other_lengths() -> None:
    network, auxiliary, recipe = (two()[0], collated(texts(12, 5), 12, 12)[0][0],
                                  EnergyRecipe(epochs=1, tune_epochs=1))
    inputs = collated(TEXTS, 5)[0][0]
    scores = []
    for length in (None, 12):  # 12: all as long as the auxiliary ones
        batches = Batches(collated(TEXTS, 7, length))
        sited = SitedNetwork(network, next(iter(batches)).target, "blocks.*")
        made = trained(recipe, sited, batches, auxiliary, [0, 1], micro_batch=4)
        with freeze(network), torch.no_grad():
            seen = [SiteFeatures(x, shape, inputs["attention_mask"].bool())
                    for x, shape in zip(sited.front(inputs), sited.shapes, strict=True)]
        scores.append(torch.stack([made[j].score(s) for j, s in enumerate(seen)]))
    torch.testing.assert_close(scores[0], scores[1], rtol=1e-3, atol=1e-4)
