"""Names of sites: module path, call, output slot, and kind of representation."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from suture._base import SutureError
from suture.networks.calls import CallId
from suture.networks.module_outputs import extract_tensors
from suture.representations import ShapeOverride

SiteSpec = str | Iterable["str | Site"] | Callable[[str, nn.Module], bool] | None
"""Choice of sites: None (the repeated blocks), a name or glob, several, or a function of (path, module)."""


@dataclass(frozen=True)
class Site:
    """A named point in a network, written ``path#call:slot@taken``; all but the path may be left out.

    Attributes:
        path: dotted module path.
        call: number of the module's call in one forward pass, counted from 0.
        slot: key or position of the tensor in what the module returns. None: the first floating point tensor.
        taken: kind of the representation, such as ``tokens:1`` (`ShapeOverride.parse`). "": recognised from
            the shape. Tables leave it out.

    Raises:
        SutureError: an unknown kind of representation.
    """

    path: str
    call: int = 0
    slot: str | int | None = None
    taken: str = ""

    def __post_init__(self) -> None:
        if self.taken:
            ShapeOverride.parse(self.taken)

    @classmethod
    def parse(cls, name: str) -> Site:
        """Parse the name of a site."""
        point, taken = split_name(name)
        m = re.fullmatch(r"([^#:]+)(?:#(\d+))?(?::(.+))?", point)
        if m is None:
            raise SutureError("expected a site like 'layer1.0', 'relu#2', 'encoder:last_hidden_state' or "
                              f"'blocks.3@tokens:1', got {name!r}")
        slot = m[3]
        return cls(m[1], int(m[2] or 0), int(slot) if slot and slot.isdigit() else slot, taken)

    def __str__(self) -> str:
        return (self.path + (f"#{self.call}" if self.call else "")
                + ("" if self.slot is None else f":{self.slot}"))

    @property
    def written(self) -> str:
        """Name that `parse` reads as this site, with the text after the ``@``."""
        return f"{self}@{self.taken}" if self.taken else str(self)

    @property
    def point(self) -> Site:
        """The same site without the text after the ``@``."""
        return replace(self, taken="")

    @property
    def id(self) -> CallId:
        """The call whose output holds the representation."""
        return self.path, self.call

    def pick(self, output: Any) -> Tensor | None:
        """Return the representation in what the module returned, or None."""
        if self.slot is not None:
            try:
                output = output[self.slot]
            except (KeyError, IndexError, TypeError):
                return None
        return next((t for t in extract_tensors(output) if t.is_floating_point()), None)


def split_name(name: str) -> tuple[str, str]:
    """Split the name of a site at its ``@``."""
    point, at, taken = name.partition("@")
    if at and not taken:
        raise SutureError(f"site {name!r}: missing representation kind after '@'; write "
                          f"{point + '@tokens:1'!r}, or leave out the '@'")
    return point, taken
