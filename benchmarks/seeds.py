"""Coverage of the intervals of task loss matching: how often they hold the value of another initialisation.

    python benchmarks/seeds.py [GROUPS] [OTHERS] [EPOCHS]

On the digits, a small ResNet stitched to itself at four sites. The intervals of one initialisation hold
test examples only; those of ``TaskRecipe(seeds=3)`` are also meant to hold the values of other trainings,
with other initial layers and another order of the data. They promise at least 95 %.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np

import suture
from common import header
from suture import TaskRecipe, zoo

SITES = ["layer1.0", "layer2.0", "layer3.0", "layer3.1"]
MEASURES = ("accuracy", "relative_accuracy", "agreement", "kl", "ce_gap", "residual", "r2", "ood_mahalanobis")


def main(groups: int = 8, others: int = 16, epochs: int = 3) -> None:
    """Print, for one and for three initialisations, the share of other trainings within the intervals."""
    train, test = zoo.digits("train"), zoo.digits("test")
    network, report = zoo.train_network("resnet_digits", 0)
    fit = train.subset(256)
    header("seeds", len(fit))
    print(f"resnet_digits, test accuracy {report.accuracy:.3f}, {len(fit)} images to fit, {len(test)} to "
          f"test, {epochs} epochs; {groups} intervals against {others} trainings, {len(SITES)**2} cells")

    def compare(seed: int, seeds: int) -> suture.Comparison:
        recipe = TaskRecipe(epochs=epochs, batch_size=64, lr=1e-2, seed=seed, seeds=seeds)
        return suture.compare(network, data=fit, test=test, sites=SITES, methods=["tlm"], indices=(),
                              tlm=recipe, device="cpu")

    made: dict[Any, list[suture.Comparison]] = {
        seeds: [compare(100 * k + seeds * 10_000, seeds) for k in range(groups)] for seeds in (1, 3)}
    rest = [compare(k, 1) for k in range(others)]
    print("measure: coverage with seeds=1, with seeds=3")
    for measure in (f"tlm.{m}" for m in MEASURES):
        values = np.stack([r.matrix(measure).to_numpy() for r in rest])
        shares = []
        for of in made.values():
            ends = [np.stack([r.matrix(measure, end).to_numpy() for r in of]) for end in ("low", "high")]
            low, high = (e[:, None] for e in ends)
            shares.append(float(((low <= values) & (values <= high)).mean()))
        print(f"{measure}:", *(f"{s:.3f}" for s in shares))
        sys.stdout.flush()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(*map(int, sys.argv[1:]))
