"""Networks of torchvision and timm by spec, their preprocessing against the libraries' own; nothing is
downloaded."""

from __future__ import annotations

import functools
import socket
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image

from suture import SutureError, specs
from suture.data import ImagePreprocessing
from suture.specs import networks
from suture.specs.network_spec import ParsedSpec

LIKE = SimpleNamespace(classes=5, channels=3)
SMALL = ["torchvision:squeezenet1_1", "timm:test_resnet", "timm:test_vit"]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def photo(height: int, width: int, channels: int = 3) -> torch.Tensor:
    coarse = np.random.default_rng(0).integers(0, 256, (channels, height // 4 + 1, width // 4 + 1),
                                               dtype=np.uint8)
    return torch.from_numpy(np.kron(coarse, np.ones((1, 4, 4), np.uint8))[:, :height, :width].copy())


def agrees(preprocessing: ImagePreprocessing, theirs: Any, image: tuple[int, int]) -> None:
    """Within two levels of 255, and fewer than 3 % of values differ at all."""
    x = photo(*image)
    wanted, made = theirs(Image.fromarray(x.numpy().transpose(1, 2, 0))), preprocessing(x[None])[0]
    assert made.shape == wanted.shape
    level = 1 / 255 / min(preprocessing.std or (1.0,))
    assert (made - wanted).abs().max() <= 2.02 * level
    assert ((made - wanted).abs() > 0.5 * level).float().mean() < 0.03


def refused(spec: str) -> str:
    with pytest.raises(SutureError) as error:
        specs.build_network(spec)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("spec", SMALL)
def test_classes_seed_and_input_fit_together(spec: str) -> None:
    before = torch.get_rng_state()
    made, again, else_ = (specs.build_network(spec, like=LIKE, seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    one, two, three = (n.network.state_dict() for n in (made, again, else_))
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert any(not torch.equal(one[k], three[k]) for k in one)
    assert made.preprocessing is not None
    for channels in (1, 3):
        assert made.network.eval()(made.preprocessing(photo(40, 56, channels)[None])).shape == (1, 5)
    assert made.notes == (f"{spec} has random weights (seed 1); give trained ones as weights",)
    assert specs.build_network(spec).network.eval()(made.preprocessing(photo(40, 56)[None])).shape == (1,
                                                                                                       1000)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_channels_of_timm_are_the_datas(channels: int) -> None:
    made = specs.build_network("timm:test_resnet", like=SimpleNamespace(classes=5, channels=channels))
    assert made.preprocessing is not None
    assert made.network.eval()(made.preprocessing(photo(40, 56, channels)[None])).shape == (1, 5)
    assert len(made.preprocessing.mean) == 1


@pytest.mark.parametrize("spec", SMALL)
def test_weights_are_loaded(spec: str, tmp_path: Any) -> None:
    wanted = specs.build_network(spec, seed=5).network
    torch.save({"state_dict": {f"module.{k}": v for k, v in wanted.state_dict().items()}}, tmp_path / "w.pth")
    made = specs.build_network(spec, weights=tmp_path / "w.pth")
    assert all(torch.equal(a, b) for a, b in zip(made.network.parameters(), wanted.parameters(), strict=True))
    assert all("module." in note for note in made.notes)
    with pytest.raises(SutureError, match="the network was made for the data's 5 classes and 3 channels"):
        specs.build_network(spec, weights=tmp_path / "w.pth", like=LIKE)


@pytest.mark.parametrize("image", [(300, 300), (300, 401), (333, 250), (32, 32)], ids=str)
def test_images_are_prepared_as_by_resnet18s_own_transforms(image: tuple[int, int]) -> None:
    made = specs.build_network("torchvision:resnet18").preprocessing
    assert isinstance(made, ImagePreprocessing)
    agrees(made, torchvision.models.ResNet18_Weights.DEFAULT.transforms(), image)


@functools.cache
def transforms_of_torchvision() -> dict[str, Any]:
    """By what they do, a network for each."""
    models = torchvision.models
    found: dict[str, Any] = {}
    for name in models.list_models(module=models):
        theirs = models.get_model_weights(name).DEFAULT.transforms()
        found.setdefault(str(theirs), (name, theirs))
    return dict(found.values())


@pytest.mark.parametrize("name", list(transforms_of_torchvision()))
def test_images_are_prepared_as_by_every_transform_of_torchvision(name: str) -> None:
    models = torchvision.models
    made, notes = networks._find_torchvision_preprocessing(models, ParsedSpec(name, name),
                                                           torch.nn.Identity())
    assert made is not None
    assert notes == ()
    for image in ((300, 401), (250, 250)):
        agrees(made, transforms_of_torchvision()[name], image)


@pytest.mark.parametrize("name",
                         ["test_vit", "test_resnet", "test_efficientnet", "vit_tiny_patch16_224", "resnet18",
                          "resnet18.tv_in1k", "vit_tiny_r_s16_p8_224", "levit_128s", "convit_tiny",
                          "deit_tiny_patch16_224", "vit_base_patch32_clip_224.laion2b_ft_in12k_in1k"])
@pytest.mark.parametrize("image", [(300, 300), (300, 401), (333, 250)], ids=str)
def test_images_are_prepared_as_by_timm(name: str, image: tuple[int, int]) -> None:
    config = timm.data.resolve_data_config({}, pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    made, notes = networks._find_timm_preprocessing(config, ParsedSpec(name, name))
    assert made is not None
    assert notes == ()
    agrees(made, timm.data.create_transform(**config), image)


@pytest.mark.parametrize("config", [
    {"crop_mode": "squash", "crop_pct": 1.0}, {"crop_mode": "squash", "crop_pct": 0.9},
    {"crop_mode": "center", "crop_pct": 0.95, "input_size": (3, 96, 64)},
    {"crop_mode": "squash", "crop_pct": 0.95, "input_size": (3, 96, 64)},
])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
# Not narrower ones: Pillow 13 begins with the height there, earlier versions and suture with the width.
@pytest.mark.parametrize("image", [(300, 300), (300, 401), (333, 250), (77, 120)], ids=str)
def test_images_are_prepared_as_by_timms_other_modes(config: dict[str, Any], interpolation: str,
                                                     image: tuple[int, int]) -> None:
    whole = ({"input_size": (3, 64, 64), "mean": (0.5,) * 3, "std": (0.5,) * 3,
              "interpolation": interpolation} | config)
    made, _ = networks._find_timm_preprocessing(whole, ParsedSpec("timm:x", "x"))
    assert made is not None
    agrees(made, timm.data.create_transform(**whole), image)


@pytest.mark.parametrize("config", [{"crop_mode": "border"}, {"interpolation": "lanczos"}])
def test_what_timm_does_and_suture_does_not_is_told(config: dict[str, Any]) -> None:
    whole = {"input_size": (3, 64, 64), "mean": (0.5,), "std": (0.5,), "interpolation": "bicubic",
             "crop_pct": 1.0, "crop_mode": "center"} | config
    made, notes = networks._find_timm_preprocessing(whole, ParsedSpec("timm:x", "x"))
    assert made is None
    assert next(iter(config.values())) in notes[0]


def test_transforms_that_are_no_classification_are_told() -> None:
    made = specs.build_network("torchvision:lraspp_mobilenet_v3_large", like=LIKE)
    assert made.preprocessing is None
    assert "SemanticSegmentation" in made.notes[-1]


def test_a_network_that_is_made_smaller_than_its_published_weights() -> None:
    made, _ = networks._find_torchvision_preprocessing(
        torchvision.models, ParsedSpec("torchvision:vit_h_14", "vit_h_14"), SimpleNamespace(image_size=224))
    assert made is not None
    assert made.size == (224, 224)


@pytest.mark.parametrize(("spec", "words"), [
    ("torchvision:resnet19", "nearest: resnet1"), ("torchvision:resnet18x", "unknown network of torchvision"),
    ("timm:vit_tinny_patch16_224", "nearest: vit_tiny_patch16_224"),
    ("timm:hf-hub:timm/resnet18.a1_in1k", "unknown"),
    ("timm:local-dir:/tmp", "unknown"), ("timm:resnet18.a_tag", "timm:resnet18.a_tag cannot be made"),
    ("resnet18", "write zoo:resnet18 or torchvision:resnet18 or timm:resnet18"),
    ("vit_tiny_patch16_224", "write timm:vit_tiny_patch16_224"),
    ("vit_tiny_patch16_22", "nearest: timm:vit_tiny_patch16_2"),
    ("torchvison:resnet18", "write torchvision:resnet18"), ("hf:some/vit", "write pip install 'suture[hf]'"),
])
def test_what_is_no_network(spec: str, words: str) -> None:
    assert words in refused(spec)


def test_a_network_that_its_library_cannot_make() -> None:
    with pytest.raises(SutureError, match="timm:test_vit cannot be made: "):
        specs.build_network("timm:test_vit", like=SimpleNamespace(classes=2.5, channels=3))


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder) -> None:
    for spec in ("torchvision:googlenet", "timm:test_vit"):
        specs.build_network(spec, like=LIKE)
    assert capfd.readouterr() == ("", "")
    assert len(recwarn) == 0
