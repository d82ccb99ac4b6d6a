"""Eight shards merged against one run: the same numbers, and the work of all together (issue 18, speed).

Seconds are those of the processor, in one thread, without the preparation of the networks, which each machine
does once. Each shard also reads the first piece of the data, about whose means all sums are, so that small
data cost more (n = 4,000: a third). Exit code 1 if a claim does not hold.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import numpy as np
import torch

import suture
from common import claim, header
from suture import zoo
from suture.compare import CompareOptions, set_up


def measure(**options: Any) -> tuple[float, Any]:
    """Return the seconds of a comparison, and what it returns."""
    began = time.process_time()
    made = suture.compare(**options)
    return time.process_time() - began, made


def main() -> int:
    """Print the largest difference and the ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-n", type=int, default=20000)
    parser.add_argument("--count", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(0)
    data = torch.rand(args.n, 3, 32, 32, generator=g), torch.randint(0, 10, (args.n,), generator=g)
    a, b = (zoo.build("resnet20_strided", seed=k) for k in (0, 1))
    how: dict[str, Any] = {"source": a, "target": b, "data": data, "methods": [], "indices": ["cka", "opd"]}
    header("shards", args.n)
    measure(**how, shard=(1, 100))  # to warm up
    began = time.process_time()
    set_up(CompareOptions(**how))
    ready = time.process_time() - began
    whole, wanted = measure(**how)
    parts = [measure(**how, shard=(k + 1, args.count)) for k in range(args.count)]
    began = time.process_time()
    made = suture.merge([part for _, part in parts])
    merging = time.process_time() - began
    work = sum(took - ready for took, _ in parts) + merging
    worst = np.nanmax(np.abs(made.table["value"] - wanted.table["value"]))
    print(f"  one run {whole:.1f} s, of which {ready:.1f} s to prepare; shards {work:.1f} s beside that, of "
          f"which {merging:.1f} s to merge")
    passed = [claim("largest difference of a value", worst, 1e-10),
              claim("work of all shards / one run", work / (whole - ready), 1.1)]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
