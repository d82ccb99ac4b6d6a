"""Weights on disk: saved and loaded, of other tools, broken or of another network."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from suture import zoo
from suture._base import SutureError, fingerprint_network
from tests.support.networks import same_weights


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


def test_a_changed_weight_in_a_file_is_found(network: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    zoo.save_weights(network, path)
    whole = bytearray(path.read_bytes())
    whole[-50] ^= 1
    path.write_bytes(bytes(whole))
    assert "damaged" in refused(network, path)


def test_plain_safetensors_load_with_their_metadata(network: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(network.state_dict(), path, {"format": "pt", "about": "theirs"})
    other = zoo.build("resnet_digits", seed=6)
    assert zoo.load_weights(other, path) == {"format": "pt", "about": "theirs"}
    assert fingerprint_network(other) == fingerprint_network(network)


def test_missing_and_unknown_files_are_refused(network: nn.Module, tmp_path: Path) -> None:
    assert "no weights at" in refused(network, tmp_path / "none.safetensors")
    assert "no weights at" in refused(network, tmp_path)
    (tmp_path / "w.onnx").touch()
    assert "expected .safetensors, .pt, .pth, .bin, .th, .ckpt or .tar, got w.onnx" in refused(network, tmp_path / "w.onnx")


def test_what_cannot_be_written_says_so_and_leaves_nothing(network: nn.Module, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "taken.safetensors").mkdir()
    for path in (tmp_path / "file" / "w.safetensors", tmp_path / "taken.safetensors"):
        with pytest.raises(SutureError, match=f"cannot write '{path}': "):
            zoo.save_weights(network, path)
    with pytest.raises(SutureError, match=r"got 'w\.pt'; write w\.safetensors"):
        zoo.save_weights(network, tmp_path / "w.pt")
    assert {entry.name for entry in tmp_path.iterdir()} == {"file", "taken.safetensors"}


def test_an_interrupted_save_keeps_the_old_file(
    network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.safetensors"
    zoo.save_weights(network, path)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        zoo.save_weights(zoo.build("resnet_digits", seed=6), path)
    other = zoo.build("resnet_digits", seed=7)
    zoo.load_weights(other, path)
    assert fingerprint_network(other) == fingerprint_network(network)
    assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]


@pytest.mark.parametrize("left_out", ["one.weight", "two.weight"])
def test_of_weights_under_two_names_one_is_enough(left_out: str, tmp_path: Path) -> None:
    def tied() -> nn.ModuleDict:
        made = nn.ModuleDict({"one": nn.Linear(3, 3), "two": nn.Linear(3, 3)})
        made["two"].weight = made["one"].weight
        return made

    wanted = tied()
    torch.save({k: v for k, v in wanted.state_dict().items() if k != left_out}, tmp_path / "w.pt")
    made = tied()
    zoo.load_weights(made, tmp_path / "w.pt")
    assert same_weights(made, wanted)
    torch.save({k: v for k, v in wanted.state_dict().items() if "weight" not in k}, tmp_path / "w.pt")
    with pytest.raises(SutureError, match=r"missing: one.weight, two.weight"):
        zoo.load_weights(made, tmp_path / "w.pt")
