"""Inputs that stand in for those of a network: of the same nesting, shapes and types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from suture._base import ExampleList


def describe_inputs(inputs: Any) -> Any:
    """Return nested inputs as JSON, each tensor as type and shape of one example."""
    if isinstance(inputs, ExampleList) and isinstance(inputs[0], Tensor):
        return {"examples": describe_inputs(inputs[0][None])}
    if isinstance(inputs, Tensor):
        one = inputs[:1] if inputs.ndim else inputs
        about = {"tensor": list(one.shape), "dtype": str(one.dtype).removeprefix("torch.")}
        # A number above one tells token ids from masks, and with that how many input sequences there are.
        return about | ({"fill": 2} if _is_whole(inputs) and bool((inputs > 1).any()) else {})
    if isinstance(inputs, Mapping):
        return {"named": {k: describe_inputs(v) for k, v in inputs.items()}}
    if isinstance(inputs, tuple | list):
        return {"several": [describe_inputs(v) for v in inputs]}
    return {"value": inputs if isinstance(inputs, str | int | float | bool | None) else None}


def invent_inputs(described: Mapping[str, Any]) -> Any:
    """Make four examples of the described shapes: noise, and ones or twos for integers (masks, ids)."""
    if "examples" in described:
        return ExampleList(invent_inputs(described["examples"]))
    if "named" in described:
        return {k: invent_inputs(v) for k, v in described["named"].items()}
    if "several" in described:
        return tuple(invent_inputs(v) for v in described["several"])
    if "tensor" not in described:
        return described["value"]
    dtype, shape = getattr(torch, described["dtype"]), described["tensor"]
    size = [4, *shape[1:]] if shape else []
    if not dtype.is_floating_point:
        return torch.full(size, described.get("fill", 1), dtype=dtype)
    return torch.rand(size, generator=torch.Generator().manual_seed(0)).to(dtype)


def _is_whole(t: Tensor) -> bool:
    return not (t.is_floating_point() or t.is_complex() or t.dtype == torch.bool)
