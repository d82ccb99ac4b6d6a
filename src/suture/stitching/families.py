"""The smaller and the penalised families of affine maps, and the table of all families."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import Doc

from suture._base import Count, Positive, Share, expect, options
from suture.numbers import (
    Moments,
    NumericalError,
    Pair,
    exponentiate_matrix,
    find_varying_columns,
    qr,
    solve_least_squares,
    svd,
)
from suture.stitching.direct_matching import assign_rows, choose_ridge, solve_lasso
from suture.stitching.family import LINEAR, RIGID, Family, Full, draw_weights

_SCALE = frozenset({"translation", "scaling"})
_ORDER = frozenset({"translation", "permutation"})
_AXES = _SCALE | _ORDER


@options
class Ridge(Family):
    """Every affine map, with a penalty on the squares of W (Hoerl and Kennard 1970).

    The closed form adds lambda |W|², lambda = strength * tr(Sxx) / p (``alpha`` of scikit-learn's ``Ridge``),
    so units and number of rows do not matter. Training adds strength * |W|² / p to the task loss. The two
    strengths have different units.

    Attributes:
        {options}
    """

    strength: Annotated[Positive | Literal["cv"], Doc(
        "Strength of the penalty, above 0. \"cv\" chooses it by cross-validation.")]

    name, examples = "ridge", ("ridge:0.1", "ridge:cv")
    invariances = RIGID, RIGID
    penalised = True

    @property
    def needs_folds(self) -> bool:
        return self.strength == "cv"

    def choose(self, folds: Sequence[Moments] | None, pair: Pair | None = None) -> Family:
        return Ridge(choose_ridge(folds or (), pair)) if self.needs_folds else self

    def solve(self, pair: Pair) -> Tensor:
        return solve_least_squares(pair.x, pair.moments, cast(float, self.strength))

    def compute_loss(self, weight: Tensor, pair: Pair) -> Tensor:
        lam = cast(float, self.strength) * torch.trace(pair.moments.sxx) / pair.x.width
        return super().compute_loss(weight, pair) + lam * weight.square().sum()

    def count_parameters(self, weight: Tensor, pair: Pair) -> float:
        penalised = pair.x.add_ridge(pair.moments, cast(float, self.strength))
        return float((pair.x.values / penalised).sum())

    def check_training(self) -> None:
        expect(not self.needs_folds, "a number as the strength of ridge in training", str(self),
               "write ridge:0.1 or methods=['dm']")

    def penalty(self, weight: Tensor) -> Tensor:
        return cast(float, self.strength) * weight.square().sum() / weight.shape[1]


@options
class Rank(Family):
    """Affine maps with a W of rank at most k.

    W = V_k V_k' Syx Sxx^+, with V_k the first k eigenvectors of the scatter of the fitted values
    (reduced-rank regression, Izenman 1975). In training W = L R, L (q, k) is ``left`` and R (k, p) is
    ``right``.

    Attributes:
        {options}
    """

    rank: Annotated[Count, Doc("Largest rank k of W.")]

    name, examples, invariances = "rank", ("rank:8",), (LINEAR, RIGID)

    def check(self, p: int, q: int) -> None:
        expect(self.rank <= min(p, q), f"a rank of at most {min(p, q)} for {p} into {q} channels", self.rank,
               "write full")

    def solve(self, pair: Pair) -> Tensor:
        # The scatter of the fitted values is the square of this matrix, which keeps twice the digits.
        fitted = (pair.x.vectors / pair.x.values.sqrt()).T @ pair.moments.sxy
        first: Tensor = svd(fitted)[2][:self.rank]
        scores: Tensor = first @ solve_least_squares(pair.x, pair.moments)
        return torch.mm(first.T, scores)

    def count_parameters(self, weight: Tensor, pair: Pair) -> float:
        k, q = min(self.rank, pair.x.rank), len(weight)
        return k * (pair.x.rank + q - k) / q

    def make_identity(self, p: int, q: int) -> Tensor:
        eye = torch.eye(q, p)
        eye[self.rank:] = 0
        return eye

    def draw(self, p: int, q: int, generator: torch.Generator) -> Tensor:
        # The entries of W have the variance of a free W.
        left = draw_weights((q, self.rank), (3 / self.rank) ** 0.5, generator)
        return left @ draw_weights((self.rank, p), p**-0.5, generator)

    def split(self, weight: Tensor) -> dict[str, Tensor]:
        u, s, vh = svd(weight)
        root = s[:self.rank].sqrt()
        return {"left": u[:, :self.rank] * root, "right": root[:, None] * vh[:self.rank]}

    def join(self, parts: Mapping[str, Tensor]) -> Tensor:
        return parts["left"] @ parts["right"]


@options
class Orthogonal(Family):
    """Rotations, reflections and isometries: W = s Q, with orthonormal columns of Q and p at most q.

    W = s U V' with U D V' = Syx and s = tr D / tr Sxx, or s = 1 without free scale (Schonemann 1966). It is
    exact also for p < q, because |Q x| = |x|. Without free shift, the second moments are about zero.

    In training W = exp(log_scale) exp(A - A') Q, with ``angle`` A (q, q) and a constant ``base`` Q (q, p).
    exp(A - A') is a rotation, so for p = q training keeps the sign of det W.

    Attributes:
        {options}
    """

    scale: Annotated[bool, Doc("True leaves the scale s free, False fixes it at 1.")] = True
    shift: Annotated[bool, Doc("True leaves b free, False fits with b = 0, not subtracting means.")] = True

    name, constants = "orthogonal", frozenset({"base"})
    examples = "orthogonal", "orthogonal:noscale", "orthogonal:noshift", "orthogonal:noscale,noshift"

    @property
    def invariances(self) -> tuple[frozenset[str], frozenset[str]]:  # type: ignore[override]
        fixed = {t for t, free in (("scaling", self.scale), ("translation", self.shift)) if not free}
        return RIGID - fixed, RIGID - fixed

    def check(self, p: int, q: int) -> None:
        expect(p <= q, f"at most as many source as target channels for {self}", f"{p} into {q}",
               f"use rank:{q} or full, or swap source and target")

    def solve(self, pair: Pair) -> Tensor:
        m = pair.moments
        syx, scatter = m.sxy.T, torch.trace(m.sxx)
        if not self.shift:
            syx = syx + m.n * torch.outer(m.y.mean, m.x.mean)
            scatter = scatter + m.n * m.x.mean @ m.x.mean
        u, d, vh = svd(syx)
        rotation = torch.mm(u, vh)
        if not self.scale:
            return rotation
        constant = float(scatter) <= 0 or (self.shift and pair.x.rank == 0)
        return torch.zeros_like(syx) if constant else d.sum() / scatter * rotation

    def count_parameters(self, weight: Tensor, pair: Pair) -> float:
        q, p = weight.shape
        return (p * q - p * (p + 1) / 2) / q

    def draw(self, p: int, q: int, generator: torch.Generator) -> Tensor:
        # Uniformly distributed (Mezzadri 2007).
        base, r = qr(torch.randn(q, p, dtype=torch.float64, generator=generator))
        return torch.mul(base, r.diagonal().sign())

    def split(self, weight: Tensor) -> dict[str, Tensor]:
        # The polar decomposition; the mean singular value is the best scale.
        u, s, vh = svd(weight)
        # A constant source has the map 0, whose scale has no logarithm.
        scale = {"log_scale": s.mean().clamp(min=1e-30).log()} if self.scale else {}
        return {"angle": weight.new_zeros(len(weight), len(weight)), "base": u @ vh} | scale

    def join(self, parts: Mapping[str, Tensor]) -> Tensor:
        angle = parts["angle"]
        turned: Tensor = exponentiate_matrix(angle - angle.T) @ parts["base"]
        return parts["log_scale"].exp() * turned if "log_scale" in parts else turned


@options
class Diagonal(Family):
    """Maps that scale and shift each channel alone, fitted by one regression each; ``factors`` is (p,)."""

    name, examples, square = "diagonal", ("diagonal",), True
    invariances = _SCALE, _SCALE

    def solve(self, pair: Pair) -> Tensor:
        m = pair.moments
        slopes = m.sxy.diagonal() / m.sxx.diagonal()
        return torch.where(find_varying_columns(m.x, m.precision), slopes, 0.0).diag()

    def count_parameters(self, weight: Tensor, pair: Pair) -> float:
        return 1.0

    def draw(self, p: int, q: int, generator: torch.Generator) -> Tensor:
        return draw_weights((q,), 1.0, generator).diag()  # ±1/sqrt(1): each output has one input

    def split(self, weight: Tensor) -> dict[str, Tensor]:
        return {"factors": weight.diagonal()}

    def join(self, parts: Mapping[str, Tensor]) -> Tensor:
        return parts["factors"].diag()


@options
class Permutation(Family):
    """Maps that permute the channels and shift them.

    The closed form maximises the sum of the assigned channels' correlations (Li et al. 2015). A constant
    channel has correlation 0.
    """

    name, examples = "permutation", ("permutation",)
    invariances = _ORDER, _ORDER
    square, trainable = True, False

    def solve(self, pair: Pair) -> Tensor:
        return assign_rows(pair.correlations).T.contiguous()

    def compute_loss(self, weight: Tensor, pair: Pair) -> Tensor:
        return -(weight * pair.correlations.T).sum()

    def draw(self, p: int, q: int, generator: torch.Generator) -> Tensor:
        return torch.eye(p)[torch.randperm(p, generator=generator)]

    def split(self, weight: Tensor) -> dict[str, Tensor]:
        return {"weight": assign_rows(weight)}


@options
class Identity(Family):
    """The identity, with b = 0."""

    name, examples = "identity", ("identity",)
    invariances = frozenset(), frozenset()
    shift, square, trainable = False, True, False

    def solve(self, pair: Pair) -> Tensor:
        return torch.eye(pair.x.width).to(pair.moments.sxx)

    def draw(self, p: int, q: int, generator: torch.Generator) -> Tensor:
        return torch.eye(p)

    def split(self, weight: Tensor) -> dict[str, Tensor]:
        return {"weight": torch.eye(len(weight), dtype=weight.dtype, device=weight.device)}


@options
class Sparse(Family):
    """Every affine map, with a penalty on the absolute values of W (the lasso, `solve_lasso`).

    Training adds strength * sum |W| to the task loss, by a proximal step instead of its gradient: after each
    optimiser step of learning rate lr, the entries of W move towards 0 by lr * strength and stop there. This
    gives exact zeros. With Adam, the effective strength differs between entries. The strengths of closed form
    and training have different units.

    Attributes:
        {options}
    """

    strength: Annotated[Share, Doc("Strength of the penalty, relative to that at which W becomes 0.")]

    name, examples = "sparse", ("sparse:0.01",)
    invariances = _AXES, _AXES
    penalised = True

    def solve(self, pair: Pair) -> Tensor:
        found = solve_lasso(pair, self.strength)
        if found is None:
            raise NumericalError(f"{self} does not converge for a source of condition "
                                 f"{pair.x.condition:.1e}; write a larger strength, or ridge")
        return found

    def compute_loss(self, weight: Tensor, pair: Pair) -> Tensor:
        alpha = self.strength * pair.moments.sxy.abs().max()
        return super().compute_loss(weight, pair) / 2 + alpha * weight.abs().sum()

    def count_parameters(self, weight: Tensor, pair: Pair) -> float:
        return float((weight != 0).sum()) / len(weight)

    def shrink(self, weight: Tensor, lr: float) -> Tensor:
        return F.softshrink(weight, lr * self.strength)


FAMILIES: dict[str, type[Family]] = {
    f.name: f for f in (Full, Ridge, Rank, Orthogonal, Diagonal, Permutation, Identity, Sparse)}
"""Every family by name. A class added here is known to `Family.parse`."""
