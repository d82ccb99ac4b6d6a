"""Arguments of a network: which it takes, and how a batch of inputs is passed and repeated."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from suture._base import FOREIGN, ExampleList, SutureError, convert_examples, convert_tensors, note_owner
from suture.data import Columns
from suture.networks.wrappers.eager_passes import (
    count_all_changes,
    make_changeable,
    run_eagerly,
)

_IDS, _MASK = "input_ids", "attention_mask"


def apply(network: nn.Module, inputs: Any) -> Any:
    """Call a network on a batch: one argument, a tuple of arguments or a mapping of keyword arguments."""
    try:
        with run_eagerly(), count_all_changes():
            return _call(network, make_changeable(inputs))
    except FOREIGN as error:  # no context manager, because exporters trace this function
        note_owner(error, f"the network {type(network).__name__}")
        raise


def _call(network: nn.Module, inputs: Any) -> Any:
    if isinstance(inputs, ExampleList):
        return network(list(inputs))
    if isinstance(inputs, Mapping):
        return network(**inputs)
    if isinstance(inputs, tuple | list):
        return network(*inputs)
    return network(inputs)


def repeat_inputs(inputs: Any, copies: int, size: int) -> Any:
    """Repeat the `size` examples of a batch of inputs `copies` times."""
    if copies == 1:
        return convert_tensors(inputs, lambda t: t)
    return convert_examples(inputs, size, lambda part: part.repeat(copies) if isinstance(part, ExampleList)
                            else part.repeat(copies, *[1] * (part.ndim - 1)))


def list_arguments(network: nn.Module) -> tuple[str, ...]:
    """List the names of the arguments of a network; none if it does not tell, such as a TorchScript one."""
    return tuple(_read_parameters(network) or ())


def _read_parameters(network: nn.Module) -> Mapping[str, inspect.Parameter] | None:
    try:
        return inspect.signature(network.forward).parameters
    except (TypeError, ValueError):
        return None


def fit_columns(network: nn.Module, inputs: Any) -> Any:
    """Return a batch that suture made of named columns as a network takes it: its own columns and padding id.

    Inputs of any other origin are returned as they are.

    Raises:
        SutureError: no column is an argument, or padding needs a mask that the network does not take.
    """
    if not isinstance(inputs, Columns):
        return inputs
    takes, any_name = list_arguments(network), takes_any_name(network)
    known = [n for n in inputs if n in takes or (any_name and inputs.padded and _MASK in n)]
    if not known and any_name:
        return inputs
    if not known:
        raise SutureError(f"expected a column named like an argument of {type(network).__name__} "
                          f"({', '.join(takes[:5])}), got {', '.join(map(str, inputs))}; rename one")
    made = inputs.without(set(inputs).difference(known))
    pad = find_padding_id(network)
    for ids in [n for n in known if _IDS in n and inputs.padded]:
        mask = ids.replace(_IDS, _MASK)
        if mask not in made:
            raise SutureError(f"texts of several lengths are padded under {mask!r}, which "
                              f"{type(network).__name__} does not take; give texts of one length")
        if pad is not None:
            made[ids] = torch.where(made[mask] != 0, made[ids], pad)
    return made


def find_padding_id(network: nn.Module) -> int | None:
    """Return the token that a network's config names for padding; None if it names none."""
    found = getattr(getattr(network, "config", None), "pad_token_id", None)
    return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else None


def takes_any_name(network: nn.Module) -> bool:
    found = _read_parameters(network)
    return found is None or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in found.values())
