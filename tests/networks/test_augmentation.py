"""Crops and flips against a slow reference, image by image."""

from __future__ import annotations

import pytest
import torch

from suture._base.errors import SutureError
from suture.networks.training import Recipe, augment, check_images


def slow_augment(images: torch.Tensor, generator: torch.Generator, crop: int, flip: bool) -> torch.Tensor:
    """One image, one shift, one flip at a time, with the draws in the documented order."""
    n, _, height, width = images.shape
    shifts = torch.randint(0, 2 * crop + 1, (2, n), generator=generator) if crop else torch.zeros(2, n).long()
    mirrored = torch.rand(n, generator=generator) < 0.5 if flip else torch.zeros(n).bool()
    out = torch.zeros_like(images)
    for i in range(n):
        for y in range(height):
            for x in range(width):
                from_y = y + int(shifts[0, i]) - crop
                from_x = (width - 1 - x if mirrored[i] else x) + int(shifts[1, i]) - crop
                if 0 <= from_y < height and 0 <= from_x < width:
                    out[i, :, y, x] = images[i, :, from_y, from_x]
    return out


@pytest.mark.parametrize(("crop", "flip"), [(0, False), (1, False), (0, True), (2, True), (9, True)])
def test_augment_equals_the_slow_reference(crop: int, flip: bool) -> None:
    images = torch.rand((12, 2, 5, 7), generator=torch.Generator().manual_seed(0))
    kept = images.clone()
    fast = augment(images, torch.Generator().manual_seed(4), crop, flip)
    slow = slow_augment(images, torch.Generator().manual_seed(4), crop, flip)
    assert torch.equal(fast, slow)
    assert torch.equal(images, kept)
    assert fast.is_contiguous()


def test_augment_draws_every_shift_and_both_sides() -> None:
    """A lit pixel in the middle must reach all (2 * 2 + 1)^2 places, and its neighbour either side of it."""
    images = torch.zeros(2000, 1, 5, 5)
    images[:, 0, 2, 2] = 1
    assert (augment(images, torch.Generator().manual_seed(0), 2, False).sum((0, 1)) > 0).all()
    images[:, 0, 2, 1] = 2
    sides = augment(images, torch.Generator().manual_seed(0), 0, True)[:, 0, 2, 3] == 2
    assert 0.45 < sides.float().mean() < 0.55


def test_images_in_a_batch_are_shifted_each_on_its_own() -> None:
    images = torch.rand((1, 1, 6, 6), generator=torch.Generator().manual_seed(0)).expand(30, 1, 6, 6)
    moved = augment(images, torch.Generator().manual_seed(0), 1, True)
    assert len(torch.unique(moved.flatten(1), dim=0)) > 9


@pytest.mark.parametrize("recipe", [Recipe(crop=1), Recipe(flip=True)])
def test_images_are_checked_only_where_they_are_augmented(recipe: Recipe) -> None:
    with pytest.raises(SutureError, match=r"\(N, C, H, W\).*\(4, 2\); write crop=0, flip=False"):
        check_images(torch.zeros(4, 2), recipe)
    check_images(torch.zeros(4, 1, 2, 2), recipe)
    check_images(torch.zeros(4, 2), Recipe())
