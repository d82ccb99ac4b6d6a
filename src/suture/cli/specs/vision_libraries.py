"""Networks of torchvision and timm with random weights, and the preprocessing of their published weights."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

from torch import nn

from suture._base import SutureError, import_optional, make_unknown_error, seed_torch
from suture.cli.specs.network_spec import LoadedNetwork, ParsedSpec, report_build_errors
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
    """Build ``torchvision:NAME``, with three channels as in all its networks.

    Raises:
        SutureError: no such network, or it cannot be made.
    """
    models = import_optional("torchvision.models", "vision", parsed.spec)
    if parsed.name not in models.list_models():
        raise make_unknown_error("network of torchvision", parsed.name, list_names("torchvision"))
    known = inspect.signature(models.get_model_builder(parsed.name)).parameters
    # Some networks download the weights of their backbone unless this option forbids it.
    options: dict[str, Any] = ({"weights": None}
                               | ({"weights_backbone": None} if "weights_backbone" in known else {}))
    if parsed.classes is not None:
        options["num_classes"] = parsed.classes
    with report_build_errors(parsed.spec), warnings.catch_warnings(), seed_torch(parsed.seed):
        warnings.simplefilter("ignore")
        made = models.get_model(parsed.name, **options)
    preprocessing, notes = _find_torchvision_preprocessing(models, parsed, made)
    return LoadedNetwork(made, preprocessing, parsed.spec, parsed.notes + notes)


def _find_torchvision_preprocessing(models: Any, parsed: ParsedSpec,
                                    made: nn.Module) -> tuple[ImagePreprocessing | None, tuple[str, ...]]:
    transforms = models.get_model_weights(parsed.name).DEFAULT.transforms()
    if type(transforms).__name__ != "ImageClassification":
        return None, (f"{parsed.spec} comes with {type(transforms).__name__}, which suture does not do; the "
                      "data must be what the network takes",)
    # vit_h_14's published weights need larger images than the network without them.
    side = getattr(made, "image_size", transforms.crop_size[0])
    return ImagePreprocessing((side, side), tuple(transforms.mean), tuple(transforms.std), 3,
                              transforms.interpolation.value,
                              transforms.crop_size[0] / transforms.resize_size[0]), ()


def build_timm(parsed: ParsedSpec) -> LoadedNetwork:
    """Build ``timm:NAME`` or ``timm:NAME.TAG``; a tag decides the preprocessing.

    Raises:
        SutureError: no such network, or it cannot be made.
    """
    library = import_optional("timm", "vision", parsed.spec)
    if not library.is_model(parsed.name):
        raise make_unknown_error("network of timm", parsed.name, library.list_models())
    renamed = {"classes": "num_classes", "channels": "in_chans"}
    with report_build_errors(parsed.spec), warnings.catch_warnings(), seed_torch(parsed.seed):
        warnings.simplefilter("ignore")
        made = library.create_model(parsed.name, pretrained=False,
                                    **{renamed[name]: value for name, value in parsed.sizes.items()})
    preprocessing, notes = _find_timm_preprocessing(library.data.resolve_data_config({}, model=made), parsed)
    return LoadedNetwork(made, preprocessing, parsed.spec, parsed.notes + notes)


def _find_timm_preprocessing(data_config: dict[str, Any],
                             parsed: ParsedSpec) -> tuple[ImagePreprocessing | None, tuple[str, ...]]:
    fits = {"center": "crop", "squash": "squash"}
    if data_config["crop_mode"] not in fits or data_config["interpolation"] not in ("bilinear", "bicubic"):
        return None, (f"{parsed.spec} wants crop_mode {data_config['crop_mode']} and "
                      f"{data_config['interpolation']}, which suture does not do; the data must be what the "
                      "network takes",)
    channels = parsed.channels or data_config["input_size"][0]
    mean, std = (tuple(v) if len(v) == channels else (sum(v) / len(v),)
                 for v in (data_config["mean"], data_config["std"]))
    return ImagePreprocessing(tuple(data_config["input_size"][1:]), mean, std, channels,
                              data_config["interpolation"],
                              data_config["crop_pct"], fits[data_config["crop_mode"]]), ()  # type: ignore[arg-type]
