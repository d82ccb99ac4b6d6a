"""Auxiliary token ids: shuffled or random ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from suture.data.auxiliary.images import Maker


@dataclass(frozen=True)
class Tokens:
    """Token ids to start from.

    Attributes:
        tensor, ids: (N, T) ids on their own device, and on the CPU.
        free: (N, T) booleans, True at replaceable ids.
        vocabulary: (V,) the replaceable ids, each once.
    """

    tensor: Tensor
    ids: Tensor
    free: Tensor
    vocabulary: Tensor
    name = "tokens"

    @classmethod
    def of(cls, given: Tensor, unpadded: Tensor) -> Tokens:
        """Find the replaceable ids in `given` (N, T); `unpadded` (N, T) is True except at padding."""
        ids = given.cpu()
        free = _find_replaceable(ids, unpadded.cpu())
        return cls(given, ids, free, torch.unique(ids[free]))

    @property
    def makers(self) -> Mapping[str, Maker]:
        return MAKERS


def _find_replaceable(ids: Tensor, unpadded: Tensor) -> Tensor:
    """Return (N, T) booleans, True at unpadded positions whose id differs between examples.

    The other positions may hold a separator or a fixed prompt.
    """
    free, t = unpadded.clone(), ids.shape[1]
    filled = unpadded.any(1).nonzero()[:, 0]
    begin, end = unpadded.int().argmax(1)[filled], t - 1 - unpadded.flip(1).int().argmax(1)[filled]
    columns = [(rows, torch.full_like(rows, p)) for p in range(t)
               for rows in [unpadded[:, p].nonzero()[:, 0]]]
    for rows, at in [*columns, (filled, begin), (filled, end)]:
        held = ids[rows, at]
        # A single example does not show that all examples hold this id.
        if len(rows) > 1 and (held == held[0]).all():
            free[rows, at] = False
    return free


def _shuffle_ids(tokens: Tokens, rows: Tensor, generator: torch.Generator) -> Tensor:
    ids, free = tokens.ids[rows], tokens.free[rows]
    keys = torch.rand(ids.shape, generator=generator, dtype=torch.float32).masked_fill(~free, 2)
    # The sort is stable, so both orders end with the positions that stay, in the same order.
    places, drawn = (torch.argsort(k, dim=1, stable=True) for k in ((~free).int(), keys))
    return ids.scatter(1, places, ids.gather(1, drawn))


def _draw_ids(tokens: Tokens, rows: Tensor, generator: torch.Generator) -> Tensor:
    ids, known = tokens.ids[rows], tokens.vocabulary
    drawn = known[torch.randint(len(known), ids.shape, generator=generator)]
    return torch.where(tokens.free[rows], drawn, ids)


def _can_draw(tokens: Tokens) -> bool:
    return len(tokens.vocabulary) > 1


def _can_shuffle(tokens: Tokens) -> bool:
    first = tokens.ids.gather(1, tokens.free.int().argmax(1, keepdim=True))
    return _can_draw(tokens) and bool(((tokens.ids != first) & tokens.free).any())


MAKERS: Mapping[str, Maker] = MappingProxyType({
    "shuffled": Maker(_shuffle_ids, _can_shuffle,
                      "an example with 2 different ids where the examples differ"),
    "random": Maker(_draw_ids, _can_draw, "at least 2 different ids where the examples differ")})
