"""The inputs of a command: networks and data by name, prepared as each network needs them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import suture
from suture import Prepared, SutureError, zoo
from suture.cli.inputs import adjust_preprocessing, make_example_inputs
from suture.data import ImagePreprocessing, sources
from suture.specs import LoadedNetwork, prepare_data
from tests.support import tiny
from tests.support.tiny import rgb

Command = Callable[..., tuple[int, str, str]]
BYTES = "tests.cli.test_inputs:bytes_of_images"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Class folders of colour images, 12 x 12, and the same as arrays."""
    rng = np.random.default_rng(0)
    for split, n in (("train", 24), ("test", 12)):
        x, y = rng.integers(0, 255, (n, 12, 12, 3), np.uint8), np.arange(n) % 3
        (tmp_path / "arrays").mkdir(exist_ok=True)
        np.savez(tmp_path / "arrays" / f"{split}.npz", x=x, y=y)
        for k, (one, label) in enumerate(zip(x, y, strict=True)):
            place = tmp_path / "images" / split / "abc"[label] / f"{k:02}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(one).save(place)
    return tmp_path / "images"


def compare(command: Command, *more: str) -> tuple[int, str, str]:
    return command("compare", "tests.support.tiny:rgb", "--methods", "dm", "--ood", "none",
                   "--device", "cpu", *more)


def test_a_folder_of_images_is_prepared_as_the_command_says(command: Command, images: Path) -> None:
    code, _, err = compare(command, "--data", "images", "--source-input", "size=8,mean=0.5,std=0.5",
                           "--target-input", "size=8", "--out", "out")
    assert (code, err) == (0, "")
    result = suture.load("out")
    made = [p["prepared"] for p in result.meta["data"].values()]
    assert made == [[repr(ImagePreprocessing(size=(8, 8), mean=(0.5,), std=(0.5,))),
                     repr(ImagePreprocessing(size=(8, 8)))]] * 2
    train, test = sources.open_pair(images)
    by_hand = suture.compare(rgb(), rgb(),
                             *(Prepared(d, ImagePreprocessing(size=(8, 8), mean=(0.5,), std=(0.5,)),
                                        ImagePreprocessing(size=(8, 8))) for d in (train, test)),
                             methods=["dm"], ood=None, device="cpu")
    assert by_hand.table["value"].to_numpy() == pytest.approx(result.table["value"].to_numpy(), nan_ok=True)


def test_sizes_draw_subsets_and_columns_are_handed_on(command: Command, images: Path) -> None:
    code, out, err = compare(command, "--data", "images", "--source-input", "size=8", "--train-size", "9",
                             "--test-size", "6", "--out", "out")
    assert (code, err) == (0, "")
    assert "9 examples to fit, 6 to test" in out
    assert suture.load("out").meta["data"]["test"]["examples"] == 6
    code, _, err = compare(command, "--data", "images", "--source-input", "size=8", "--label-column", "other")
    assert code == 2
    assert "other" in err


def test_a_dry_run_says_what_would_be_done_and_does_nothing(command: Command, tmp_path: Path) -> None:
    code, out, err = command("compare", "zoo:resnet_digits", "--dry-run", "--device", "cpu", "--out", "out",
                             "--epochs", "2")
    assert (code, err) == (0, "")
    for words in ("layer3.1", "map 64x2x2", "1,297 examples to fit, 500 to test",
                  "sums of all cells", "tlm "):
        assert words in out
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_training_a_zoo_network_on_images_by_path(command: Command, images: Path) -> None:
    code, out, err = command("train", "zoo:resnet20", "--data", "images", "--epochs", "1", "--batch-size",
                             "12", "--out", "w.safetensors")
    assert (code, err) == (0, "")
    assert "of 12 test images right" in out
    code, out, err = command("compare", "zoo:resnet20", "--source-weights", "w.safetensors", "--data",
                             "images", "--methods", "none", "--sites", "layer1.0,layer2.0", "--device", "cpu",
                             "--out", "out")
    assert (code, err) == (0, "")


def test_the_same_images_from_a_folder_and_from_arrays_give_the_same_numbers(command: Command,
                                                                             images: Path) -> None:
    for data, out in (("images", "one"), ("arrays", "two")):
        code, _, err = compare(command, "--data", data, "--source-input", "size=8", "--out", out)
        assert (code, err) == (0, "")
    one, two = suture.load("one"), suture.load("two")
    for part in ("fit", "test"):
        assert one.meta["data"][part]["content"] == two.meta["data"][part]["content"]
    assert one.table["measure"].equals(two.table["measure"])
    values = ~one.table["measure"].isin(["dm.residual_batches"])  # a mean over batches knows their order
    for column in ("value", "n"):
        assert one.table[column][values].to_numpy() == pytest.approx(two.table[column][values].to_numpy(),
                                                                     rel=1e-4, abs=1e-5, nan_ok=True)


class Spelled:
    """A preprocessing that a network brings."""

    def __call__(self, raw: Tensor) -> Tensor:
        return raw


def test_data_of_the_users_own_code_are_not_prepared_unless_told() -> None:
    own, mine = (tiny.images(), tiny.labels()), zoo.digits("test")
    assert prepare_data(own, Spelled(), Spelled()) is own
    assert isinstance(prepare_data(own, Spelled(), Spelled(), always=True), Prepared)
    assert isinstance(prepare_data(mine, None, None), Prepared)


def test_a_length_is_for_networks_with_a_tokenizer() -> None:
    how = ImagePreprocessing()
    assert adjust_preprocessing(how) is how
    assert adjust_preprocessing(how, "raw") is None
    assert adjust_preprocessing(how, "size=3") == ImagePreprocessing(size=(3, 3))
    for options in ({"length": 8}, {"mask_rate": 0.1}):
        with pytest.raises(SutureError, match="tokenizer"):
            adjust_preprocessing(how, **options)


def test_example_inputs_are_what_the_network_asks_for() -> None:
    of = LoadedNetwork(rgb(), None, "mine:net")
    assert make_example_inputs(of, None, ImagePreprocessing(size=(5, 6), channels=1)).shape == (4, 1, 5, 6)
    assert make_example_inputs(of, None, ImagePreprocessing(size=(5, 6))).shape == (4, 3, 5, 6)
    assert make_example_inputs(of, (tiny.images(9), tiny.labels(9)), None).shape == (4, 2, 8, 8)


def of_ten() -> nn.Module:
    """A network for colour images of 8x8 pixels and ten classes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(),
                             nn.Flatten(), nn.Linear(144, 10))


def make_checkpoint(made: nn.Module, place: str, change: Callable[[Tensor], Tensor] = lambda t: t,
                    prefix: str = "") -> None:
    """A checkpoint as training scripts write it, with the first weight changed."""
    state = made.state_dict()
    first = next(iter(state))
    state[first] = change(state[first])
    torch.save({"state_dict": {prefix + k: v for k, v in state.items()}, "best_prec1": 91.2}, place)


def test_a_checkpoint_and_a_mean_for_each_channel_as_typed(command: Command) -> None:
    """Grey digits become as many channels as the mean has numbers."""
    make_checkpoint(of_ten(), "net.th", lambda t: t + 1, prefix="module.")
    code, out, err = command("compare", "tests.cli.test_inputs:of_ten", "--source-weights", "net.th",
                             "--source-input", "mean=0.485,0.456,0.406", "--methods", "dm", "--ood", "none",
                             "--train-size", "40", "--test-size", "20", "--device", "cpu")
    assert (code, err) == (0, "")
    assert "note: 'module.' was removed from all names of weights in net.th" in " ".join(out.split())
    wanted = of_ten()
    with torch.no_grad():
        next(iter(wanted.parameters())).add_(1)
    how = ImagePreprocessing(mean=(0.485, 0.456, 0.406), channels=3)
    train, test = zoo.digits("train").subset(40), zoo.digits("test").subset(20)
    data = [Prepared(d, how, how) for d in (train, test)]
    by_hand = suture.compare(wanted, None, *data, methods=["dm"], ood=None, device="cpu")
    found = suture.load("suture-result").table["value"].to_numpy()
    assert by_hand.table["value"].to_numpy() == pytest.approx(found, nan_ok=True)


@pytest.mark.parametrize("side", ["source", "target"])
def test_bytes_that_reach_a_network_of_floats_name_the_option(command: Command, side: str) -> None:
    given = {"source": "mean=0.5", "target": "mean=0.5"} | {side: "raw"}
    code, _, err = compare(command, "tests.support.tiny:rgb", "--data", BYTES,
                           *(word for name, text in given.items() for word in (f"--{name}-input", text)))
    assert code == 2
    assert f"the inputs are bytes (uint8): write --{side}-input" in err
    with pytest.raises(SutureError, match=r"--source-input .*or Prepared\(data, ImagePreprocessing"):
        suture.dry_run(rgb(), data=bytes_of_images()[0], device="cpu")


def bytes_of_images() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    x = torch.randint(0, 256, (24, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return (x, torch.arange(24) % 3), (x[:12], torch.arange(12) % 3)


@pytest.mark.parametrize(("change", "words"), [
    (lambda t: t.to(torch.complex64), "complex64"), (lambda t: t.to(torch.int64), "int64"),
    (lambda t: t[:1], "wrong shape"), (lambda t: t * torch.nan, "NaN or inf")])
@pytest.mark.parametrize("ending", ["th", "ckpt"])
def test_odd_weights_end_the_command(command: Command, ending: str, change: Callable[[Tensor], Tensor],
                                     words: str) -> None:
    make_checkpoint(rgb(), f"net.{ending}", change)
    for name in ("compare", "layers"):
        flag = "--source-weights" if name == "compare" else "--weights"
        code, _, err = command(name, "tests.support.tiny:rgb", flag, f"net.{ending}", "--data", BYTES)
        assert code == 2
        assert words in err
        assert err.count("\n") == 1


def test_what_could_not_be_checked_is_a_note_on_one_line(command: Command) -> None:
    np.save("x.npy", np.random.default_rng(0).normal(size=(20, 2)))
    assert command("indices", "x.npy", "x.npy", "--save", "m.safetensors")[0] == 0
    save_file(load_file("m.safetensors"), "m.safetensors",
              {"format": "suture.moments/1", "precision": "torch.float64", "n": "[20]"})
    code, _, err = command("indices", "m.safetensors", "--moments", "--indices", "cka")
    assert (code, err.count("\n")) == (0, 1)
    assert err.startswith("note: m.safetensors was written by an early version without a digest")
