"""The recipe of linear probes."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field
from typing_extensions import Doc

from suture._base import Count, Positive, Real, Seed, Whole, options
from suture.representations import Shape
from suture.stitching import TaskRecipe

RATE_DROP = 0.1
"""Factor of the learning rate after `ProbeRecipe.drop` epochs (Balogh and Jelasity 2025)."""


@options
class ProbeRecipe:
    """Recipe of linear probes: an affine map of features to logits, trained with Adam on the cross-entropy.

    The defaults are those of Balogh and Jelasity, AAAI 2025 (arXiv 2412.11299), without augmentation: see
    `paper`. All probes of a call start from the same weights and see the same batches.

    Attributes:
        {options}

    Raises:
        SutureError: a value outside its bounds.
    """

    epochs: Annotated[Count, Doc("Passes over the features.")] = 10
    batch_size: Annotated[Count, Doc("Examples per step.")] = 64
    lr: Annotated[Positive, Doc("Learning rate of Adam.")] = 1e-3
    drop: Annotated[Count | None, Doc(
        "Epochs after which the learning rate is a tenth. None: it is constant.")] = 5
    weight_decay: Annotated[Real, Field(ge=0), Doc("L2 penalty.")] = 0.0
    features: Annotated[Literal["auto", "pooled", "token"], Doc(
        'Features of an example: "pooled", the mean over its positions without prefix tokens and padding; '
        '"token", the class token; or "auto", the class token where there is one.')] = "auto"
    crop: Annotated[Whole, Field(ge=0), Doc(
        "Zero padding in pixels for random crops of the original size; 0 for no crops. With crops or flips "
        "every epoch passes the data anew.")] = 0
    flip: Annotated[bool, Doc("Mirror half of the images left to right.")] = False
    seed: Annotated[Seed, Doc("Seed of first weights, of the order of examples and of the augmentation.")] = 0

    @classmethod
    def paper(cls, seed: int = 0) -> Self:
        """Return the recipe of the paper for 32x32 photographs: the defaults with crops (4) and flips."""
        return cls(crop=4, flip=True, seed=seed)

    @property
    def augmentation(self) -> TaskRecipe | None:
        """Crops and flips in the form of training; None without any."""
        if not (self.crop or self.flip):
            return None
        return TaskRecipe(crop=self.crop, flip=self.flip, objective="soft")

    def reads_token(self, shape: Shape) -> bool:
        """Return True if the features of a site are its class token."""
        return self.features == "token" or (self.features == "auto" and shape.prefix > 0)

    def find_rate(self, epoch: int) -> float:
        """Return the learning rate of an epoch, counted from 0."""
        return self.lr * (RATE_DROP if self.drop is not None and epoch >= self.drop else 1.0)
