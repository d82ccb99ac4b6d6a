"""A trained detector: a classifier on the representations of a site, its energy, and its recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from suture._base import Positive, Real, SutureError, Whole, derive_seed, expect, options, seed_torch
from suture.networks import (
    MLP,
    Recipe,
    ResNet,
    ViT,
    disable_gradients,
    freeze,
    resnet18,
)
from suture.numbers import Resizing
from suture.ood.detectors.site_features import SiteFeatures
from suture.representations import Kind, Shape, View, get_row_mask

BodyName = Literal["auto", "paper", "resnet18", "resnet_small", "vit_tiny", "vit_small", "mlp"]
LEAST_CHANNEL_STD = 0.01
"""Smallest standard deviation of a channel, relative to the root mean square of all. It limits the scale of a
channel that is almost constant on the native data but not elsewhere."""
SCORE_BATCH = 256
"""Largest number of examples that are scored at once."""

_BODIES: Mapping[str, tuple[Kind, Callable[[Shape, int], nn.Module]]] = {
    "resnet18": (Kind.MAP, lambda shape, classes: resnet18(classes, shape.width)),
    "resnet_small": (Kind.MAP,
                     lambda shape, classes: ResNet((16, 32, 64), (1, 1, 1), (1, 2, 2), shape.width, classes)),
    "vit_tiny": (Kind.TOKENS, lambda shape, classes: ViT(shape.width, _count_positions(shape), classes)),
    "vit_small": (Kind.TOKENS,
                  lambda shape, classes: ViT(shape.width, _count_positions(shape), classes, 64, 2, 2)),
    "mlp": (Kind.VECTOR, lambda shape, classes: MLP(shape.width, classes)),
}
_BY_KIND: Mapping[str, Mapping[Kind, str]] = {
    "auto": {Kind.MAP: "resnet_small", Kind.TOKENS: "vit_small", Kind.VECTOR: "mlp"},
    "paper": {Kind.MAP: "resnet18", Kind.TOKENS: "vit_tiny", Kind.VECTOR: "mlp"},
}


def _count_positions(shape: Shape) -> int | None:
    """Return the number of positions that a body tells apart.

    It is None for texts, because their padding differs between batches.
    """
    return None if shape.varies else shape.size[0]


@options
class EnergyRecipe(Recipe):
    """Settings of training energy detectors.

    The defaults are the paper's, without its augmentation and its large bodies.

    Attributes:
        epochs: of cross-entropy. Default 100.
        batch_size: examples per step, where suture makes the batches. Default 64. Fine-tuning adds as many
            auxiliary examples.
        lr: peak learning rate of the cross-entropy epochs. Default 1e-3.
        weight_decay, optimizer, schedule, crop, flip: see `suture.networks.Recipe`. The schedule
            covers the cross-entropy epochs and steps once per batch.
        seed: of the random starts, the augmentation and the order of the auxiliary data. Default 0.
        tune_epochs: of fine-tuning with the energy margins, with a new optimiser. Default 10; 0 for none.
        tune_lr: learning rate of the first half of the fine-tuning epochs. The second half has a tenth of it.
            Default 1e-3.
        inside: energy above which in-distribution examples are penalised. Default -25 (Liu et al. 2020).
        outside: energy below which auxiliary examples are penalised. Default -7.
        weight: of both penalties. Default 0.1.
        body: the classifier. "auto" (default): "resnet_small" for maps (widths 16, 32, 64, one block each),
            "vit_small" for tokens (64 dimensions, 2 blocks), "mlp" for vectors (one hidden layer of 128).
            "paper": "resnet18", "vit_tiny" (192 dimensions, 12 blocks), "mlp". One of these names also works,
            for sites of its kind.

    Raises:
        SutureError: a value outside these bounds; `inside` not below `outside`.
    """

    tune_epochs: Annotated[Whole, Field(ge=0)] = 10
    tune_lr: Positive = 1e-3
    inside: Real = -25.0
    outside: Real = -7.0
    weight: Annotated[Real, Field(ge=0)] = 0.1
    body: BodyName = "auto"

    def __post_init__(self) -> None:
        expect(self.inside < self.outside, "an energy `inside` below `outside`",
               f"{self.inside} and {self.outside}", "leave them out for -25 and -7")

    @classmethod
    def paper(cls, seed: int = 0) -> Self:
        """Return the recipe of Balogh and Jelasity, AAAI 2025 (arXiv 2412.11299), for 32x32 photographs.

        100 epochs of cross-entropy and 10 of fine-tuning, Adam 1e-3, weight decay 1e-5, batch 64, crops of
        the image padded by 4 pixels, flips, ResNet-18 and ViT-Ti bodies.

        Two errors of the published code (github.com/szegedai/stitching-ood) are not repeated. Its fine-tuning
        rate fell after half of the epochs' number of *batches*. It cropped only the auxiliary images, so that
        a black border gave them away. Two more differences: a step of fine-tuning has 64 and 64 examples
        instead of 32 and 32, and the ViT has its own class token and positions.
        """
        return cls(crop=4, flip=True, seed=seed, body="paper")


def energy(logits: Tensor) -> Tensor:
    """Return the energies (N,) of logits (N, classes).

    The energy is minus the log-sum-exp of the logits (Liu et al. 2020, equation 4, temperature 1).
    """
    return -logits.logsumexp(1)


def energy_loss(inside_logits: Tensor, outside_logits: Tensor, labels: Tensor,
                recipe: EnergyRecipe) -> Tensor:
    """Return cross-entropy plus squared hinges on the energies of both sides (Liu et al. 2020, eq. 7 and 8).

    CE + weight (mean relu(E_in - inside)² + mean relu(outside - E_out)²). Each mean is over its own examples,
    as in the code of the authors, of the paper and of pytorch-ood.

    Args:
        inside_logits: (N, classes) of in-distribution examples.
        outside_logits: (M, classes) of auxiliary ones.
        labels: (N,) class numbers of the in-distribution examples.
        recipe: gives margins and weight.
    """
    above = F.relu(energy(inside_logits) - recipe.inside).square().mean()
    below = F.relu(recipe.outside - energy(outside_logits)).square().mean()
    return F.cross_entropy(inside_logits, labels) + recipe.weight * (above + below)


class EnergyDetector(nn.Module):
    """A classifier on the representations of a site.

    Its score is minus its energy: the log-sum-exp of its logits.

    Channels are first standardised by their mean and standard deviation on the in-distribution data. These
    are the buffers `mean` and `std`, from one pass before training; a standard deviation is at least
    `LEAST_CHANNEL_STD` of the typical one. The paper does not standardise; suture does, so that every body
    starts at the input scale that it was designed for. Maps are then resized to `size` (bilinear, corners not
    aligned).

    Args:
        shape: of one representation.
        body: module that gives logits; for tokens it also gets a mask.
        size: (height, width) that maps are resized to.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, shape: Shape, body: nn.Module, size: tuple[int, int] | None) -> None:
        super().__init__()
        self.shape, self.body = shape, body
        self._resize = None
        if shape.kind is Kind.MAP:
            own = (shape.size[0], shape.size[1])
            self._resize = Resizing(own, size or own)
        self.register_buffer("mean", torch.zeros(shape.width))
        self.register_buffer("std", torch.ones(shape.width))

    @classmethod
    def make(cls, shape: Shape, classes: int, recipe: EnergyRecipe, size: tuple[int, int] | None = None,
             site: str = "") -> Self:
        """Return an untrained detector, to be trained or filled by `load_state_dict`.

        Args:
            shape: of one representation.
            classes: number of logits.
            recipe: gives the body and the seed.
            size: (height, width) that maps are resized to; default: their own.
            site: name of the site; with the recipe's seed it decides the random start.

        Raises:
            SutureError: a body that does not suit the shape.
        """
        name = _BY_KIND[recipe.body][shape.kind] if recipe.body in _BY_KIND else recipe.body
        kind, body = _BODIES[name]
        if kind is not shape.kind:
            raise SutureError(f"expected a body for {shape.kind.value}, got {name!r} for the site {site!r} "
                              f"of {shape}; write body='auto' or body='paper', which suit every site")
        with seed_torch(derive_site_seed(recipe.seed, site)):
            return cls(shape, body(shape, classes), size)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the logits (N, classes) of representations; `mask` (N, T) is for tokens.

        Raises:
            SutureError: representations of another shape than `shape`.
        """
        self._check_shape(x)
        x = x.float()
        if self._resize is not None:
            x = x.permute(0, 3, 1, 2) if self.shape.last else x
            logits: Tensor = self.body(
                self._resize.resize_map((x - self.mean[:, None, None]) / self.std[:, None, None]))
            return logits
        x = (x - self.mean) / self.std
        if self.shape.kind is Kind.VECTOR:
            return self.body(x)  # type: ignore[no-any-return]
        kept = get_row_mask(self.shape, View.ALL, mask)
        if kept is None:
            return self.body(x)  # type: ignore[no-any-return]
        kept = kept.flatten(1)
        # Attention gives these tokens weight zero, and zero times NaN is NaN.
        return self.body(x.masked_fill(~kept[..., None], 0), kept)  # type: ignore[no-any-return]

    def score(self, site_features: SiteFeatures) -> Tensor:
        """Return minus the energy (N,), larger = more in-distribution.

        It runs in eval mode, without gradients, in small batches.
        """
        x, mask = site_features.x, site_features.mask
        with freeze(self), disable_gradients():
            return torch.cat(
                [-energy(self(x[k:k + SCORE_BATCH], None if mask is None else mask[k:k + SCORE_BATCH]))
                 for k in range(0, max(1, len(x)), SCORE_BATCH)])

    def _check_shape(self, x: Tensor) -> None:
        if not self.shape.fits(x):
            raise SutureError("expected representations of shape (N, "
                              f"{', '.join(map(str, self.shape.dims))}), got {tuple(x.shape)}; a detector "
                              "scores the site that it was trained for")


def derive_site_seed(seed: int, site: str) -> int:
    """Derive a seed for one site that does not depend on the other sites (law 7)."""
    return derive_seed(seed, "energy", site)
