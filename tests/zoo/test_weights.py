"""Weights on disk: saved and loaded, of other tools, broken or of another network."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from suture import zoo
from suture._base import SutureError, SutureWarning, fingerprint_network
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


ENDINGS = ("pt", "pth", "bin", "th", "ckpt", "pth.tar")


@pytest.mark.filterwarnings("ignore::suture._base.SutureWarning")
@pytest.mark.parametrize("suffix", ["pt", "th"])
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


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("suffix", ENDINGS)
def test_state_dicts_load_under_every_ending(network: nn.Module, tmp_path: Path, suffix: str,
                                             zipped: bool) -> None:
    path = tmp_path / f"w.{suffix}"
    torch.save({"state_dict": network.state_dict(), "best_prec1": 91.2}, path,
               _use_new_zipfile_serialization=zipped)
    other = zoo.build("resnet_digits", seed=6)
    zoo.load_weights(other, path)
    assert fingerprint_network(other) == fingerprint_network(network)
    whole = path.read_bytes()
    for cut in (1, len(whole) // 2, len(whole)):
        path.write_bytes(whole[:len(whole) - cut])
        refused(other, path)
    torch.save(network, path, _use_new_zipfile_serialization=zipped)
    assert "holds a pickled model" in refused(other, path)


def test_a_prefix_is_removed_with_a_note(network: nn.Module, tmp_path: Path) -> None:
    parallel = nn.DataParallel(network)
    torch.save({"ema": parallel.state_dict()}, tmp_path / "w.ckpt")
    other = zoo.build("resnet_digits", seed=6)
    with pytest.warns(SutureWarning, match=r"'module\.' was removed .* w\.ckpt"):
        zoo.load_weights(other, tmp_path / "w.ckpt")
    assert fingerprint_network(other) == fingerprint_network(network)


def test_of_several_state_dicts_the_trained_one_is_used_with_a_note(network: nn.Module,
                                                                    tmp_path: Path) -> None:
    average = zoo.build("resnet_digits", seed=7).state_dict()
    torch.save({"model_ema": average, "model": network.state_dict()}, tmp_path / "w.pth")
    other = zoo.build("resnet_digits", seed=6)
    with pytest.warns(SutureWarning, match=r"those under 'model'; it also holds 'model_ema'"):
        zoo.load_weights(other, tmp_path / "w.pth")
    assert fingerprint_network(other) == fingerprint_network(network)


ODD: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "complex": (lambda t: t.to(torch.complex64), "conv1.weight (file complex64, network float32)"),
    "integer": (lambda t: t.to(torch.int64), "wrong type: conv1.weight (file int64"),
    "8 bits": (lambda t: t.to(torch.int8), "wrong type: conv1.weight (file int8"),
    "bool": (lambda t: t > 0, "wrong type: conv1.weight (file bool"),
    "float of 8 bits": (lambda t: t.to(torch.float8_e4m3fn), "wrong type: conv1.weight (file float8"),
    "cut off": (lambda t: t[:3], "wrong shape: conv1.weight"),
    "flat": (lambda t: t.flatten(), "wrong shape: conv1.weight"),
    "NaN": (lambda t: t.index_fill(0, torch.tensor([0]), torch.nan), "NaN or inf: conv1.weight"),
    "inf": (lambda t: t - torch.inf, "NaN or inf: conv1.weight"),
    "too large": (lambda t: t.double() * 1e300, "NaN or inf: conv1.weight"),
    "sparse": (lambda t: t.to_sparse(), "no plain tensor: conv1.weight"),
    "no values": (lambda t: t.to("meta"), "no plain tensor: conv1.weight"),
}


@pytest.mark.parametrize("suffix", ["th", "safetensors"])
@pytest.mark.parametrize("odd", ODD)
def test_odd_tensors_are_refused(network: nn.Module, tmp_path: Path, odd: str, suffix: str) -> None:
    change, words = ODD[odd]
    state = network.state_dict()
    state["conv1.weight"] = change(state["conv1.weight"])
    path = tmp_path / f"w.{suffix}"
    if suffix == "th":
        torch.save(state, path)
    elif odd in ("sparse", "no values"):
        pytest.skip("safetensors cannot hold it")
    else:
        safetensors.torch.save_file(state, path)
    assert words in refused(network, path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_other_sizes_load(network: nn.Module, tmp_path: Path, dtype: torch.dtype) -> None:
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in network.state_dict().items()}
    torch.save(state, tmp_path / "w.pt")
    other = zoo.build("resnet_digits", seed=6)
    zoo.load_weights(other, tmp_path / "w.pt")
    assert torch.equal(other.conv1.weight, state["conv1.weight"].float())  # type: ignore[union-attr, arg-type]


class Masked(nn.Module):
    """A module with a mask of -inf, as causal attention has, and a mask of booleans."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.register_buffer("mask", torch.full((2, 2), -torch.inf).triu(1))
        self.register_buffer("kept", torch.ones(2, dtype=torch.bool))


def test_masks_may_be_infinite_and_of_bytes(tmp_path: Path) -> None:
    state = Masked().state_dict() | {"kept": torch.tensor([1, 0], dtype=torch.uint8)}
    torch.save(state, tmp_path / "w.pt")
    made = Masked()
    zoo.load_weights(made, tmp_path / "w.pt")
    assert made.kept.tolist() == [True, False]  # type: ignore[operator, union-attr]
    torch.save(state | {"kept": torch.tensor([2, 0])}, tmp_path / "w.pt")
    assert "out of range: kept for bool" in refused(made, tmp_path / "w.pt")


def test_unequal_weights_of_one_tensor_are_refused(tmp_path: Path) -> None:
    made = nn.ModuleDict({"one": nn.Linear(3, 3), "two": nn.Linear(3, 3)})
    torch.save(made.state_dict(), tmp_path / "w.pt")
    made["two"].weight = made["one"].weight
    assert "one.weight and two.weight" in refused(made, tmp_path / "w.pt")


def test_networks_without_values_are_refused(network: nn.Module, tmp_path: Path) -> None:
    torch.save(network.state_dict(), tmp_path / "w.pt")
    with torch.device("meta"):
        empty = zoo.build("resnet_digits")
    with pytest.raises(SutureError, match=r"no values in the network: conv1\.weight"):
        zoo.load_weights(empty, tmp_path / "w.pt")
    torch.save({"weight": torch.ones(3, 2), "bias": torch.ones(3)}, tmp_path / "w.pt")
    with pytest.raises(SutureError, match="no values in the network: weight, bias"):
        zoo.load_weights(nn.LazyLinear(3), tmp_path / "w.pt")


def test_a_changed_byte_in_an_archive_of_torch_is_found(network: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save(network.state_dict(), path)
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(bytes(whole))
    assert "CRC" in refused(network, path)
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(network.state_dict(), path)
    finally:
        torch.serialization.set_crc32_options(True)
    zoo.load_weights(network, path)


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
    wanted = "expected .safetensors, .pt, .pth, .bin, .th, .ckpt or .tar, got w.onnx"
    assert wanted in refused(network, tmp_path / "w.onnx")


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
