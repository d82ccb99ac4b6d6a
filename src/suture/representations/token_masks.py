"""Masks over the tokens of a network's inputs: their forms, and which one belongs to which site."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from suture._base import count_examples, walk_tensors

_ADDED = -1.0
"""Values below this in a mask of floats are added to attention scores, and so leave a token out."""


def read_mask(given: Any) -> Tensor | None:
    """Return a mask of any usual form as (N, T) booleans, False at padding tokens; None for another tensor.

    The forms are (N, T), (N, 1, T), (N, 1, 1, T), (N, 1, T, T) and (N, heads, T, T). Their values are
    booleans, zeros and ones, or floats to add to attention scores, such as 0 and -inf. In a mask of pairs, a
    token that no token attends to is padding.
    """
    if not isinstance(given, Tensor) or not 2 <= given.ndim <= 4 or given.is_complex():
        return None
    added = given.is_floating_point() and bool((given < _ADDED).any())
    kept = given > _ADDED if added else given != 0
    return kept if kept.ndim == 2 else kept.flatten(1, -2).any(1)


@dataclass(frozen=True)
class TokenMasks:
    """Masks of several input sequences, such as the encoder's and the decoder's.

    Attributes:
        masks: for each sequence (N, T) booleans, False at padding tokens; None without padding.
        output: number of the sequence that the network's output follows.
    """

    masks: tuple[Tensor | None, ...]
    output: int = 0

    def __getitem__(self, rows: Any) -> TokenMasks:
        return self.map(lambda m: m[rows])

    def map(self, change: Callable[[Tensor], Tensor]) -> TokenMasks:
        """Return the masks with a change of each."""
        return TokenMasks(tuple(None if m is None else change(m) for m in self.masks), self.output)


Masks = Tensor | TokenMasks | None
"""The mask of a network's only input sequence, or those of several."""


def select_mask(masks: Masks, sequence: int) -> Tensor | None:
    """Return the mask of an input sequence."""
    return masks.masks[sequence] if isinstance(masks, TokenMasks) else masks


def select_output_mask(masks: Masks) -> Tensor | None:
    """Return the mask of the input sequence that the network's output follows."""
    return masks.masks[masks.output] if isinstance(masks, TokenMasks) else masks


def has_unpadded_tokens(masks: Masks) -> bool:
    """Return True where some token is not padding in each mask."""
    of = masks.masks if isinstance(masks, TokenMasks) else (masks,)
    return all(m is None or bool(m.any()) for m in of)


def get_token_mask(inputs: Any) -> Tensor | None:
    """Return the ``"attention_mask"`` in nested inputs as `read_mask` reads it; None without one.

    A mask that is the same for all examples, such as a causal one (1, 1, T, T), says nothing of padding.
    """
    given = _find_mask(inputs)
    if given is None or len(given) != count_examples(inputs):
        return None
    return read_mask(given)


def _find_mask(inputs: Any) -> Tensor | None:
    if isinstance(inputs, Mapping):
        given = inputs.get("attention_mask")
        return given if isinstance(given, Tensor) and given.ndim else _find_mask(tuple(inputs.values()))
    parts = inputs if isinstance(inputs, tuple | list) else ()
    return next((m for p in parts if (m := _find_mask(p)) is not None), None)


def find_sequence_lengths(inputs: Any) -> frozenset[int]:
    """Return the lengths of the input sequences: of the attention mask, or else of integers (N, T)."""
    mask = get_token_mask(inputs)
    if mask is not None:
        return frozenset({mask.shape[1]})
    kinds = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
    return frozenset(t.shape[1] for t in walk_tensors(inputs) if t.ndim == 2 and t.dtype in kinds)
