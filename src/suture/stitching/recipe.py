"""The settings of task loss matching."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from typing_extensions import Doc

from suture._base import Count, Positive, Seed, Share, options
from suture.networks import Recipe
from suture.stitching.layer import Init

Objective = Literal["hard", "soft", "mixed", "match"]
Precision = Literal["float32", "bf16"]


@options
class TaskRecipe(Recipe):
    """Settings of task loss matching. A value outside its bounds raises a `SutureError`.

    The defaults are the paper's, without its augmentation (see `paper`). For loaders of unknown length the
    learning rate changes once per epoch. The objective is a mean over examples or, for a task of tokens,
    scored tokens:

    - "hard" (the paper): cross-entropy of the stitched network on the labels, in nats.
    - "soft": KL divergence to the target network's predictions, both at `temperature`, times `temperature`²
      (Hinton et al. 2015). It needs no labels; labels (N, T) only say which tokens are scored.
    - "mixed": `mix` times soft plus 1 - `mix` times hard.
    - "match": |S - T|² / |T|² of each batch, with stitched S and native T. This is direct matching by
      gradient, for families or penalties without a closed form. It needs no labels and no tail.

    Attributes:
        {options}
    """

    epochs: Annotated[Count, Doc("Training epochs.")] = 30
    batch_size: Annotated[Count, Doc("Examples per step, where suture makes the batches.")] = 256
    seed: Annotated[Seed, Doc(
        "Seed of random layers, the order of the data, the augmentation and the held-out split.")] = 0
    init: Annotated[Init, Doc(
        'Initial layer: "random" (the paper), "dm" (the closed-form solution) or "identity".')] = "random"
    objective: Annotated[Objective, Doc(
        'Objective of a layer: "hard" (labels), "soft" (predictions of the target network), "mixed", or '
        '"match" (representations of the target network).')] = "hard"
    temperature: Annotated[Positive, Doc('Temperature of "soft" and "mixed".')] = 1.0
    mix: Annotated[Share, Doc('Share of the soft part in "mixed".')] = 0.5
    precision: Annotated[Precision, Doc(
        'Precision of the forward passes: "float32", or "bf16" (autocast). Layer and loss stay in float32. '
        "bf16 is faster on GPUs, and too coarse where small differences matter.")] = "float32"
    patience: Annotated[Count | None, Doc(
        "Epochs without a better held-out objective after which a layer stops, with its best weights. None: "
        "every layer runs all epochs, and no data are held out.")] = None
    held_out: Annotated[Share, Doc("Share of the fitting data that is held out with `patience`.")] = 0.1

    @classmethod
    def paper(cls, seed: int = 0) -> Self:
        """Return the settings of Balogh and Jelasity, AAAI 2025 (arXiv 2412.11299), for 32x32 photographs.

        They add crops of the image padded by 4 pixels, and flips, to the defaults.
        """
        return super().paper(seed)

    @property
    def needs_labels(self) -> bool:
        """True if the objective uses labels."""
        return self.objective in ("hard", "mixed")
