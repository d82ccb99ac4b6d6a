"""What natural ranges, natural distances and informational residuals cost on top of direct matching.

A network of the digits is stitched to itself at its six sites, with and without them. The digits are
repeated, because the cost does not grow with the number of examples and a grid's does.
"""

from __future__ import annotations

import sys

import torch

import suture
from common import claim, header, seconds
from suture import OOD, zoo


def main(copies: int = 10) -> int:
    """Print the time with evidence over that without, for the digits as they are and repeated."""
    passed = True
    network, _ = zoo.train_network("resnet_digits", 0)
    for times in (1, copies):
        fit, test = ((d.inputs.repeat(times, 1, 1, 1), d.labels.repeat(times))
                     for d in (zoo.digits("train"), zoo.digits("test")))
        header("evidence", len(fit[0]))

        def run(ood: OOD | None, fit: tuple[torch.Tensor, ...] = fit,
                test: tuple[torch.Tensor, ...] = test) -> float:
            return seconds(lambda: suture.compare(network, None, fit, test, methods=["dm"], indices=(),
                                                  ood=ood))

        plain, whole = run(None), run(OOD(()))
        print(f"{len(test[0])} test images, 36 cells: {plain:.1f} s without, {whole:.1f} s with evidence")
        if times > 1:
            passed = claim("with evidence / direct matching alone", whole / plain, 1.15)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
