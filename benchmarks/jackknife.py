"""What intervals by the jackknife cost: beside the same comparison without them, and beside its dry run.

Six layers of width 384 with the default indices, a network with itself or with a second one. Each run is a
process of its own, because the peak memory is that of a process. Exit code 1 if a claim does not hold.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import suture
from common import claim, header

BLOCKS, LAYERS, WIDTH = 20, 6, 384
SECONDS, MEBIBYTES = 60, 1024
"""Most that a network with itself may take on one quiet thread, and most memory, that of torch included."""


class Residual(nn.Module):
    """x + relu(W x + b)."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.relu(self.linear(x))


def build(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(32, WIDTH), *(Residual() for _ in range(LAYERS)), nn.Linear(WIDTH, 10))


def run(n: int, two: bool, jackknife: int) -> None:
    """Print the seconds, the CPU seconds, the predicted seconds and the peak memory in MiB, as JSON."""
    torch.set_num_threads(1)
    x = torch.randn(n, 32, generator=torch.Generator().manual_seed(0))
    networks = build(0), build(1) if two else None
    given: dict[str, Any] = {"methods": (), "jackknife": jackknife, "device": "cpu",
                             "sites": [str(k + 1) for k in range(LAYERS)]}
    start = time.perf_counter()
    predicted = sum(s or 0.0 for s in suture.dry_run(*networks, x, **given).seconds.values())
    dry, start, cpu = time.perf_counter() - start, time.perf_counter(), time.process_time()
    suture.compare(*networks, x, **given)
    peak = next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines()
                if line.startswith("VmHWM:"))
    print(json.dumps({"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu, "dry": dry,
                      "predicted": predicted, "memory": peak / 1024}))


def measure(n: int, two: bool, jackknife: int) -> dict[str, float]:
    code = (f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import jackknife; "
            f"jackknife.run({n}, {two}, {jackknife})")
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(out.stdout.splitlines()[-1])
    name = f"{'two networks' if two else 'a network with itself'}, jackknife={jackknife}"
    print(f"  {name}: {found['seconds']:.1f} s, {found['cpu']:.1f} s of the processor, predicted "
          f"{found['predicted']:.1f} s (in {found['dry']:.1f} s), peak {found['memory']:.0f} MiB")
    return found


def main() -> int:
    """Print the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-n", type=int, default=3000)
    parser.add_argument("--only", choices=("own", "two"))
    args = parser.parse_args()
    header("jackknife", args.n)
    held = []
    for two in (False, True):
        if args.only == ("own" if two else "two"):
            continue
        plain, cut = (measure(args.n, two, blocks) for blocks in (0, BLOCKS))
        print(f"  with / without intervals: {cut['cpu'] / plain['cpu']:.1f} in time, "
              f"{cut['memory'] / plain['memory']:.1f} in memory")
        off = cut["predicted"] / cut["seconds"]
        held.append(claim("predicted / taken, or its inverse", max(off, 1 / off), 2.0))
        if not two:
            held.append(claim("seconds of the processor, a network with itself", cut["cpu"], SECONDS))
            held.append(claim("peak MiB, a network with itself", cut["memory"], MEBIBYTES))
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
