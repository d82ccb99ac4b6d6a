"""Augmentation of images while a network is trained."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from suture._base import expect
from suture.networks.recipe import Recipe


def augment(images: Tensor, generator: torch.Generator, crop: int, flip: bool) -> Tensor:
    """Crop and flip each image of a batch at random, independently of the others.

    Args:
        images: (N, C, H, W), on any device; returned as they are without crop and flip.
        generator: a CPU generator; the draws depend on N, `crop` and `flip` alone, not on the device.
        crop: pixels of zero padding on each side, from which an H x W window is cut; 0 for none.
        flip: mirror each image left to right with probability one half, after cropping.
    """
    if crop == 0 and not flip:
        return images
    n, _, height, width = images.shape
    top, left = torch.zeros(2, n, dtype=torch.int64)
    if crop:
        top, left = torch.randint(0, 2 * crop + 1, (2, n), generator=generator)
    rows = top[:, None] + torch.arange(height)
    columns = left[:, None] + torch.arange(width)
    if flip:
        mirrored = torch.rand(n, generator=generator) < 0.5
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    padded = F.pad(images, (crop, crop, crop, crop)).permute(0, 2, 3, 1)
    rows, columns = rows.to(images.device), columns.to(images.device)
    example = torch.arange(n, device=images.device)[:, None, None]
    picked = padded[example, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2).contiguous()


def check_images(inputs: Tensor, recipe: Recipe) -> None:
    """Check that inputs are images (N, C, H, W) if the recipe crops or flips them."""
    expect(inputs.ndim == 4 or not (recipe.crop or recipe.flip), "images (N, C, H, W) to crop and flip",
           inputs, "write crop=0, flip=False")
