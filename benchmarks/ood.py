"""What out-of-distribution scores add to evaluating the 8x8 direct-matching grid of ResNet-18 at 32x32 (issue
4).

Evaluation with and without the detector in turns, in one run; with their scores, intervals and tests. Exit
code 1 if a claim does not hold.
"""

from __future__ import annotations

import argparse
import statistics
import sys

from common import claim, header
from grid import compare_timed, images_of
from suture import zoo
from suture.ood import DEFAULT_DETECTORS

DETECTORS = tuple(dict.fromkeys((*DEFAULT_DETECTORS, "relative")))


def main() -> int:
    """Print the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-n", type=int, default=300)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    network, data = zoo.build("resnet18"), images_of(args.n)
    header("ood", args.n)
    took: dict[str | None, list[dict[str, float]]] = {None: []} | {d: [] for d in DETECTORS}
    for _ in range(args.repeat):
        for detector, found in took.items():
            found.append(compare_timed(network, data, ["dm"], detector))
    passed = []
    for detector in DETECTORS:
        ratio = {part: statistics.median(with_[part] / without[part] for with_, without
                                         in zip(took[detector], took[None], strict=True))
                 for part in ("stage", "total")}
        passed.append(claim(f"{detector}: evaluation and scores / evaluation alone", ratio["stage"], 1.1))
        print(f"  {detector}: whole comparison / without scores: {ratio['total']:.3f}")
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
