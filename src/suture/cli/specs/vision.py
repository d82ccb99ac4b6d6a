"""Networks of torchvision and timm, with random weights, and the preprocessing that their published weights go with."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

from torch import nn

from suture._base.errors import SutureError, optional, unknown
from suture.cli.specs.named import Asked, Named, making
from suture.data.preprocessing import ImagePreprocessing
from suture.networks.training import seeded


def names(kind: str) -> list[str]:
    """Networks of ``"torchvision"`` (for classification) or ``"timm"``; none where the library is not to be had."""
    try:
        if kind == "timm":
            return list(optional("timm", "vision", kind).list_models())
        models = optional("torchvision.models", "vision", kind)
        return list(models.list_models(module=models))
    except SutureError:
        return []


def torchvision(asked: Asked) -> Named:
    """``torchvision:NAME``; three channels, since its networks have no other.

    Raises:
        SutureError: no such network, or it cannot be made.
    """
    models = optional("torchvision.models", "vision", asked.spec)
    if asked.name not in models.list_models():
        raise unknown("network of torchvision", asked.name, names("torchvision"))
    known = inspect.signature(models.get_model_builder(asked.name)).parameters
    # Some networks download the weights of a part of theirs unless they are told not to.
    options: dict[str, Any] = {"weights": None} | ({"weights_backbone": None} if "weights_backbone" in known else {})
    if asked.classes is not None:
        options["num_classes"] = asked.classes
    with making(asked.spec), warnings.catch_warnings(), seeded(asked.seed):
        warnings.simplefilter("ignore")
        made = models.get_model(asked.name, **options)
    preprocessing, notes = _of_torchvision(models, asked, made)
    return Named(made, preprocessing, asked.spec, asked.notes + notes)


def _of_torchvision(models: Any, asked: Asked, made: nn.Module) -> tuple[ImagePreprocessing | None, tuple[str, ...]]:
    told = models.get_model_weights(asked.name).DEFAULT.transforms()
    if type(told).__name__ != "ImageClassification":
        return None, (f"{asked.spec} comes with {type(told).__name__}, which suture does not do; the data must be what "
                      "the network takes",)
    # vit_h_14's published weights are for larger images than the network that is made without them.
    side = getattr(made, "image_size", told.crop_size[0])
    return ImagePreprocessing((side, side), tuple(told.mean), tuple(told.std), 3, told.interpolation.value,
                              told.crop_size[0] / told.resize_size[0]), ()


def timm(asked: Asked) -> Named:
    """``timm:NAME`` or ``timm:NAME.TAG``; a tag decides the preprocessing.

    Raises:
        SutureError: no such network, or it cannot be made.
    """
    library = optional("timm", "vision", asked.spec)
    if not library.is_model(asked.name):
        raise unknown("network of timm", asked.name, library.list_models())
    renamed = {"classes": "num_classes", "channels": "in_chans"}
    with making(asked.spec), warnings.catch_warnings(), seeded(asked.seed):
        warnings.simplefilter("ignore")
        made = library.create_model(asked.name, pretrained=False,
                                    **{renamed[name]: value for name, value in asked.sizes.items()})
    preprocessing, notes = _of_timm(library.data.resolve_data_config({}, model=made), asked)
    return Named(made, preprocessing, asked.spec, asked.notes + notes)


def _of_timm(told: dict[str, Any], asked: Asked) -> tuple[ImagePreprocessing | None, tuple[str, ...]]:
    fits = {"center": "crop", "squash": "squash"}
    if told["crop_mode"] not in fits or told["interpolation"] not in ("bilinear", "bicubic"):
        return None, (f"{asked.spec} wants crop_mode {told['crop_mode']} and {told['interpolation']}, which suture "
                      "does not do; the data must be what the network takes",)
    channels = asked.channels or told["input_size"][0]
    mean, std = (tuple(v) if len(v) == channels else (sum(v) / len(v),) for v in (told["mean"], told["std"]))
    return ImagePreprocessing(tuple(told["input_size"][1:]), mean, std, channels, told["interpolation"],
                              told["crop_pct"], fits[told["crop_mode"]]), ()  # type: ignore[arg-type]
