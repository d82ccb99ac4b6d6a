"""The recipe, the classifier and the loss of trained energy detectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Doc

from suture._base import Count, Positive, Real, SutureError, Whole, derive_seed, options, seed_torch
from suture.networks import MLP, GradientRecipe, ResNet, ViT, disable_gradients, freeze, resnet18
from suture.numbers import Resizing
from suture.ood.features import SiteFeatures
from suture.representations import Kind, Shape, View, get_row_mask, select_mask

BodyName = Literal["auto", "paper", "resnet18", "resnet_small", "vit_tiny", "vit_small", "mlp"]
SCORE_BATCH = 256
"""Largest number of examples that are scored at once."""

# Texts get no position embeddings, because their padding differs between batches.
_BODIES: Mapping[str, tuple[Kind, Callable[[Shape, int], nn.Module]]] = {
    "resnet18": (Kind.MAP, lambda s, classes: resnet18(classes, s.width)),
    "resnet_small": (Kind.MAP,
                     lambda s, classes: ResNet((16, 32, 64), (1, 1, 1), (1, 2, 2), s.width, classes)),
    "vit_tiny": (Kind.TOKENS, lambda s, classes: ViT(s.width, None if s.varies else s.size[0], classes)),
    "vit_small": (Kind.TOKENS,
                  lambda s, classes: ViT(s.width, None if s.varies else s.size[0], classes, 64, 2, 2)),
    "mlp": (Kind.VECTOR, lambda s, classes: MLP(s.width, classes)),
}
_BY_KIND: Mapping[str, Mapping[Kind, str]] = {
    "auto": {Kind.MAP: "resnet_small", Kind.TOKENS: "vit_small", Kind.VECTOR: "mlp"},
    "paper": {Kind.MAP: "resnet18", Kind.TOKENS: "vit_tiny", Kind.VECTOR: "mlp"},
}


@options
class EnergyRecipe(GradientRecipe):
    """Settings of training energy detectors.

    The defaults are the paper's, without its large classifiers. The options from `epochs` to `seed`
    belong to the cross-entropy epochs. In fine-tuning, `batch_size` auxiliary examples are added to each
    batch that suture makes. `seed` decides initial weights, augmentation and the order of auxiliary data. A
    value outside its bounds, or `inside` not below `outside`, raises a `SutureError`.

    Attributes:
        {options}
    """

    epochs: Annotated[Count, Doc("Epochs of cross-entropy that train a detector.")] = 100
    tune_epochs: Annotated[Whole, Field(ge=0), Doc(
        "Epochs of fine-tuning with the energy margins, with a new optimiser; 0 for none.")] = 10
    tune_lr: Annotated[Positive, Doc("Learning rate of the first half of the fine-tuning epochs. The second "
                                     "half has a tenth of it.")] = 1e-3
    inside: Annotated[Real, Doc("Energy above which in-distribution examples are penalised (Liu et al. "
                                "2020).")] = -25.0
    outside: Annotated[Real, Doc("Energy below which auxiliary examples are penalised.")] = -7.0
    weight: Annotated[Real, Field(ge=0), Doc("Weight of both penalties.")] = 0.1
    body: Annotated[BodyName, Doc(
        'Classifier of a trained detector: auto, paper, resnet18, resnet_small, vit_tiny, vit_small or mlp. '
        '"auto" (default): "resnet_small" for maps (widths 16, 32, 64, one block each), '
        '"vit_small" for tokens (64 dimensions, 2 blocks), "mlp" for vectors (one hidden layer of 128). '
        '"paper": "resnet18", "vit_tiny" (192 dimensions, 12 blocks), "mlp". The name of a body works for '
        "sites of its kind.")] = "auto"

    @model_validator(mode="after")
    def _check_margins(self) -> Self:
        if self.inside >= self.outside:
            raise SutureError(f"inside: expected an energy below outside={self.outside}, got {self.inside}")
        return self

    @classmethod
    def paper(cls, seed: int = 0) -> Self:
        """Return the recipe of Balogh and Jelasity, AAAI 2025 (arXiv 2412.11299), for 32x32 photographs.

        100 epochs of cross-entropy and 10 of fine-tuning, Adam 1e-3, weight decay 1e-5, batch 64, crops of
        the image padded by 4 pixels, flips, ResNet-18 and ViT-Ti.

        Two errors of their code (github.com/szegedai/stitching-ood) are corrected. It lowered the fine-tuning
        rate after 5 *batches* instead of 5 epochs. It cropped only auxiliary images, whose black border gave
        them away. Further, fine-tuning uses 64 and 64 examples per step, not 32 and 32, and the ViT has its
        own class token and positions.
        """
        return cls(crop=4, flip=True, seed=seed, body="paper")


def compute_energy(logits: Tensor) -> Tensor:
    """Return the energies (N,) of logits (N, classes), minus their log-sum-exp (Liu et al. 2020, eq. 4)."""
    return -logits.logsumexp(1)


def compute_energy_loss(inside_logits: Tensor, outside_logits: Tensor, labels: Tensor,
                        recipe: EnergyRecipe) -> Tensor:
    """Return cross-entropy plus squared hinges on both sides' energies (Liu et al. 2020, eq. 7 and 8).

    CE + weight (mean relu(E_in - inside)² + mean relu(outside - E_out)²), with logits (N, classes) inside and
    (M, classes) outside. Each mean is over its own examples, as in the authors' code, the paper's and
    pytorch-ood.
    """
    above = F.relu(compute_energy(inside_logits) - recipe.inside).square().mean()
    below = F.relu(recipe.outside - compute_energy(outside_logits)).square().mean()
    return F.cross_entropy(inside_logits, labels) + recipe.weight * (above + below)


class EnergyClassifier(nn.Module):
    """A classifier of the representations of a site.

    Channels are standardised by the in-distribution `mean` and `std`, unlike in the paper, so that every body
    gets inputs of the scale that it was designed for. Maps (C, H, W) are then resized to `size` (height,
    width; bilinear, corners not aligned). Maps (C, T) are maps of height 1. The recipe's seed and the name of
    the `site` decide the initial weights.

    Raises:
        SutureError: a body for another kind, a map (C, D, H, W), or a map (C, T) of varying length.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, shape: Shape, classes: int, recipe: EnergyRecipe, size: tuple[int, ...] | None = None,
                 site: str = "") -> None:
        super().__init__()
        name = _BY_KIND[recipe.body][shape.kind] if recipe.body in _BY_KIND else recipe.body
        kind, make_body = _BODIES[name]
        if kind is not shape.kind:
            raise SutureError(f"expected a body for {shape.kind.value}, got {name!r} for the site {site!r} "
                              f"of {shape}; write body='auto' or body='paper', which suit every site")
        if len(shape.size) > 2 or (shape.varies and kind is Kind.MAP):
            raise SutureError(f"energy detectors have no body for the site {site!r} of {shape}; leave energy "
                              "out of detectors, or leave this site out")
        self.shape = shape
        with seed_torch(derive_site_seed(recipe.seed, site)):
            self.body = make_body(shape, classes)
        self._size = (size or shape.size) if len(shape.size) == 2 else (1, *shape.size)
        self._is_map = kind is Kind.MAP
        self.register_buffer("mean", torch.zeros(shape.width))
        self.register_buffer("std", torch.ones(shape.width))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the logits (N, classes) of representations; `mask` (N, T) is False for padding tokens."""
        x = x.float()
        if self._is_map:
            x = x.movedim(-1, 1) if self.shape.last else x
            x = (x if x.ndim == 4 else x[:, :, None]) - self.mean[:, None, None]
            image = x / self.std[:, None, None]
            image = Resizing(tuple(image.shape[2:]), self._size).resize_map(image)
            return self.body(image)  # type: ignore[no-any-return]
        x = (x - self.mean) / self.std
        kept = get_row_mask(self.shape, View.ALL, mask) if self.shape.size else None
        if kept is None:
            return self.body(x)  # type: ignore[no-any-return]
        # Attention gives padding weight zero, and zero times NaN is NaN.
        return self.body(x.masked_fill(~kept.flatten(1)[..., None], 0),  # type: ignore[no-any-return]
                         kept.flatten(1))

    def score(self, seen: SiteFeatures) -> Tensor:
        """Return minus the energies (N,), in eval mode."""
        parts = torch.split(seen.x, SCORE_BATCH)
        mask = select_mask(seen.mask, self.shape.sequence)
        masks = [None] * len(parts) if mask is None else torch.split(mask, SCORE_BATCH)
        with freeze(self), disable_gradients():
            return torch.cat([-compute_energy(self(x, mask)) for x, mask in zip(parts, masks, strict=True)])


def derive_site_seed(seed: int, site: str) -> int:
    """Return a seed for one site, independent of other sites (law 7)."""
    return derive_seed(seed, "energy", site)
