"""Direct matching by plain least squares against cross-validated ridge, by numbers of examples.

On the digits, with networks of the zoo: means over all cells of the fit on fitting and on test data, of
relative accuracy and agreement, and the least relative accuracy of an own-layer cell.
"""

from __future__ import annotations

import os
import sys
import time

import numpy as np

import suture
from common import header
from suture import zoo

EXAMPLES = (25, 50, 100, 200, 400, 1297)
FAMILIES = ("full", "ridge:cv")


def main() -> None:
    train, test = zoo.digits("train"), zoo.digits("test")
    made = {}
    for name, seed in (("resnet_digits", 0), ("resnet_digits", 1)):
        made[f"{name}/{seed}"], report = zoo.train_network(name, seed)
        print(name, seed, report)
    first, second = made.values()
    header("direct matching", len(train))
    pairs = {"ResNet with itself": (first, None), "two ResNets": (first, second)}
    print("pair, n, family: fit R2, test R2, relative accuracy, agreement, own layer, seconds")
    for title, (a, b) in pairs.items():
        for n in EXAMPLES:
            for family in FAMILIES:
                start = time.perf_counter()
                r = suture.compare(a, b, train, test, family=family, examples=n, methods=["dm"], indices=(),
                                   ood=None)
                took = time.perf_counter() - start
                values = {m: r.matrix(f"dm.{m}").to_numpy() for m in ("r2", "relative_accuracy", "agreement")}
                own = np.diag(values["relative_accuracy"]).min() if b is None else float("nan")
                numbers = [(1 - r.arrays["dm.fit_residual"]).mean(), *map(np.nanmean, values.values()), own]
                print(f"{title}, {n}, {family}:", *(f"{v:.3f}" for v in numbers), f"{took:.1f}")
                sys.stdout.flush()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
