"""The recipe of trained energy detectors."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from typing_extensions import Doc

from suture._base import Count, Positive, Real, SutureError, Whole, options
from suture.networks import Recipe

BodyName = Literal["auto", "paper", "resnet18", "resnet_small", "vit_tiny", "vit_small", "mlp"]


@options
class EnergyRecipe(Recipe):
    """Settings of training energy detectors.

    The defaults are the paper's, without its large classifiers. The options of `suture.networks.Recipe`
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
