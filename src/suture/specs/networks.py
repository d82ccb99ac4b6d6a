"""Networks by what is written on a command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from suture import zoo
from suture._errors import SutureError
from suture.specs.code import call
from suture.zoo import ImageSet


def network(spec: str, *, weights: str | Path | None = None, like: Any = None, seed: int = 0) -> nn.Module:
    """The network that `spec` names.

    Args:
        spec: ``zoo:NAME``, or ``module:function`` for a function without arguments that returns an `nn.Module`.
        weights: a safetensors file, or a state dict for ``torch.load(weights_only=True)``. None: as it is made.
        like: an `ImageSet` whose channels and classes a zoo network takes over.
        seed: of a zoo network's random weights.

    Raises:
        SutureError: nothing has that name, the function fails or returns something else, weights that do not fit.
    """
    kind, _, name = spec.partition(":")
    if not name:
        raise SutureError(f"expected a network like zoo:resnet_digits or mypackage.models:build, got {spec!r}")
    if kind == "zoo":
        options = {"classes": like.classes, "in_channels": like.inputs.shape[1]} if isinstance(like, ImageSet) else {}
        made: Any = zoo.build(name, seed, **options)
    else:
        made = call(spec)
        if not isinstance(made, nn.Module):
            raise SutureError(f"expected {spec} to return a torch.nn.Module, got {type(made).__name__}")
    if weights is not None:
        zoo.load_weights(made, weights)
    network: nn.Module = made
    return network
