"""The stitching layer: an alignment of positions and a trainable affine map of channels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suture._base import check_finite, checked, expect
from suture.numbers import Resizing, to_double
from suture.representations import Alignment, Masks, Part, to_grid
from suture.stitching.family import FULL, Family, draw_weights

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
        wanted = to_double(weight)
        parts = self.family.split(wanted)
        off, size = float((wanted - self.family.join(parts)).norm()), float(wanted.norm())
        expect(off <= TOLERANCE * max(size, TOLERANCE), f"a map of the family {self.family}",
               f"one that is {off:.1e} away from the nearest", instead)
        for name, value in (parts | {"bias": bias}).items():
            getattr(self, name).copy_(value)
        return self

    def extra_repr(self) -> str:
        return f"{self.p} -> {self.q}, {self.family}"


class StitchingLayer(nn.Module):
    """A map of source representations to the target's shape: align the positions, then x -> W x + b.

    Resizing commutes with the affine map, because its weights sum to one. Unless the alignment rule sets an
    order, the map is applied where there are fewer positions, which is cheaper.

    Args:
        alignment: of the source's shape with the target's.
        family: of the affine map; a `SutureError` if it does not allow the widths. Default: all affine maps.
        relu: apply a ReLU at the end, for targets that are outputs of a ReLU. Direct matching is fitted
            without it. Default: False.
    """

    @checked
    def __init__(self, alignment: Alignment, family: Family = FULL, *, relu: bool = False) -> None:
        super().__init__()
        self.alignment, self.relu = alignment, relu
        self.affine = Affine(alignment.source.width, alignment.target.width, family)

    @property
    def weight(self) -> Tensor:
        """W, of shape (q, p)."""
        return self.affine.weight

    @property
    def bias(self) -> Tensor:
        """b, of shape (q,)."""
        return self.affine.bias

    def init_random(self, seed: int) -> StitchingLayer:
        """Set a random map of the family (`Affine.init_random`)."""
        self.affine.init_random(seed)
        return self

    def init_identity(self) -> StitchingLayer:
        """Set W = I (the rectangular identity where the widths differ) and b = 0."""
        self.affine.init_identity()
        return self

    @torch.no_grad()
    def set(self, weight: Tensor, bias: Tensor) -> StitchingLayer:
        """Set W (q, p) and b (q,); a map outside the family raises a `SutureError`."""
        self.affine.set(weight, bias)
        return self

    def penalty(self) -> Tensor | None:
        """Return the penalty that is added to the task loss (`Family.penalty`), or None."""
        family = self.affine.family
        return family.penalty(self.weight) if family.penalised else None

    @torch.no_grad()
    def shrink(self, lr: float) -> None:
        """Apply `Family.shrink` to W after an optimiser step of learning rate `lr`."""
        family = self.affine.family
        if family.penalised:
            weight = self.weight
            shrunk = family.shrink(weight, lr)
            if shrunk is not weight:
                weight.copy_(shrunk)

    def forward(self, x: Tensor, mask: Masks = None) -> Tensor:
        """Return the source's representations in the target's shape and in the dtype of `x`.

        Args:
            x: (N, C, H, W), or (N, H, W, C) if the source's shape has channels last, likewise with one axis
                or three in place of (H, W); (N, T, D) or (N, D).
            mask: (N, T) booleans, False for padding tokens, which averages leave out.
        """
        a, weight, bias = self.alignment, self.weight, self.bias
        given = x.to(weight.dtype)
        if len(a.source.size) == len(a.target.size) == 2:
            # Torch has fast code for images: no axis of depth, and a convolution.
            kernel, resizing = weight[:, :, None, None], Resizing(a.source.size, a.target.size, a.rule.resize)
            stitched = self._map_and_resize(a.parts[0], given.permute(0, 3, 1, 2) if a.source.last else given,
                                            lambda t: F.conv2d(t, kernel, bias), resizing.resize_map)
            stitched = stitched.permute(0, 2, 3, 1).contiguous() if a.target.last else stitched
        else:
            stitched = a.assemble([
                self._map_and_resize(part, to_grid(given, a.source, part.source, mask),
                                     lambda t: F.linear(t, weight, bias), part.resizing.resize_grid)
                for part in a.parts]).contiguous()
        return (F.relu(stitched) if self.relu else stitched).to(x.dtype)

    def _map_and_resize(self, part: Part, x: Tensor, map_channels: Callable[[Tensor], Tensor],
                        resize: Callable[[Tensor], Tensor]) -> Tensor:
        order = self.alignment.rule.order
        before, after = (math.prod(size) for size in (part.resizing.source, part.resizing.target))
        map_first = before < after if order == "auto" else order == "after"
        return resize(map_channels(x)) if map_first else map_channels(resize(x))

    def extra_repr(self) -> str:
        """Return the two shapes that the layer joins."""
        return f"{self.alignment.source} -> {self.alignment.target}" + (", relu" if self.relu else "")
