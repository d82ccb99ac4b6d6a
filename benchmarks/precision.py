"""How far float32 moments are from float64 ones: the error that the rank cut of `suture.numbers.spectra` must
cover.

Largest eigenvalue of the difference of the two scatters over the largest of the scatter, in units of float32
eps, for every block of ResNet-18 at 32x32 (random weights) and growing n.
"""

from __future__ import annotations

import sys

import torch

from common import claim, header
from suture import zoo
from suture.networks.sites import capture
from suture.representations.aligned_moments import AlignedMoments
from suture.representations.shapes import recognise_shape


def main() -> int:
    """Print the worst error for each n."""
    network = zoo.build("resnet18")
    worst = 0.0
    for n in (64, 256, 1024):
        header("precision", n)
        errors: dict[str, float] = {}
        made: dict[str, dict[torch.dtype, AlignedMoments]] = {}
        for k in range(0, n, 64):
            images = torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(k))
            for name, x in capture(network, images).items():
                shape = recognise_shape(x)
                for dtype in (torch.float32, torch.float64):
                    moments = made.setdefault(name, {}).setdefault(dtype, AlignedMoments(
                        [shape], [shape], same=True, precision=dtype))
                    moments.update([x], [x])
        for name, pair in made.items():
            rough, exact = (pair[d].get_moments(0, 0).sxx for d in (torch.float32, torch.float64))
            error = torch.linalg.eigvalsh(rough - exact).abs().max() / torch.linalg.eigvalsh(exact).max()
            errors[name] = float(error) / torch.finfo(torch.float32).eps
        print("  " + ", ".join(f"{k} {v:.2f}" for k, v in errors.items()))
        worst = max(worst, *errors.values())
    return 0 if claim("largest error / eps", worst, 4) else 1


if __name__ == "__main__":
    sys.exit(main())
