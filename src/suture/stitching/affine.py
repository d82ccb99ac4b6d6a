"""The trainable affine map of a stitching layer, with parameters that always stay in their family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suture._base import SutureError
from suture.stitching.families import FULL, Family

TOLERANCE = 1e-5
"""Largest distance, relative to its norm, of a given map from the family."""


@dataclass(frozen=True)
class _Parametrization:
    """The parameters by which a family represents W.

    Attributes:
        split: W (q, p) float64, family -> the parameters, by name, of the nearest member of the family.
        random: (q, p, family, generator) -> a random member.
        join: parameters -> W; None where W itself is a parameter.
    """

    split: Callable[[Tensor, Family], dict[str, Tensor]]
    random: Callable[[int, int, Family, torch.Generator], Tensor]
    join: Callable[[Mapping[str, Tensor]], Tensor] | None = None


def _draw_uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> Tensor:
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def _split_factors(weight: Tensor, family: Family) -> dict[str, Tensor]:
    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    root = s[:family.rank].sqrt()
    return {"left": u[:, :family.rank] * root, "right": root[:, None] * vh[:family.rank]}


def _draw_factors(q: int, p: int, family: Family, generator: torch.Generator) -> Tensor:
    k = family.rank or 0
    return _draw_uniform((q, k), (3 / k) ** 0.5, generator) @ _draw_uniform((k, p), p**-0.5, generator)


def _split_rotation(weight: Tensor, family: Family) -> dict[str, Tensor]:
    """Return the nearest rotation, and the best scale.

    The rotation is that of the polar decomposition. The best scale is the mean singular value.
    """
    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    # A constant source has the map 0, whose scale has no logarithm.
    scale = {"log_scale": s.mean().clamp(min=1e-30).log()} if family.scale else {}
    return {"angle": weight.new_zeros(len(weight), len(weight)), "base": u @ vh} | scale


def _join_rotation(parts: Mapping[str, Tensor]) -> Tensor:
    angle = parts["angle"]
    turned: Tensor = torch.linalg.matrix_exp(angle - angle.T) @ parts["base"]
    return parts["log_scale"].exp() * turned if "log_scale" in parts else turned


def _draw_rotation(q: int, p: int, family: Family, generator: torch.Generator) -> Tensor:
    base, r = torch.linalg.qr(torch.randn(q, p, dtype=torch.float64, generator=generator))
    return torch.mul(base, r.diagonal().sign())


def _split_permutation(weight: Tensor, family: Family) -> dict[str, Tensor]:
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(weight.cpu().numpy(), maximize=True)
    nearest = torch.zeros_like(weight)
    nearest[rows, columns] = 1
    return {"weight": nearest}


_UNCONSTRAINED = _Parametrization(lambda weight, family: {"weight": weight},
             lambda q, p, family, generator: _draw_uniform((q, p), p**-0.5, generator))
_PARAMETRIZATIONS: Mapping[str, _Parametrization] = {
    "full": _UNCONSTRAINED, "ridge": _UNCONSTRAINED, "sparse": _UNCONSTRAINED,
    "rank": _Parametrization(_split_factors, _draw_factors, lambda parts: parts["left"] @ parts["right"]),
    "orthogonal": _Parametrization(_split_rotation, _draw_rotation, _join_rotation),
    "diagonal": _Parametrization(lambda weight, family: {"factors": weight.diagonal()},
                                 lambda q, p, family, generator: _draw_uniform((q,), 1.0, generator).diag(),
                                 lambda parts: parts["factors"].diag()),
    "permutation": _Parametrization(_split_permutation,
                         lambda q, p, family, generator: torch.eye(p)[torch.randperm(p,
                                                                                     generator=generator)]),
    "identity":
    _Parametrization(lambda weight, family: {"weight": torch.eye(len(weight), dtype=weight.dtype)},
                     lambda q, p, family, generator: torch.eye(p)),
}


class Affine(nn.Module):
    """An affine map x -> W x + b from p to q channels, with W and b in a family.

    The parameters are free. W and b never leave the family.

    - full, ridge, sparse: `weight` and `bias` are the parameters.
    - rank: W = L R, with parameters ``left`` (q, k) and ``right`` (k, p).
    - orthogonal: W = exp(log_scale) exp(A - A') Q. ``angle`` A (q, q) and ``log_scale`` are parameters;
      ``base`` Q (q, p) is a buffer. Without free scale there is no exp(log_scale). Without free shift the
      bias is a buffer of zeros. exp(A - A') is a rotation, so for p = q training keeps the sign of det W.
    - diagonal: one parameter ``factors`` (p,).
    - permutation, identity: two buffers and no parameters.

    A new map is that of `init_identity`.

    Args:
        p: source channels.
        q: target channels.
        family: default: every affine map.

    Attributes:
        weight: (q, p) with gradient. Where it is not a parameter it is computed at every access.
        bias: (q,).

    Raises:
        SutureError: widths that the family does not allow.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, p: int, q: int, family: Family = FULL) -> None:
        super().__init__()
        family.check(p, q)
        self.p, self.q, self.family = p, q, family
        for name, value in _PARAMETRIZATIONS[family.name].split(self._make_identity().double(),
                                                                family).items():
            self._register(name, value, family.trainable and name != "base")
        self._register("bias", torch.zeros(q), family.trainable and family.shifts)

    def _register(self, name: str, value: Tensor, trained: bool) -> None:
        value = value.to(torch.get_default_dtype())
        if trained:
            self.register_parameter(name, nn.Parameter(value))
        else:
            self.register_buffer(name, value)

    def __getattr__(self, name: str) -> Any:
        # A property would hide a parameter of the same name.
        join = _PARAMETRIZATIONS[self.family.name].join if name == "weight" else None
        return (join(dict(self.named_parameters()) | dict(self.named_buffers())) if join
                else super().__getattr__(name))

    def _make_identity(self) -> Tensor:
        """Return the rectangular identity, cut to the rank of the family."""
        eye = torch.eye(self.q, self.p)
        if self.family.rank is not None:
            eye[self.family.rank:] = 0
        return eye

    def init_random(self, seed: int) -> Affine:
        """Set W and b to a random member of the family.

        PyTorch's global generator is not used. Initialisation by family:

        - full, ridge, sparse: W and b uniform in ±1/sqrt(p), as in `torch.nn.Conv2d` and `Linear`.
        - rank: factors that give the entries of W this variance.
        - diagonal: factors in ±1, because each output has one input.
        - orthogonal: uniformly distributed Q (Mezzadri 2007), scale 1.
        - permutation: a random permutation, b = 0.
        - identity: the identity.
        """
        generator = torch.Generator().manual_seed(seed)
        weight = _PARAMETRIZATIONS[self.family.name].random(self.q, self.p, self.family, generator)
        free = isinstance(self.bias, nn.Parameter)
        return self.set(weight,
                        _draw_uniform((self.q,), self.p**-0.5, generator) if free else torch.zeros(self.q))

    def init_identity(self) -> Affine:
        """Set W = I and b = 0.

        If the widths differ, W is the rectangular identity. With rank k, only its first k rows are kept.
        """
        return self.set(self._make_identity(), torch.zeros(self.q))

    @torch.no_grad()
    def set(self, weight: Tensor, bias: Tensor) -> Affine:
        """Set W and b to a fitted map.

        Args:
            weight: (q, p), any float type.
            bias: (q,), any float type.

        Raises:
            SutureError: other shapes, NaN or inf, or a map that is further than `TOLERANCE` from the family.
        """
        if weight.shape != (self.q, self.p) or bias.shape != (self.q,):
            raise SutureError(f"expected weight {(self.q, self.p)} and bias {(self.q,)}, got "
                              f"{tuple(weight.shape)} and {tuple(bias.shape)}; weight is (target, "
                              "source) channels")
        if not (weight.isfinite().all() and bias.isfinite().all()):
            raise SutureError("expected a finite map to take over, got NaN or inf; leave this cell out")
        if not self.family.shifts and bias.any():
            raise SutureError(f"expected b = 0 for {self.family}, got |b| = {float(bias.norm()):.1e}; fit "
                              f"the map as {self.family}")
        form = _PARAMETRIZATIONS[self.family.name]
        parts = form.split(weight.double(), self.family)
        nearest = form.join(parts) if form.join else parts["weight"]
        off, size = float((weight.double() - nearest).norm()), float(weight.double().norm())
        if off > TOLERANCE * max(size, TOLERANCE):
            raise SutureError(f"expected a map of the family {self.family}, got one of norm {size:.1e} that "
                              f"is {off:.1e} away from the nearest; fit the map as {self.family}")
        for name, value in (parts | {"bias": bias}).items():
            getattr(self, name).copy_(value)
        return self

    def penalty(self) -> Tensor | None:
        """Return the penalty that is added to the task loss of this layer.

        It is strength * |W|² / p for ridge and None for all other families. The strength is relative to the
        task loss. In direct matching it is relative to the scatter of the source, so the two strengths have
        different units.

        Raises:
            SutureError: ridge:cv, which has no fixed strength.
        """
        if self.family.name != "ridge":
            return None
        if self.family.strength == "cv":
            raise SutureError("expected a number as the strength of ridge in training, got cv; write "
                              "ridge:0.1, or take the strength that direct matching chose")
        return cast(float, self.family.strength) * self.weight.square().sum() / self.p

    @torch.no_grad()
    def shrink(self, lr: float) -> None:
        """Move the entries of W towards 0 by lr * strength, for the family sparse only.

        An entry that would cross 0 becomes 0. Call this method after each optimiser step. With gradient steps
        of size `lr` it minimises task loss + strength * sum |W| (proximal gradient). Unlike a penalty, it
        gives exact zeros. With Adam the balance differs from entry to entry.
        """
        if self.family.name == "sparse":
            self.weight.copy_(F.softshrink(self.weight, lr * cast(float, self.family.strength)))

    def extra_repr(self) -> str:
        """Return widths and family."""
        return f"{self.p} -> {self.q}, {self.family}"
