"""Inputs of a decoder that follow from the labels and the padding token, as transformers makes them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

_IDS, _MASK, _SHIFT = "decoder_input_ids", "decoder_attention_mask", "prepare_decoder_input_ids_from_labels"
_IGNORED = -100


def complete_decoder_inputs(network: nn.Module, inputs: Any, labels: Tensor | None) -> Any:
    """Return the inputs of an encoder-decoder with the ids and the mask of its decoder.

    Ids that are missing are the labels (N, T), moved by one place by the network's own method. A missing mask
    ends with the last scored label; without labels it ends before the padding tokens at the end of the ids.
    Inputs of any other network are returned as they are.
    """
    takes = inspect.signature(network.forward).parameters
    if not isinstance(inputs, Mapping) or _IDS not in takes:
        return inputs
    labels = labels if labels is not None and labels.ndim == 2 and not labels.is_floating_point() else None
    found = dict(inputs)
    shift = getattr(network, _SHIFT, None)
    lacks = _IDS not in found and "decoder_inputs_embeds" not in found
    if lacks and labels is not None and shift is not None:
        found[_IDS] = shift(labels)
    ids = found.get(_IDS)
    if ids is None or _MASK in found or _MASK not in takes:
        return found if len(found) > len(inputs) else inputs
    pad = getattr(getattr(network, "config", None), "pad_token_id", None)
    if labels is not None and labels.shape == ids.shape:
        counted = labels != _IGNORED
    elif isinstance(pad, int):
        counted = ids != pad
    else:
        return found
    kept = counted.flip(1).cummax(1).values.flip(1)
    kept[:, 0] = True  # a decoder may start with the padding token
    return found if bool(kept.all()) else found | {_MASK: kept.to(torch.int64)}
