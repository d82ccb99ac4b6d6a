"""Image processors of transformers become this package's preprocessing."""

from __future__ import annotations

import importlib.machinery
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from suture.data import ImagePreprocessing
from suture.specs import image_processors as processors
from tests.support.pictures import photo

PROCESSORS: list[tuple[str, str, dict[str, Any]]] = [
    ("vit", "ViTImageProcessorPil", {}),
    ("vit", "ViTImageProcessorPil", {"size": {"height": 48, "width": 32}}),
    ("vit", "ViTImageProcessorPil", {"do_normalize": False}),
    ("vit", "ViTImageProcessorPil", {"do_resize": False}),
    ("vit", "ViTImageProcessorPil",
     {"do_rescale": False, "image_mean": [100.0] * 3, "image_std": [50.0] * 3}),
    ("vit", "ViTImageProcessorPil", {"do_rescale": False, "do_normalize": False}),
    ("vit", "ViTImageProcessorPil", {"rescale_factor": 1 / 127.5, "resample": 3}),
    ("clip", "CLIPImageProcessorPil", {}),
    ("clip", "CLIPImageProcessorPil",
     {"size": {"shortest_edge": 32}, "crop_size": {"height": 28, "width": 28}}),
    ("deit", "DeiTImageProcessorPil", {}), ("siglip", "SiglipImageProcessorPil", {}),
    ("convnext", "ConvNextImageProcessorPil", {}),
    ("convnext", "ConvNextImageProcessorPil", {"size": {"shortest_edge": 32}}),
    ("levit", "LevitImageProcessorPil", {}),
    ("poolformer", "PoolFormerImageProcessorPil", {}), ("bit", "BitImageProcessorPil", {}),
    ("mobilenet_v2", "MobileNetV2ImageProcessorPil", {}), ("beit", "BeitImageProcessorPil", {}),
]


@pytest.mark.parametrize(("module", "name", "options"), PROCESSORS, ids=lambda v: "" if v == {} else str(v))
@pytest.mark.parametrize("image", [(60, 60), (60, 81), (80, 60)], ids=str)
def test_images_are_prepared_as_by_their_own_processor(module: str, name: str, options: dict[str, Any],
                                                       image: tuple[int, int], tmp_path: Path) -> None:
    theirs = getattr(importlib.import_module(f"transformers.models.{module}.image_processing_pil_{module}"),
                     name)(**options)
    theirs.save_pretrained(tmp_path)
    processor = json.loads((tmp_path / "preprocessor_config.json").read_text())
    ours, notes = processors.read_image_preprocessing(processor, SimpleNamespace(num_channels=3))
    assert ours is not None
    assert notes == ()
    x = photo(*image)
    wanted = theirs(Image.fromarray(x.numpy().transpose(1, 2, 0)), return_tensors="pt")["pixel_values"]
    made = ours(x[None])
    assert made.shape == wanted.shape
    level = 1 / 255 / min(ours.std or (1.0,))
    assert (made - wanted).abs().max() <= 2.02 * level
    assert ((made - wanted).abs() > 0.5 * level).float().mean() < 0.03


@pytest.mark.parametrize(("processor", "wanted"), [
    ({"feature_extractor_type": "ViTFeatureExtractor", "size": 32, "resample": 2, "do_normalize": True,
      "image_mean": [0.5] * 3, "image_std": [0.25] * 3},
     ImagePreprocessing((32, 32), (0.5,) * 3, (0.25,) * 3, 3, fit="squash", corner="floor")),
    ({"feature_extractor_type": "CLIPFeatureExtractor", "size": 32, "crop_size": 28, "do_center_crop": True,
      "resample": 3},
     ImagePreprocessing((28, 28), channels=3, interpolation="bicubic", crop=28 / 32, corner="floor")),
    ({"feature_extractor_type": "DeiTFeatureExtractor", "size": 32, "crop_size": 28, "do_center_crop": True},
     ImagePreprocessing((28, 28), channels=3, crop=28 / 32, fit="squash", corner="floor")),
    ({"size": [24, 32]}, ImagePreprocessing((24, 32), channels=3, fit="squash", corner="floor")),
])
def test_older_spellings(processor: dict[str, Any], wanted: ImagePreprocessing) -> None:
    assert processors.read_image_preprocessing(processor, SimpleNamespace(num_channels=3)) == (wanted, ())


@pytest.mark.parametrize(("processor", "words"), [
    ({"size": 32, "resample": 0}, "resample 0"), ({"size": 32, "do_pad": True}, "do_pad"),
    ({"size": {"longest_edge": 32}}, "size {'longest_edge': 32}"),
    ({"do_resize": False, "do_center_crop": True, "crop_size": 8}, "a crop without resizing"),
    ({"size": {"shortest_edge": 24}, "do_center_crop": True, "crop_size": 32}, "beside crop_size 32"),
    ({"size": 32, "do_normalize": True}, "KeyError 'image_mean'"), ({}, "size None"),
    ({"size": 32, "image_mean": [0.5], "image_std": [0.0]}, "std"),
])
def test_processors_that_cannot_be_followed_are_told(processor: dict[str, Any], words: str) -> None:
    made, notes = processors.read_image_preprocessing(processor, SimpleNamespace(num_channels=3))
    assert made is None
    assert words in notes[0]


def test_proportions_that_a_processor_keeps() -> None:
    made, notes = processors.read_image_preprocessing({"size": {"shortest_edge": 24}}, SimpleNamespace())
    assert made == ImagePreprocessing((24, 24), corner="floor")
    assert "crops them to squares" in notes[0]


@pytest.mark.parametrize(("config", "wanted"), [
    (SimpleNamespace(image_size=16, num_channels=1), ImagePreprocessing((16, 16), channels=1, fit="squash")),
    (SimpleNamespace(image_size=[16, 24]), ImagePreprocessing((16, 24), fit="squash")),
    (SimpleNamespace(vision_config=SimpleNamespace(image_size=8, num_channels=3)),
     ImagePreprocessing((8, 8), channels=3, fit="squash")),
    (SimpleNamespace(), ImagePreprocessing(fit="squash")),
])
def test_without_a_processor_the_config_decides(config: Any, wanted: ImagePreprocessing) -> None:
    assert processors.read_image_preprocessing(None, config)[0] == wanted
