"""The type of an argument that is a network, and words for what users give in place of one."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Annotated, Any

from pydantic import PlainValidator, ValidationInfo
from torch import Tensor, nn, optim

from suture._base import refuse, show_value
from suture.data import describe_form
from suture.networks import architectures

_WEIGHTS = (".pt", ".pth", ".bin", ".safetensors", ".ckpt", ".th", ".tar")
_ADVICE_ON_WEIGHTS = "build the network, then suture.zoo.load_weights(network, path)"


def read_network(given: Any, info: ValidationInfo) -> nn.Module:
    """Return a network, or refuse anything else with what to write instead."""
    if isinstance(given, nn.Module):
        return given
    got, instead = _explain(given)
    if got.startswith("data ("):
        # Options of a comparison have names here, and arguments of other functions do not.
        instead = "write data=..., after the networks" if info.field_name else "write the network first"
    raise refuse("a torch.nn.Module", got, instead)


Network = Annotated[nn.Module, PlainValidator(read_network)]
"""A network: any `torch.nn.Module`."""


def _explain(given: Any) -> tuple[str, str]:
    """Return what was given, "" for its value, and advice."""
    if isinstance(given, str | PathLike):
        return _explain_text(str(given))
    if type(given).__name__ == "ExportedProgram":
        return "", "give the module that was exported"
    if form := describe_form(given):
        return form, ""
    if isinstance(given, type) and issubclass(given, nn.Module):
        return "", f"make one: {given.__name__}(...)"
    if isinstance(given, optim.Optimizer):
        return f"an optimizer ({type(given).__name__})", "give the network that it trains"
    if isinstance(given, Mapping):
        is_state = any(isinstance(v, Tensor | Mapping) for v in given.values())
        return ("a state dict" if is_state else "",
                "build the network, then network.load_state_dict(...)" if is_state else "")
    if isinstance(given, tuple | list) and any(isinstance(p, nn.Module) for p in given):
        return f"a {type(given).__name__} of networks", "give one network for each side"
    inner = getattr(given, "model", None)
    if isinstance(inner, nn.Module):
        return "", "give its network, .model"
    if callable(given):
        name = getattr(given, "__name__", "")
        return "", f"call it: {name}()" if name.isidentifier() else "give the network that it runs"
    return "", ""


def _explain_text(text: str) -> tuple[str, str]:
    kind, _, name = text.rpartition(":")
    if kind in ("", "zoo") and name in dir(architectures):
        return show_value(text), f"write suture.zoo.build({name!r})"
    if text.endswith(_WEIGHTS):
        return f"the path of weights, {show_value(text)}", _ADVICE_ON_WEIGHTS
    if form := describe_form(text):
        return form, ""
    return show_value(text), "build the network in Python; only the command line takes its name"
