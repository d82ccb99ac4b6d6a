"""Controls: sources that hold the class alone, altered representations, and the truth table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import suture
from suture import SutureError, controls
from suture.networks import Recipe, ViT
from suture.representations import Kind, Shape
from suture.studies.controls.alterations import ALTERATIONS, FittingStatistics
from suture.studies.controls.retrained import draw_rotation
from suture.studies.controls.site_rows import SiteRows, from_rows, to_rows
from tests.support.tiny import seeded

X = torch.randn(60, 1, 6, 6, generator=torch.Generator().manual_seed(0))


class Patches(nn.Module):
    """A ViT on 2x2 patches."""

    def __init__(self) -> None:
        super().__init__()
        self.vit = ViT(4, 9, 3, dim=8, depth=2, heads=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.vit(nn.functional.unfold(x, 2, stride=2).transpose(1, 2))


class Texts(nn.Module):
    """Two layers on word vectors; logits from their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.layer, self.head = nn.Embedding(20, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x, kept = self.layer(self.words(input_ids)), attention_mask[..., None]
        return self.head((x * kept).sum(1) / kept.sum(1))


def convolutions() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(),
                         nn.Linear(8, 3))


def texts(n: int = 12, length: int = 6) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(1)
    mask = (torch.arange(length) < torch.randint(2, length + 1, (n, 1), generator=g)).long()
    return {"input_ids": torch.randint(1, 20, (n, length), generator=g) * mask, "attention_mask": mask}


NETWORKS: dict[str, tuple[Any, str]] = {"maps": (convolutions, "2"), "vectors": (perceptron, "3"),
                                        "tokens": (Patches, "vit.blocks.0")}


def make(name: str) -> tuple[nn.Module, str]:
    build, site = NETWORKS[name]
    network = seeded(build, 0).eval()
    with torch.no_grad():  # so that it predicts every class, and attends to something
        for weight in network.parameters() if name == "tokens" else ():
            weight.mul_(6 if weight.ndim > 1 else 1)
        list(network.parameters())[-1].sub_(network(X).mean(0))
    return network, site


def predict(network: nn.Module, x: Tensor = X) -> tuple[Tensor, Tensor]:
    """Return inputs with the network's own predictions as labels."""
    with torch.no_grad():
        return x, network(x).argmax(1)


@pytest.mark.parametrize("name", NETWORKS)
def test_class_noise_has_the_shape_of_the_site_and_holds_the_class_alone(name: str) -> None:
    network, site = make(name)
    noise = controls.class_noise(network, X, site, spread=1e-6, seed=3)
    x, classes = predict(network)
    got = suture.capture(noise, x, [noise.site])["noise"]
    assert got.shape == suture.capture(network, x, [site])[site].shape
    for c in classes.unique():
        assert (got[classes == c] - got[classes == c][:1]).abs().max() < 1e-4
    means = torch.stack([got[classes == c].mean(0).flatten() for c in classes.unique()])
    assert len(means) == 3
    assert torch.pdist(means).min() > 0.5


def test_class_noise_of_an_example_depends_on_nothing_else() -> None:
    network, site = make("maps")
    noise = controls.class_noise(network, X, site, seed=3)
    whole = suture.capture(noise, X, ["noise"])["noise"]
    order = torch.randperm(len(X), generator=torch.Generator().manual_seed(1))
    parts = torch.cat([suture.capture(noise, part, ["noise"])["noise"] for part in X[order].split(7)])
    assert torch.equal(parts, whole[order])
    other = controls.class_noise(network, X, site, seed=4)
    assert not torch.equal(suture.capture(other, X, ["noise"])["noise"], whole)


def test_class_noise_of_a_text_does_not_depend_on_its_padding() -> None:
    network, given = seeded(Texts, 0).eval(), texts()
    noise = controls.class_noise(network, given, "layer")
    longer = {k: nn.functional.pad(v, (0, 4)) for k, v in given.items()}
    one, other = (suture.capture(noise, g, [noise.site])["noise"] for g in (given, longer))
    kept = given["attention_mask"].bool()
    assert torch.equal(one[kept], other[:, :6][kept])


def test_pure_noise_does_not_know_the_class() -> None:
    network, site = make("maps")
    noise = controls.pure_noise(network, X, site, spread=1e-6)
    got = suture.capture(noise, X, ["noise"])["noise"]
    assert (got - got[:1]).abs().max() < 1e-4


@pytest.mark.parametrize("make_noise", [controls.class_noise, controls.pure_noise])
def test_noise_needs_a_class_for_each_example(make_noise: Any) -> None:
    with pytest.raises(SutureError, match="logits"):
        make_noise(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1)), torch.rand(5, 4), "0")


def test_random_weights_are_new_in_every_parameter_and_those_of_the_seed() -> None:
    network = seeded(Patches, 0)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    one, same, other = (controls.random_weights(network, seed).state_dict() for seed in (1, 1, 2))
    for name, value in before.items():
        assert torch.equal(network.state_dict()[name], value)
        assert torch.equal(one[name], same[name])
        if value.ndim > 1:
            assert not torch.equal(one[name], value)
            assert not torch.equal(one[name], other[name])
    name = "vit.positions"
    assert torch.equal(one[name].flatten().sort().values, before[name].flatten().sort().values)


def test_random_labels_are_learnt_and_not_those_of_the_data() -> None:
    network, _ = make("vectors")
    x, labels = predict(network)
    made = controls.random_labels(network, (x, labels), Recipe(epochs=60, batch_size=20, lr=1e-2), seed=1)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    guessed = made(x).argmax(1)
    assert (guessed == labels[order]).float().mean() > 0.9
    with pytest.raises(SutureError, match="labels"):
        controls.random_labels(network, x)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_rotated_copy_gives_the_rotated_representation_and_direct_matching_undoes_it(name: str) -> None:
    network, site = make(name)
    turned = controls.rotated(network, X, site, seed=2)
    native, got = (suture.capture(n, X, [site])[site] for n in (network, turned))
    axis = 1 if name == "maps" else -1
    turn = draw_rotation(native.shape[axis], None, 2)
    assert torch.allclose((native.movedim(axis, -1) @ turn).movedim(-1, axis), got, atol=1e-5)
    assert not torch.allclose(native, got, atol=0.1)
    found = suture.compare(turned, network, predict(network), sites=[site], methods=["dm"], indices=(),
                           ood=None)
    assert found.matrix("dm.r2").iloc[0, 0] > 1 - 1e-6


@pytest.mark.parametrize("angle", [5.0, 90.0])
@pytest.mark.parametrize("width", [4, 5])
def test_a_rotation_turns_every_plane_by_its_angle(angle: float, width: int) -> None:
    turn = draw_rotation(width, angle, 0).double()
    assert torch.allclose(turn @ turn.T, torch.eye(width, dtype=torch.float64), atol=1e-6)
    angles = torch.linalg.eigvals(turn).angle().rad2deg().abs().sort().values
    assert torch.allclose(angles[width % 2:], torch.tensor(angle, dtype=angles.dtype), atol=1e-3)


def test_permuted_examples_pair_every_target_with_another_source() -> None:
    x, y = torch.arange(50)[:, None].float(), torch.arange(50)
    sources, targets, labels = zip(*((b.source, b.target, b.labels) for b in controls.permuted_examples(
        (x, y), 4, batch_size=8)), strict=True)
    got, own = torch.cat(sources)[:, 0], torch.cat(targets)[:, 0]
    assert torch.equal(own, x[:, 0])
    assert torch.equal(torch.cat(labels), y)
    assert bool((got != own).all())
    assert torch.equal(got.sort().values, own)


def test_permuted_texts_change_places_at_equal_lengths() -> None:
    given = texts(40)
    found = next(iter(controls.permuted_examples({**given, "labels": torch.arange(40)})))
    assert torch.equal(found.source["attention_mask"], given["attention_mask"])
    assert (found.source["input_ids"] != given["input_ids"]).any(1).sum() > 30


@pytest.mark.parametrize("data", [[(X, torch.zeros(60))], (X[:1], torch.zeros(1).long())])
def test_examples_that_cannot_be_permuted_are_refused(data: Any) -> None:
    with pytest.raises(SutureError):
        controls.permuted_examples(data)


SHAPES = {"map": (Shape(Kind.MAP, 3, (2, 4)), (5, 3, 2, 4)),
          "last": (Shape(Kind.MAP, 3, (2, 4), last=True), (5, 2, 4, 3)),
          "tokens": (Shape(Kind.TOKENS, 3, (6,)), (5, 6, 3)), "vector": (Shape(Kind.VECTOR, 3), (5, 3))}


@pytest.mark.parametrize("name", SHAPES)
def test_rows_are_the_channels_at_every_position(name: str) -> None:
    shape, size = SHAPES[name]
    x = torch.randn(size)
    rows = to_rows(x, shape)
    assert rows.shape == (5, x[0].numel() // 3, 3)
    channels = x.movedim(1, -1) if name == "map" else x
    assert torch.equal(rows.flatten(0, 1), channels.reshape(-1, 3))
    assert torch.equal(from_rows(rows, x, shape), x)


def make_rows(shape: Shape, length: int, kept: Tensor | None = None,
              n: int = 40) -> tuple[SiteRows, FittingStatistics]:
    g = torch.Generator().manual_seed(0)
    classes = torch.arange(n) % 3
    rows = torch.randn(n, length, 4, generator=g) + classes[:, None, None]
    given = SiteRows(rows, kept, classes, shape)
    known = torch.arange(3)
    return given, FittingStatistics(given.find_means(known), known, given.mean, given.spread)


TOKENS = Shape(Kind.TOKENS, 4, (6,), prefix=1)


def alter(name: str, strength: float, kept: Tensor | None = None) -> tuple[SiteRows, Tensor]:
    given, known = make_rows(TOKENS, 6, kept)
    return given, ALTERATIONS[name].apply(given, strength, known, 0)


@pytest.mark.parametrize("strength", [0.25, 1.0])
def test_collapsed_rows_lie_on_the_way_to_their_class_mean(strength: float) -> None:
    given, made = alter("collapsed", strength)
    for e in range(len(made)):
        mean = given.rows[given.classes == given.classes[e]].mean(0)
        assert torch.allclose(made[e], (1 - strength) * given.rows[e] + strength * mean, atol=1e-5)


@pytest.mark.parametrize("strength", [0.25, 1.0])
def test_swapped_rows_are_those_of_another_example_of_the_class(strength: float) -> None:
    given, made = alter("swapped", strength)
    whose = [int((given.rows == row).flatten(1).all(1).nonzero()) for row in made]
    assert [given.classes[e] for e in whose] == given.classes.tolist()
    assert sorted(whose) == list(range(40))
    moved = np.array(whose) != np.arange(40)
    assert abs(moved.mean() - strength) < 0.05


@pytest.mark.parametrize("name", ["collapsed", "shrunken", "rotated", "noise added"])
def test_altered_rows_stay_on_their_device_and_their_classes_on_the_cpu(name: str) -> None:
    given, known = make_rows(TOKENS, 6)
    meta = torch.device("meta")  # its tensors cannot be mixed with others
    moved = SiteRows(given.rows.to(meta), None, given.classes, TOKENS)
    there = known._replace(means=known.means.to(meta), mean=known.mean.to(meta), spread=known.spread.to(meta))
    assert ALTERATIONS[name].apply(moved, 0.5, there, 0).device == meta


def test_swapped_texts_keep_their_length() -> None:
    kept = torch.arange(6) < (2 + torch.arange(40) % 5)[:, None]
    given, made = alter("swapped", 1.0, kept)
    assert torch.equal(made[~kept], given.rows[~kept])
    assert (made != given.rows).flatten(1).any(1).sum() > 30


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_shuffled_positions_are_those_of_the_example_and_prefix_tokens_stay(strength: float) -> None:
    given, made = alter("positions shuffled", strength)
    assert torch.equal(made[:, 0], given.rows[:, 0])
    for own, got in zip(given.rows, made, strict=True):
        assert torch.equal(own.sort(0).values, got.sort(0).values)
    moved = (made != given.rows).any(2)[:, 1:].float().mean()
    assert abs(float(moved) - strength) <= 0.1


def test_shrunken_rotated_and_noisy_rows_are_what_their_strength_says() -> None:
    given, shrunken = alter("shrunken", 0.5)
    assert torch.allclose(shrunken - given.mean, 0.5 * (given.rows - given.mean), atol=1e-5)
    _, turned = alter("rotated", 90.0)
    products = ((turned - given.mean) * (given.rows - given.mean)).sum(2)
    assert products.abs().max() < 1e-4
    assert torch.allclose((turned - given.mean).norm(dim=2), (given.rows - given.mean).norm(dim=2), atol=1e-4)
    _, noisy = alter("noise added", 3.0)
    assert torch.allclose((noisy - given.rows).std((0, 1)) / given.spread, torch.tensor(3.0), rtol=0.2)


@pytest.mark.parametrize(("name", "shape"), [("positions shuffled", Shape(Kind.VECTOR, 4)),
                                             ("rotated", Shape(Kind.VECTOR, 1))])
def test_what_cannot_be_altered_is_refused(name: str, shape: Shape) -> None:
    given, known = make_rows(shape, 1)
    with pytest.raises(SutureError):
        ALTERATIONS[name].apply(given, 1.0, known, 0)


@pytest.mark.parametrize("name", NETWORKS)
def test_grades_are_those_of_the_truth_table_where_it_is_plain(name: str) -> None:
    network, site = make(name)
    data = predict(network, torch.randn(300, 1, 6, 6, generator=torch.Generator().manual_seed(2)))
    found = controls.grade(network, data, data, [site], alterations=["collapsed", "swapped", "shrunken"])
    cells = found.set_index(["control", "strength"])
    assert found.iloc[0][["control", "verdict"]].tolist() == ["identity", "similar"]
    assert cells.loc[("collapsed", 1.0), "relative_accuracy"] <= 1 + 1e-9
    for control in ("collapsed", "swapped"):
        assert cells.loc[(control, 1.0), "verdict"] != "similar"
        assert cells.loc[(control, 1.0), "informational_residual"] > 0.9
    assert cells.loc[("collapsed", 1.0), "strict_residual"] == pytest.approx(1, abs=1e-4)
    assert cells.loc[("shrunken", 0.9), "distance"] == pytest.approx(0.01, abs=1e-3)
    assert cells.loc[("shrunken", 0.9), "grade"] == "right"
    assert {"natural shift"} < set(found["control"])


def test_a_text_encoder_is_graded_also_without_labels() -> None:
    network, given = seeded(Texts, 0).eval(), texts(200)
    found = controls.grade(network, given, given, ["layer"])
    assert set(ALTERATIONS) <= set(found["control"])
    assert found.loc[0, "agreement"] == 1


def test_grades_do_not_depend_on_batches() -> None:
    network, site = make("maps")
    data = predict(network)
    whole, parts = (controls.grade(network, data, data, [site], alterations=["shrunken"], batch_size=size)
                    for size in (60, 13))
    numbers = whole.select_dtypes("number").columns
    assert np.allclose(whole[numbers], parts[numbers], rtol=1e-3, atol=1e-6, equal_nan=True)
    assert whole["verdict"].equals(parts["verdict"])


def test_texts_to_alter_may_be_longer_than_those_of_the_class_means() -> None:
    network, given = seeded(Texts, 0).eval(), texts(200)
    short = {k: v[given["attention_mask"].sum(1) == 4, :4] for k, v in given.items()}
    found = controls.grade(network, short, given, ["layer"], alterations=["collapsed"])
    assert found.loc[found["control"] == "collapsed", "strict_residual"].notna().all()


def test_without_class_means_residuals_are_missing_and_nothing_collapses() -> None:
    network, site = make("maps")
    x, labels = predict(network)
    few = (x[:4], torch.tensor([0, 1, 2, 0]))
    found = controls.grade(network, few, (x, labels), [site])
    assert "collapsed" not in set(found["control"])
    assert found["informational_residual"].isna().all()
    with pytest.raises(SutureError, match="no class"):
        controls.grade(network, few, (x, labels), [site], alterations=["collapsed"])


@pytest.mark.parametrize(("network", "given"), [
    (perceptron, {"alterations": ["polished"]}), (perceptron, {"alterations": ["positions shuffled"]}),
    (lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.ReLU(), nn.Linear(4, 1)), {})])
def test_what_cannot_be_graded_is_refused_in_one_line(network: Any, given: dict[str, Any]) -> None:
    with pytest.raises(SutureError) as caught:
        controls.grade(seeded(network, 0), X, X, ["1"], **given)
    assert "\n" not in str(caught.value)


def test_every_alteration_has_a_truth_at_every_strength_and_stands_in_the_docs() -> None:
    words = (Path(__file__).parents[2] / "docs" / "controls.md").read_text(encoding="utf-8")
    for truth in controls.TRUTHS:
        assert truth.control.split()[0] in words.lower()
    for alteration in ALTERATIONS.values():
        for strength in alteration.strengths:
            assert controls.find_truth(alteration.name, strength).control == alteration.name
    assert len(controls.tabulate_truths()) == len(controls.TRUTHS)


@pytest.mark.parametrize(("control", "where", "verdict", "grade"), [
    ("identity", {}, "similar", "right"), ("identity", {}, "dissimilar", "wrong"),
    ("class noise", {}, "similar", "wrong"), ("class noise", {}, "unproven", "unproven"),
    ("random weights", {}, "similar", "no truth defined"),
    ("positions shuffled", {"strength": 1.0}, "similar", "wrong"),
    ("positions shuffled", {"strength": 1.0, "kind": "tokens"}, "similar", "no truth defined"),
    ("positions shuffled", {"strength": 1.0, "last": True}, "similar", "no truth defined")])
def test_a_verdict_is_graded_by_the_truth_table(control: str, where: dict[str, Any], verdict: str,
                                                grade: str) -> None:
    assert controls.find_truth(control, **where).grade(verdict) == grade


@pytest.mark.parametrize("make", [controls.class_noise, controls.pure_noise])
def test_a_seed_makes_the_same_network_of_noise(make: Any) -> None:
    """The output layer was drawn from the global random state."""
    one, other = (make(seeded(perceptron, 0), X[:4], "1", seed=3).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
