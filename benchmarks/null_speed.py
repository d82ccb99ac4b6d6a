"""Time of the null of CKA: the closed form against 200 permutations by calibrated-similarity 0.1.1.

    pip install calibrated-similarity==0.1.1
    python benchmarks/null_speed.py [-n 500] [-p 64]

Without calibrated-similarity there is nothing to compare with, and it says so.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from common import header, seconds
from suture.indices import of_matrices
from suture.numbers import Moments, describe_cka_null


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=500)
    parser.add_argument("-p", type=int, default=64)
    given = parser.parse_args()
    try:
        from calibrated_similarity import calibrate
    except ImportError as e:
        print(f"left out ({e}): pip install calibrated-similarity==0.1.1")
        return
    torch.set_num_threads(1)
    header("null of CKA", given.n)
    g = torch.Generator().manual_seed(0)
    x, y = (torch.relu(torch.randn(given.n, given.p, generator=g)).double() for _ in range(2))

    def close() -> None:
        moments = Moments.of(x, y)
        describe_cka_null(moments.x, moments.y)

    def compute_cka(a: Tensor, b: Tensor) -> Tensor:
        a, b = a - a.mean(0), b - b.mean(0)
        return (a.T @ b).norm() ** 2 / ((a.T @ a).norm() * (b.T @ b).norm())

    drawn = seconds(lambda: calibrate(x, y, compute_cka, K=200), 1)
    for name, work in (("moments and closed form", close), ("of_matrices", lambda: of_matrices(x, y, "cka"))):
        took = seconds(work, 5)
        print(f"{name}: {1000 * took:.1f} ms, {drawn / took:.0f} times faster than {1000 * drawn:.0f} ms")


if __name__ == "__main__":
    main()
