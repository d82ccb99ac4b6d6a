"""What natural ranges, natural distances, informational residuals and nulls cost on top of direct matching.

Networks are stitched to themselves at all sites, with CKA, with evidence and without: the small ResNet of the
digits as they are (500 test images), and a thin ResNet on as many images of 32x32 pixels as CIFAR-10 has for
tests. The cost of evidence does not grow with the number of examples and a grid's does, so that few digits
show it at its largest: no limit is set there.
"""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from unittest.mock import patch

from torch import nn
from torch.nn import functional as F

import suture
from common import claim, header
from suture import OOD, zoo
from suture.networks import Recipe, ResNet, compute_accuracy, train


@dataclass
class Grid:
    """A network, its sites and data."""

    network: nn.Module
    data: tuple[zoo.ImageSet, zoo.ImageSet]

    def time_both(self) -> tuple[float, float]:
        """Return the CPU seconds of direct matching without and with evidence."""
        self._run(True, 200)
        return self._run(False), self._run(True)

    def _run(self, evidence: bool, most: int | None = None) -> float:
        data = [part if most is None else part.subset(most) for part in self.data]
        nulls = {} if evidence else {"add_nulls": lambda *given: {}}
        start = time.process_time()
        with patch.multiple("suture.indices.computation", **nulls) if nulls else nullcontext():
            suture.compare(self.network, None, *data, methods=["dm"], indices="cka",
                           ood=OOD(()) if evidence else None)
        return time.process_time() - start


def enlarge(images: zoo.ImageSet, copies: int) -> zoo.ImageSet:
    """Return images of 32x32 pixels and three channels, repeated."""
    inputs = F.interpolate(images.inputs, 32, mode="bilinear").expand(-1, 3, -1, -1)
    return zoo.ImageSet(inputs.repeat(copies, 1, 1, 1), images.labels.repeat(copies), 10, images.name)


def main() -> int:
    """Print the time with evidence over that without."""
    digits = zoo.digits("train"), zoo.digits("test")
    small = Grid(zoo.train_network("resnet_digits", 0)[0], digits)
    large = tuple(enlarge(part, copies) for part, copies in zip(digits, (4, 20), strict=True))
    network = ResNet((8, 16, 32), (2, 2, 2), (1, 2, 2), in_channels=3)
    recipe = Recipe(epochs=1, batch_size=64, lr=1e-2, schedule="onecycle")
    train(network, large[0].inputs, large[0].labels, recipe)
    passed = True
    for name, grid in (("digits", small), ("32x32", Grid(network, (large[0], large[1])))):
        header("evidence", len(grid.data[0]))
        plain, whole = grid.time_both()
        print(f"{name}, {len(grid.data[1])} test images: {plain:.1f} s without, {whole:.1f} s with evidence")
        if name == "32x32":
            print(f"accuracy {compute_accuracy(network, large[1].inputs, large[1].labels):.3f}")
            passed = claim("with evidence / direct matching alone", whole / plain, 1.15)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
