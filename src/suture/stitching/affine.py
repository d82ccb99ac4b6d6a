"""The trainable affine map of a stitching layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from suture._base import check_finite, expect
from suture.stitching.families import FULL
from suture.stitching.family import Family, draw_weights

TOLERANCE = 1e-5
"""Largest distance of a given map from the family, relative to the norm of the map."""


class Affine(nn.Module):
    """An affine map x -> W x + b from p to q channels, which stays in its family during training.

    The parts of W (`Family.split`) and b are parameters if they are trained, else buffers. A new map is the
    identity.

    Attributes:
        weight: (q, p) with gradient, computed from the parts at every access unless it is itself a part.
        bias: (q,).
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, p: int, q: int, family: Family = FULL) -> None:
        super().__init__()
        family.check(p, q)
        self.p, self.q, self.family = p, q, family
        parts = family.split(family.make_identity(p, q).double())
        self._joins = "weight" not in parts
        for name, part in parts.items():
            self._register(name, part, family.trainable and name not in family.constants)
        self._register("bias", torch.zeros(q), family.trainable and family.shift)

    def _register(self, name: str, value: Tensor, trained: bool) -> None:
        value = value.to(torch.get_default_dtype())
        if trained:
            self.register_parameter(name, nn.Parameter(value))
        else:
            self.register_buffer(name, value)

    def __getattr__(self, name: str) -> Any:
        # A property would hide a part of the same name.
        if name == "weight" and self._joins:
            return self.family.join(dict(self.named_parameters()) | dict(self.named_buffers()))
        return super().__getattr__(name)

    def init_random(self, seed: int) -> Affine:
        """Set W to a random map of the family (`Family.draw`), and b, if trained, uniformly in ±1/sqrt(p)."""
        generator = torch.Generator().manual_seed(seed)
        weight = self.family.draw(self.p, self.q, generator)
        free = isinstance(self.bias, nn.Parameter)
        return self.set(weight, draw_weights((self.q,), self.p**-0.5, generator) if free
                        else torch.zeros(self.q))

    def init_identity(self) -> Affine:
        """Set W = I (`Family.make_identity`) and b = 0."""
        return self.set(self.family.make_identity(self.p, self.q), torch.zeros(self.q))

    @torch.no_grad()
    def set(self, weight: Tensor, bias: Tensor) -> Affine:
        """Set W (q, p) and b (q,), of any float type.

        A `SutureError` is raised for NaN, inf, and maps further than `TOLERANCE` from the family.
        """
        expect(weight.shape == (self.q, self.p) and bias.shape == (self.q,),
               f"weight {(self.q, self.p)} and bias {(self.q,)}, the weight (target, source)",
               f"{tuple(weight.shape)} and {tuple(bias.shape)}")
        check_finite(torch.cat([weight.flatten(), bias]), "the map of a stitching layer",
                     "leave this cell out")
        instead = f"fit the map as {self.family}"
        expect(self.family.shift or not bias.any(), f"b = 0 for {self.family}",
               f"|b| = {float(bias.norm()):.1e}", instead)
        wanted = weight.double()
        parts = self.family.split(wanted)
        off, size = float((wanted - self.family.join(parts)).norm()), float(wanted.norm())
        expect(off <= TOLERANCE * max(size, TOLERANCE), f"a map of the family {self.family}",
               f"one that is {off:.1e} away from the nearest", instead)
        for name, value in (parts | {"bias": bias}).items():
            getattr(self, name).copy_(value)
        return self

    def extra_repr(self) -> str:
        return f"{self.p} -> {self.q}, {self.family}"
