"""Networks from their specs on a command line: of the zoo, torchvision, timm and the user's code."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import nn

from suture import zoo
from suture._base import Seed, SutureError, checked, expect, import_optional, make_unknown_error
from suture.data import ImagePreprocessing
from suture.specs.data import call_user_function
from suture.specs.huggingface import build_huggingface
from suture.specs.network_spec import (
    FoundPreprocessing,
    LoadedNetwork,
    ParsedSpec,
    build_quietly,
    note_unsupported,
)

_EXAMPLE_SPECS = "zoo:resnet_digits or mypackage.models:build"


@checked
def build_network(spec: str, *, weights: str | Path | None = None, like: Any = None,
                  seed: Seed = 0) -> LoadedNetwork:
    """Build the network that `spec` names.

    Args:
        spec: ``zoo:NAME``, ``torchvision:NAME``, ``timm:NAME``, ``hf:ORG/NAME`` (the Hugging Face hub or its
            cache), ``hf:FOLDER`` or the folder alone (the same layout), or ``module:function``. The last one
            runs your function, which has no arguments and returns an `nn.Module`, or a pair of one and its
            preprocessing.
        weights: a file for `zoo.load_weights`. None: random weights for zoo, torchvision and timm; for hf
            those beside the config.
        like: data whose numbers of classes (zoo, timm, torchvision) and channels (zoo, timm) the network
            gets.
        seed: seed of random weights.
    """
    kind, name = _split_kind(spec)
    file = None if weights is None else Path(weights)
    parsed = ParsedSpec(spec, name, *find_sizes(like), seed, file)
    made = _MAKERS[kind](parsed)
    if file is not None and kind != "hf":
        made = replace(made, notes=(*made.notes, *_load_weights(made.network, file, parsed)))
    return made


def find_sizes(like: Any) -> tuple[int | None, int | None]:
    """Return the numbers of classes and channels of data; None where they are unknown."""
    channels = like.inputs.shape[1] if isinstance(like, zoo.ImageSet) else getattr(like, "channels", None)
    return getattr(like, "classes", None), channels


def _split_kind(spec: str) -> tuple[str, str]:
    kind, sign, name = spec.partition(":")
    if kind in _MAKERS and name:
        return kind, name
    if spec and Path(spec).is_dir():
        return "hf", spec
    if not (sign and name):
        raise _make_no_kind_error(spec)
    near = difflib.get_close_matches(kind, [k for k in _MAKERS if k != "code"], n=1, cutoff=0.6)
    if (near and "." not in kind and not Path(f"{kind}.py").exists()
        and importlib.util.find_spec(kind) is None):
        raise SutureError(f"unknown kind of network {kind!r}; write {near[0]}:{name}, or {_EXAMPLE_SPECS}")
    return "code", spec


def imports_code(spec: str) -> bool:
    """Return True for a network that a function of the user builds."""
    return _split_kind(spec)[0] == "code"


def _make_no_kind_error(spec: str) -> SutureError:
    """Return the error for a spec without a kind, with the kinds in which its name exists."""
    names = ({"zoo": list(zoo.networks)}
             | {kind: _list_names(kind) for kind in ("torchvision", "timm") if spec})
    if found := [f"{kind}:{spec}" for kind, known in names.items() if spec in known]:
        return SutureError(f"expected a kind before the name of a network, got {spec!r}; write "
                           f"{' or '.join(found)}")
    if "/" in spec:
        return SutureError(f"expected a folder that holds config.json, there is no {spec!r}; write "
                           "hf:ORG/NAME for a name of the Hugging Face hub")
    known_as = {n: f"{kind}:{n}" for kind, known in reversed(names.items()) for n in known}
    near = [known_as[n] for n in difflib.get_close_matches(spec, known_as, n=3, cutoff=0.6)]
    return SutureError(f"expected a network like {_EXAMPLE_SPECS}, got {spec!r}"
                       + (f"; nearest: {', '.join(near)}" if near else ""))


def _load_weights(made: nn.Module, file: Path, parsed: ParsedSpec) -> tuple[str, ...]:
    """Load weights and return notes on them."""
    try:
        return zoo.fit_weights(made, file).notes
    except SutureError as e:
        sizes = parsed.list_sizes("classes", "channels")
        if "wrong shape" in str(e) and sizes:
            listed = " and ".join(f"{value} {name}" for name, value in sizes.items())
            raise SutureError(f"{e}; the network was made for the data's {listed}") from e
        raise


def _build_zoo(parsed: ParsedSpec) -> LoadedNetwork:
    made = zoo.build(parsed.name, parsed.seed, **parsed.list_sizes("classes", "in_channels"))
    return LoadedNetwork(made, ImagePreprocessing(), parsed.spec, parsed.notes)


def _build_user_network(parsed: ParsedSpec) -> LoadedNetwork:
    made = call_user_function(parsed.spec)
    network, preprocessing = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    expect(isinstance(network, nn.Module), "a torch.nn.Module, or a pair of one and its preprocessing, from "
           f"{parsed.spec}", type(made).__name__)
    expect(preprocessing is None or callable(preprocessing), "a function of raw examples as second result of "
           f"{parsed.spec}", type(preprocessing).__name__)
    return LoadedNetwork(network, preprocessing, parsed.spec)


def _list_names(kind: str) -> list[str]:
    """Return the networks of ``"torchvision"`` (for classification) or ``"timm"``; [] without the library."""
    try:
        if kind == "timm":
            return list(import_optional("timm", "vision", kind).list_models())
        models = import_optional("torchvision.models", "vision", kind)
        return list(models.list_models(module=models))
    except SutureError:
        return []


def _build_torchvision(parsed: ParsedSpec) -> LoadedNetwork:
    """Build ``torchvision:NAME``, with three channels as in all its networks."""
    models = import_optional("torchvision.models", "vision", parsed.spec)
    if parsed.name not in models.list_models():
        raise make_unknown_error("network of torchvision", parsed.name, _list_names("torchvision"))
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


def _build_timm(parsed: ParsedSpec) -> LoadedNetwork:
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


_MAKERS: Mapping[str, Callable[[ParsedSpec], LoadedNetwork]] = MappingProxyType({
    "zoo": _build_zoo, "torchvision": _build_torchvision, "timm": _build_timm,
    "hf": build_huggingface, "code": _build_user_network,
})
