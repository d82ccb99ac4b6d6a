"""Results of work on one piece of a batch that several pairs of networks need, made once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class SharedWork:
    """What was made of the tensors of one piece of a batch, until `clear`.

    Tensors are known by their place in memory: all that is found holds those that it was made from.
    """

    def __init__(self) -> None:
        self._made: dict[Hashable, tuple[tuple[Any, ...], Any]] = {}
        self._spare: dict[Hashable, list[Tensor]] = {}
        self._lent: list[Tensor] = []

    def find(self, make: Callable[[], T], *parts: Any) -> T:
        """Return what was made from equal parts, or make it: tensors, lists of them, and hashable values."""
        key = tuple(map(_identify, parts))
        if key not in self._made:
            self._made[key] = parts, make()
        found: T = self._made[key][1]
        return found

    def lend(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return a tensor with any values, whose memory is used again after `clear`."""
        # New memory of this size costs more than what is written to it.
        spare = self._spare.get((shape, dtype, device))
        lent = spare.pop() if spare else torch.empty(shape, dtype=dtype, device=device)
        self._lent.append(lent)
        return lent

    def clear(self) -> None:
        """Forget what was made, before the next piece."""
        self._made.clear()
        lent, self._lent = self._lent, []
        self._spare = {}  # those of a piece of another size
        for t in lent:
            self._spare.setdefault((tuple(t.shape), t.dtype, t.device), []).append(t)


def _identify(part: Any) -> Hashable:
    if isinstance(part, Tensor):
        return part.data_ptr(), tuple(part.shape), part.stride(), part.dtype, part.device
    if isinstance(part, list | tuple):
        return tuple(map(_identify, part))
    return part  # type: ignore[no-any-return]
