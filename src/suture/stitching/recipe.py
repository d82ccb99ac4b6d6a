"""The settings of fitting stitching layers by gradient."""

from __future__ import annotations

from typing import Literal, Self

from suture._base import Count, Positive, Share, derive_seed, options
from suture.networks import Recipe
from suture.stitching.layer import Init

Objective = Literal["hard", "soft", "mixed", "match"]
Precision = Literal["float32", "bf16"]


@options
class TaskRecipe(Recipe):
    """Settings of task loss matching. The networks are frozen and in eval mode.

    The defaults are the paper's, without its augmentation (see `paper`). Epochs, batch size, learning rate
    and schedule decide if a layer converges. The result marks the cells that did not (`Comparison.marks`).

    Attributes:
        epochs: passes over the fitting data. Default 30 (the paper).
        batch_size: examples per step, where suture makes the batches. Default 256 (the paper).
        lr: peak learning rate. Default 1e-3 (the paper). Small data need more steps or a larger rate.
        weight_decay: L2 penalty for "adam" and "sgd", decoupled for "adamw". Default 1e-5 (the paper).
        optimizer: "adam" (default, the paper), "adamw", or "sgd" (Nesterov momentum 0.9).
        schedule: "constant" (default, the paper), "cosine" or "onecycle" (see
            `suture.networks.Recipe`). The last two end with smaller steps, which small data need.
            For loaders of unknown length the schedule steps once per epoch.
        crop: zero padding in pixels for random crops of images. Default 0; 4 in the paper.
        flip: mirror half of the images left to right. Default False; True in the paper.
        seed: of random initialisations, the order of the data, the augmentation and the held-out split.
            Default 0.
        init: "random" (default, the paper), "dm" (the closed-form solution) or "identity".
        objective: the mean that a layer minimises, over the examples of a batch or, for a task of tokens
            (`suture.stitching.tasks.Task`), over its scored tokens.
            "hard" (default, the paper): cross-entropy of the stitched network on the labels, in nats.
            "soft": KL divergence to the target network's own predictions, both at `temperature`, times its
                square (Hinton et al. 2015). It needs no labels; labels (N, T) only say which tokens are
                scored.
            "mixed": `mix` times soft plus 1 - `mix` times hard.
            "match": |S - T|² / |T|² of each batch, T the target's own representation. This is direct matching
                by gradient, for families or penalties without a closed form. It needs no labels and no tail.
        temperature: of "soft" and "mixed", above 0. Default 1.
        mix: share of the soft part in "mixed", between 0 and 1. Default 0.5.
        precision: "float32" (default) or "bf16": forward passes of the networks in bfloat16 (autocast), layer
            and loss in float32. "bf16" is faster on GPUs. Use "float32" where small differences matter.
        patience: number of epochs without a better held-out objective after which a layer stops. Its best
            weights are then restored. None (default): every layer runs all epochs, and no data are held out.
        held_out: share of the fitting data that is held out with `patience`, between 0 and 1. Default 0.1.

    Raises:
        SutureError: a value outside these bounds.
    """

    epochs: Count = 30
    batch_size: Count = 256
    init: Init = "random"
    objective: Objective = "hard"
    temperature: Positive = 1.0
    mix: Share = 0.5
    precision: Precision = "float32"
    patience: Count | None = None
    held_out: Share = 0.1

    @classmethod
    def paper(cls, seed: int = 0) -> Self:
        """Return the task loss matching of Balogh and Jelasity, AAAI 2025 (arXiv 2412.11299).

        Random initialisation, Adam 1e-3, weight decay 1e-5, batch 256, 30 epochs, hard labels, crops of the
        image padded by 4 pixels, flips. For 32x32 photographs.
        """
        return super().paper(seed)

    @property
    def needs_labels(self) -> bool:
        """True if the objective uses labels."""
        return self.objective in ("hard", "mixed")


def derive_cell_seed(seed: int, source: str, target: str) -> int:
    """Derive a seed for one cell that does not depend on the other cells (law 7)."""
    return derive_seed(seed, source, target)
