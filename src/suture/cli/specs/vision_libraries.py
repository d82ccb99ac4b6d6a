"""Networks of torchvision and timm with random weights, and the preprocessing of their published weights."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from suture._base import SutureError, import_optional, make_unknown_error
from suture.cli.specs.network_spec import (
    FoundPreprocessing,
    LoadedNetwork,
    ParsedSpec,
    build_quietly,
    note_unsupported,
)
from suture.data import ImagePreprocessing


def list_names(kind: str) -> list[str]:
    """Return the networks of ``"torchvision"`` (for classification) or ``"timm"``; [] without the library."""
    try:
        if kind == "timm":
            return list(import_optional("timm", "vision", kind).list_models())
        models = import_optional("torchvision.models", "vision", kind)
        return list(models.list_models(module=models))
    except SutureError:
        return []


def build_torchvision(parsed: ParsedSpec) -> LoadedNetwork:
    """Build ``torchvision:NAME``, with three channels as in all its networks."""
    models = import_optional("torchvision.models", "vision", parsed.spec)
    if parsed.name not in models.list_models():
        raise make_unknown_error("network of torchvision", parsed.name, list_names("torchvision"))
    options: dict[str, Any] = {"weights": None}
    if "weights_backbone" in inspect.signature(models.get_model_builder(parsed.name)).parameters:
        options["weights_backbone"] = None  # else some networks download the weights of their backbone
    if parsed.classes is not None:
        options["num_classes"] = parsed.classes
    with build_quietly(parsed):
        made = models.get_model(parsed.name, **options)
    preprocessing, notes = _find_torchvision_preprocessing(models, parsed, made)
    return LoadedNetwork(made, preprocessing, parsed.spec, parsed.notes + notes)


def _find_torchvision_preprocessing(models: Any, parsed: ParsedSpec, made: nn.Module) -> FoundPreprocessing:
    transforms = models.get_model_weights(parsed.name).DEFAULT.transforms()
    if type(transforms).__name__ != "ImageClassification":
        return note_unsupported(f"{type(transforms).__name__} of {parsed.spec}")
    # vit_h_14's published weights need larger images than the network without them.
    side = getattr(made, "image_size", transforms.crop_size[0])
    return ImagePreprocessing((side, side), tuple(transforms.mean), tuple(transforms.std), 3,
                              transforms.interpolation.value,
                              transforms.crop_size[0] / transforms.resize_size[0]), ()


def build_timm(parsed: ParsedSpec) -> LoadedNetwork:
    """Build ``timm:NAME`` or ``timm:NAME.TAG``; a tag decides the preprocessing."""
    library = import_optional("timm", "vision", parsed.spec)
    if not library.is_model(parsed.name):
        raise make_unknown_error("network of timm", parsed.name, library.list_models())
    with build_quietly(parsed):
        made = library.create_model(parsed.name, pretrained=False,
                                    **parsed.list_sizes("num_classes", "in_chans"))
    preprocessing, notes = _find_timm_preprocessing(library.data.resolve_data_config({}, model=made), parsed)
    return LoadedNetwork(made, preprocessing, parsed.spec, parsed.notes + notes)


def _find_timm_preprocessing(config: dict[str, Any], parsed: ParsedSpec) -> FoundPreprocessing:
    fit: Any = {"center": "crop", "squash": "squash"}.get(config["crop_mode"])
    if fit is None or config["interpolation"] not in ("bilinear", "bicubic"):
        return note_unsupported(f"crop_mode {config['crop_mode']} and interpolation "
                                f"{config['interpolation']} of {parsed.spec}")
    channels = parsed.channels or config["input_size"][0]
    mean, std = (tuple(v) if len(v) == channels else (sum(v) / len(v),)
                 for v in (config["mean"], config["std"]))
    return ImagePreprocessing(tuple(config["input_size"][1:]), mean, std, channels, config["interpolation"],
                              config["crop_pct"], fit), ()
