"""The zoo: networks, digits, weights on disk, fingerprints, and the recipe for the digits."""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from suture import zoo
from suture._base.errors import SutureError
from suture._base.hashing import fingerprint_network
from suture.networks.architectures.resnet import BasicBlock, ResNet
from suture.networks.recipe import Recipe
from suture.zoo import weights as weights_module
from suture.zoo.image_sets import ImageSet

# Networks


def test_resnet18_has_the_papers_11_17_million_parameters() -> None:
    assert sum(weight.numel() for weight in zoo.build("resnet18").parameters()) == 11_173_962


@pytest.mark.parametrize("name", zoo.networks)
def test_entries_tell_the_truth(name: str) -> None:
    entry = zoo.networks[name]
    network = zoo.build(name).eval()
    assert sum(weight.numel() for weight in network.parameters()) == entry.parameters
    with torch.no_grad():
        assert network(torch.zeros(2, *entry.input_shape)).shape == (2, entry.classes)


SHAPES = {
    "resnet18": [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)],
    "resnet20": [(16, 32, 32), (32, 32, 32), (64, 32, 32)],
    "resnet20_strided": [(16, 32, 32), (32, 16, 16), (64, 8, 8)],
    "resnet_digits": [(16, 8, 8), (32, 4, 4), (64, 2, 2)],
}
BLOCKS = {"resnet18": 2, "resnet20": 3, "resnet20_strided": 3, "resnet_digits": 2}


@pytest.mark.parametrize("name", zoo.networks)
def test_stages_have_their_blocks_and_shapes(name: str) -> None:
    network = zoo.build(name).eval()
    found: dict[str, tuple[int, ...]] = {}

    def note(path: str) -> Callable[..., None]:
        return lambda _, __, out: found.update({path: tuple(out.shape[1:])})

    for path, module in network.named_modules():
        if isinstance(module, BasicBlock):
            module.register_forward_hook(note(path))
    with torch.no_grad():
        network(torch.zeros(1, *zoo.networks[name].input_shape))
    assert found == {
        f"layer{stage}.{block}": shape
        for stage, shape in enumerate(SHAPES[name], start=1)
        for block in range(BLOCKS[name])
    }


@pytest.mark.parametrize(("inner", "outer", "stride"), [(4, 4, 1), (4, 6, 1), (4, 4, 2)])
def test_a_block_is_its_formula(inner: int, outer: int, stride: int) -> None:
    """Written out with functional calls: the addition comes before the last ReLU."""
    block = BasicBlock(inner, outer, stride).eval()
    x = torch.randn((2, inner, 6, 6), generator=torch.Generator().manual_seed(0))

    def norm(bn: nn.Module, y: torch.Tensor) -> torch.Tensor:
        return F.batch_norm(y, bn.running_mean, bn.running_var, bn.weight, bn.bias)

    inside = F.relu(norm(block.bn1, F.conv2d(x, block.conv1.weight, stride=stride, padding=1)))
    inside = norm(block.bn2, F.conv2d(inside, block.conv2.weight, padding=1))
    around = x
    if (inner, stride) != (outer, 1):
        conv, bn = block.shortcut
        around = norm(bn, F.conv2d(x, conv.weight, stride=stride))
    else:
        assert isinstance(block.shortcut, nn.Identity)
    assert torch.allclose(block(x), F.relu(inside + around), atol=1e-6)
    assert (block(x) >= 0).all()


def test_the_head_is_global_average_pooling() -> None:
    network = zoo.build("resnet_digits").eval()
    x = torch.rand((3, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    y = F.relu(network.bn1(network.conv1(x)))
    y = network.layer3(network.layer2(network.layer1(y)))
    assert torch.allclose(network(x), network.fc(y.mean((2, 3))), atol=1e-6)


def test_initialisation_depends_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = fingerprint_network(zoo.build("resnet_digits", seed=3))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert fingerprint_network(zoo.build("resnet_digits", seed=3)) == first
    assert fingerprint_network(zoo.build("resnet_digits", seed=4)) != first


def test_options_reach_the_network() -> None:
    network = zoo.build("resnet_digits", classes=7, in_channels=3)
    assert network(torch.zeros(2, 3, 8, 8)).shape == (2, 7)


def test_build_names_the_nearest() -> None:
    with pytest.raises(SutureError, match=r"unknown network 'resnet-18'; nearest: resnet18"):
        zoo.build("resnet-18")
    with pytest.raises(SutureError, match=r"unknown option of resnet18 'num_classes'; nearest: classes"):
        zoo.build("resnet18", num_classes=3)


def test_a_resnet_needs_lists_of_one_length() -> None:
    with pytest.raises(SutureError, match="got 2, 1 and 2"):
        ResNet((4, 8), (1,), (1, 2))
    with pytest.raises(SutureError, match="got 0, 0 and 0"):
        ResNet((), (), ())
    with pytest.raises(SutureError, match="must be at least 1"):
        ResNet((4,), (0,), (1,))


# Digits


def test_the_split_is_disjoint_complete_and_balanced() -> None:
    from sklearn.datasets import load_digits

    train, test = zoo.digits("train"), zoo.digits("test")
    assert (len(train), len(test)) == (1297, 500)
    assert test.labels.bincount().tolist() == [50] * 10
    together = torch.cat([train.inputs, test.inputs])[:, 0] * 16
    labels = torch.cat([train.labels, test.labels])
    bunch = load_digits()
    found = {(image.numpy().tobytes(), int(label)) for image, label in zip(together, labels, strict=True)}
    real = {
        (image.astype("float32").tobytes(), int(label))
        for image, label in zip(bunch.images, bunch.target, strict=True)
    }
    # All 1,797 images differ, so equal sets mean that none is in both parts and none is lost.
    assert len(found) == 1797
    assert found == real


def test_digits_are_images_between_0_and_1() -> None:
    for data in (zoo.digits("train"), zoo.digits("test")):
        assert data.inputs.shape[1:] == (1, 8, 8)
        assert data.inputs.dtype == torch.float32
        assert data.labels.dtype == torch.int64
        assert (float(data.inputs.min()), float(data.inputs.max())) == (0, 1)
    assert (zoo.digits().name, zoo.digits("test").name) == ("digits-train", "digits-test")


def test_the_split_never_changes() -> None:
    """Numbers written down when the split was made: a change would make all earlier results incomparable."""

    def digest(data: ImageSet) -> str:
        return hashlib.sha256(data.inputs.numpy().tobytes() + data.labels.numpy().tobytes()).hexdigest()[:16]

    assert digest(zoo.digits("train")) == "26e6e343737f032f"
    assert digest(zoo.digits("test")) == "db9dba64b8bbd43b"


def test_the_order_of_the_training_images_is_mixed() -> None:
    """What is left of a balanced order would end with 57 images without the smallest class, the eights."""
    labels = zoo.digits("train").labels
    assert labels[:57].bincount(minlength=10).min() >= 1
    assert labels[-57:].bincount(minlength=10).min() >= 1


def test_callers_cannot_spoil_the_digits() -> None:
    zoo.digits("test").inputs.zero_()
    assert zoo.digits("test").inputs.max() == 1


def test_unknown_split() -> None:
    with pytest.raises(SutureError, match="unknown split of the digits 'tset'; nearest: test"):
        zoo.digits("tset")  # type: ignore[arg-type]


@pytest.mark.parametrize(("n", "least", "most"), [(100, 10, 10), (105, 10, 11), (3, 0, 1)])
def test_subsets_are_balanced(n: int, least: int, most: int) -> None:
    part = zoo.digits("train").subset(n, seed=2)
    counts = part.labels.bincount(minlength=10)
    assert len(part) == n
    assert (int(counts.min()), int(counts.max())) == (least, most)


def test_subsets_depend_on_their_seed_and_are_nested() -> None:
    data = zoo.digits("train")
    a, b, other = data.subset(50, seed=1), data.subset(80, seed=1), data.subset(50, seed=2)
    assert torch.equal(a.inputs, b.inputs[:50])
    assert torch.equal(a.labels, b.labels[:50])
    assert not torch.equal(a.inputs, other.inputs)
    assert a.name == "digits-train/50@1"


def test_a_subset_of_all_is_all_and_takes_pairs() -> None:
    data = zoo.digits("test")
    whole = data.subset(500)
    pairs = {(image.numpy().tobytes(), label) for image, label in data}
    assert {(image.numpy().tobytes(), label) for image, label in whole} == pairs
    assert len(pairs) == 500


@pytest.mark.parametrize("n", [0, -1, 501])
def test_subsets_need_a_possible_size(n: int) -> None:
    with pytest.raises(SutureError, match=f"n must lie from 1 to 500, the size of digits-test, got {n}"):
        zoo.digits("test").subset(n)


def test_image_sets_serve_a_loader() -> None:
    data = zoo.digits("test")
    loader = torch.utils.data.DataLoader(data, batch_size=200)
    batches = list(loader)
    assert torch.equal(torch.cat([images for images, _ in batches]), data.inputs)
    assert torch.equal(torch.cat([labels for _, labels in batches]), data.labels)
    assert data[3][0].shape == (1, 8, 8)
    assert data[3][1] == int(data.labels[3])


@pytest.mark.parametrize(
    ("inputs", "labels", "words"),
    [
        (torch.zeros(2, 8, 8), torch.zeros(2).long(), r"got torch\.float32 of \(2, 8, 8\)"),
        (torch.zeros(2, 1, 8, 8).double(), torch.zeros(2).long(), r"must be float32 .* got torch\.float64"),
        (torch.zeros(2, 1, 8, 8), torch.zeros(2), r"must be int64 of shape \(2,\), got torch\.float32"),
        (torch.zeros(2, 1, 8, 8), torch.zeros(3).long(), r"of shape \(2,\), got torch\.int64 of \(3,\)"),
        (torch.zeros(2, 1, 8, 8), torch.tensor([0, 3]), "from 0 to 2, got 0 to 3"),
        (torch.zeros(2, 1, 8, 8), torch.tensor([-1, 2]), "from 0 to 2, got -1 to 2"),
    ],
)
def test_image_sets_check_themselves(inputs: torch.Tensor, labels: torch.Tensor, words: str) -> None:
    with pytest.raises(SutureError, match=words):
        ImageSet(inputs, labels, 3, "x")


# Fingerprints


def test_a_fingerprint_names_every_weight() -> None:
    network = zoo.build("resnet_digits")
    first = fingerprint_network(network)
    assert len(first) == 16
    assert int(first, 16) >= 0
    assert fingerprint_network(network.eval()) == first
    for tensor in (network.fc.bias, network.bn1.running_var):
        kept = tensor.detach().clone()
        tensor.data[-1] += 1e-6 * (1 + abs(float(tensor.data[-1])))
        assert fingerprint_network(network) != first
        tensor.data.copy_(kept)
    assert fingerprint_network(network) == first


def test_a_fingerprint_covers_names_types_and_shapes_but_not_layout_or_order() -> None:
    def one(name: str, value: torch.Tensor) -> nn.Module:
        module = nn.Module()
        module.register_buffer(name, value)
        return module

    base = fingerprint_network(one("a", torch.zeros(2, 3)))
    assert fingerprint_network(one("b", torch.zeros(2, 3))) != base
    assert fingerprint_network(one("a", torch.zeros(3, 2))) != base
    assert fingerprint_network(one("a", torch.zeros(2, 3, dtype=torch.int32))) != base
    assert fingerprint_network(one("a", torch.zeros(2, 3, dtype=torch.bfloat16))) != base
    square = torch.arange(9.0).reshape(3, 3)
    assert fingerprint_network(one("a", square.T)) == fingerprint_network(one("a", square.T.contiguous()))
    ab, ba = nn.Module(), nn.Module()
    for name in "ab":
        ab.register_buffer(name, torch.zeros(1))
    for name in "ba":
        ba.register_buffer(name, torch.zeros(1))
    assert fingerprint_network(ab) == fingerprint_network(ba)


# Weights on disk


@pytest.fixture
def network() -> nn.Module:
    return zoo.build("resnet_digits", seed=5)


def test_weights_survive_the_disk(network: nn.Module, tmp_path: Path) -> None:
    network.train()(torch.rand((4, 1, 8, 8), generator=torch.Generator().manual_seed(0)))
    path = tmp_path / "some" / "folder" / "w.safetensors"
    zoo.save_weights(network, path, {"recipe": "none"})
    other = zoo.build("resnet_digits", seed=6)
    assert fingerprint_network(other) != fingerprint_network(network)
    assert zoo.load_weights(other, str(path)) == {"recipe": "none"}
    assert fingerprint_network(other) == fingerprint_network(network)
    assert other.training
    assert [file.name for file in path.parent.iterdir()] == ["w.safetensors"]


def test_tied_weights_survive_the_disk(tmp_path: Path) -> None:
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    zoo.save_weights(tied, tmp_path / "w.safetensors")
    first = fingerprint_network(tied)
    nn.init.zeros_(tied[0].weight)
    assert zoo.load_weights(tied, tmp_path / "w.safetensors") == {}
    assert fingerprint_network(tied) == first
    assert tied[1].weight is tied[0].weight


@pytest.mark.parametrize("suffix", ["pt", "pth"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {f"module.model.{name}": value for name, value in state.items()},
        lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
        lambda state: {"epoch": 3, "state_dict": {f"model.{name}": value for name, value in state.items()}},
        lambda state: {"model_state_dict": state, "optimizer": {}},
        lambda state: {name: value for name, value in state.items() if "num_batches" not in name},
    ],
    ids=["bare", "module", "module.model", "compiled", "checkpoint", "model_state_dict", "no counters"],
)
def test_state_dicts_of_other_tools_load(
    network: nn.Module, tmp_path: Path, suffix: str, wrap: Callable[[dict[str, torch.Tensor]], object]
) -> None:
    torch.save(wrap(network.state_dict()), tmp_path / f"w.{suffix}")
    other = zoo.build("resnet_digits", seed=6)
    assert zoo.load_weights(other, tmp_path / f"w.{suffix}") == {}
    assert fingerprint_network(other) == fingerprint_network(network)


def test_a_prefix_that_the_network_has_itself_stays(tmp_path: Path) -> None:
    def wrapper(seed: int) -> nn.Module:
        module = nn.Module()
        module.model = zoo.build("resnet_digits", seed=seed)
        return module

    saved, other = wrapper(1), wrapper(2)
    zoo.save_weights(saved, tmp_path / "w.safetensors")
    zoo.load_weights(other, tmp_path / "w.safetensors")
    assert fingerprint_network(other) == fingerprint_network(saved)


def refused(network: nn.Module, path: Path) -> str:
    """The one-line message; the network must be as it was."""
    before = fingerprint_network(network)
    with pytest.raises(SutureError) as caught:
        zoo.load_weights(network, path)
    assert fingerprint_network(network) == before
    message = str(caught.value)
    assert "\n" not in message
    assert str(path.name) in message
    return message


def test_mismatches_name_the_first_keys(network: nn.Module, tmp_path: Path) -> None:
    state = network.state_dict()
    del state["conv1.weight"]
    state["fc.weight"] = torch.zeros(12, 64)
    state.update({f"head{i}.weight": torch.zeros(1) for i in range(5)})
    torch.save(state, tmp_path / "w.pt")
    message = refused(network, tmp_path / "w.pt")
    assert "not fit the network; missing: conv1.weight; unexpected: head0.weight, head1.weight" in message
    assert "head2.weight and 2 more; wrong shape: fc.weight (file (12, 64), network (10, 64))" in message


def test_a_pickled_model_is_refused_with_the_way_out(network: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save(network, path)
    assert "holds a pickled model" in refused(network, path)
    assert "torch.save(model.state_dict(), path)" in refused(network, path)
    torch.save(network, path, _use_new_zipfile_serialization=False)
    assert "holds a pickled model" in refused(network, path)
    path.write_bytes(pickle.dumps(network, protocol=2))
    assert "holds a pickled model" in refused(network, path)


@pytest.mark.parametrize("content", [{"epoch": 3, "optimizer": {}}, [1, 2], {}])
def test_other_content_is_refused(network: nn.Module, tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pt")
    assert "holds no state dict of tensors" in refused(network, tmp_path / "w.pt")


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_broken_files_are_refused(network: nn.Module, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w.{suffix}"
    if suffix == "pt":
        torch.save(network.state_dict(), path)
    else:
        zoo.save_weights(network, path)
    whole = path.read_bytes()
    for content in (whole[:-50], whole[:1000], b"", b"hello world", b"\x80\x02", bytes(range(256))):
        path.write_bytes(content)
        assert f"not a whole .{suffix} file" in refused(network, path)


def test_missing_and_unknown_files_are_refused(network: nn.Module, tmp_path: Path) -> None:
    assert "no weights at" in refused(network, tmp_path / "none.safetensors")
    assert "no weights at" in refused(network, tmp_path)
    (tmp_path / "w.onnx").touch()
    assert "expected .safetensors, .pt, .pth or .bin" in refused(network, tmp_path / "w.onnx")


def test_what_cannot_be_written_says_so_and_leaves_nothing(network: nn.Module, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "taken.safetensors").mkdir()
    for path in (tmp_path / "file" / "w.safetensors", tmp_path / "taken.safetensors"):
        with pytest.raises(SutureError, match=f"cannot write {path}: "):
            zoo.save_weights(network, path)
    with pytest.raises(SutureError, match=r"saved as \.safetensors, got 'w\.pt'; write w\.safetensors"):
        zoo.save_weights(network, tmp_path / "w.pt")
    assert {entry.name for entry in tmp_path.iterdir()} == {"file", "taken.safetensors"}


def test_an_interrupted_save_keeps_the_old_file(
    network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.safetensors"
    zoo.save_weights(network, path)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(weights_module.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        zoo.save_weights(zoo.build("resnet_digits", seed=6), path)
    other = zoo.build("resnet_digits", seed=7)
    zoo.load_weights(other, path)
    assert fingerprint_network(other) == fingerprint_network(network)
    assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]


# Training by name


@pytest.fixture(scope="module")
def small() -> tuple[ImageSet, ImageSet]:
    return zoo.digits("train").subset(120), zoo.digits("test").subset(50)


def test_train_network_reports_what_it_did(small: tuple[ImageSet, ImageSet]) -> None:
    calls: list[tuple[str, int, int]] = []
    recipe = Recipe(epochs=2, lr=1e-2)
    network, report = zoo.train_network(
        "resnet_digits", 3, recipe, small, progress=lambda *call: calls.append(call)
    )
    assert calls == [("train", 1, 2), ("train", 2, 2)]
    assert report.recipe == dataclasses.replace(recipe, seed=3)
    assert (report.name, report.seed) == ("resnet_digits", 3)
    assert (report.train, report.test) == (small[0].name, small[1].name)
    assert len(report.history.losses) == 2
    assert report.fingerprint == fingerprint_network(network)
    assert report.seconds > 0
    assert not network.training
    with torch.no_grad():
        right = network(small[1].inputs).argmax(1) == small[1].labels
    assert report.accuracy == pytest.approx(float(right.float().mean()))


def test_train_network_is_its_seed(small: tuple[ImageSet, ImageSet]) -> None:
    def run(seed: int) -> str:
        return zoo.train_network("resnet_digits", seed, Recipe(epochs=1, crop=1), small)[1].fingerprint

    first = run(0)
    torch.rand(1)
    assert run(0) == first
    assert run(1) != first


def test_train_network_takes_channels_and_classes_from_the_data() -> None:
    colour = ImageSet(torch.rand(8, 3, 8, 8), torch.arange(8) % 4, 4, "colour")
    network, _ = zoo.train_network("resnet_digits", 0, Recipe(epochs=1), (colour, colour))
    assert network(colour.inputs).shape == (8, 4)


def test_train_network_refuses_sets_that_do_not_match(small: tuple[ImageSet, ImageSet]) -> None:
    colour = ImageSet(torch.rand(8, 3, 8, 8), torch.arange(8), 10, "colour")
    with pytest.raises(SutureError, match=r"got \(1, 8, 8\) of 10 and \(3, 8, 8\) of 10 classes"):
        zoo.train_network("resnet_digits", 0, Recipe(epochs=1), (small[0], colour))


def test_the_digits_recipe_reaches_its_accuracy() -> None:
    _, report = zoo.train_network("resnet_digits", 0)
    assert report.recipe == zoo.DIGITS_RECIPE
    assert report.accuracy >= 0.985


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_digits_recipe_is_reliable(seed: int) -> None:
    assert zoo.train_network("resnet_digits", seed)[1].accuracy >= 0.985
