"""What the structural indices cost: one pass beside bare forward passes, memory beside a CKA library, linear
algebra.

ResNet-18 at 32x32 against a second one, 8 block sites each. The floor is one bare forward pass of both
networks as they are over the same images, at the fastest micro-batch. Exit code 1 if a claim does not hold.
"""

from __future__ import annotations

import argparse
import importlib.util
import resource
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import suture
from common import Floor, claim, header
from suture import zoo
from suture.indices import FROM_MOMENTS, GROUPS, Request, chosen, compute_indices
from suture.representations import Accumulators, AccumulatorSettings
from suture.representations.shapes import Kind, Shape

Data = tuple[torch.Tensor, torch.Tensor]
CLAIMED: dict[str, tuple[float, list[str]]] = {"moments@pool": (1.10, []), "moments": (1.5, ["dm"])}
"""Passes of the networks that all indices from moments of an alignment may cost, forward passes among them,
and what is fitted beside them: r2 and dm_residual say what direct matching does with the pooled matrices."""
BLOCKS = [f"layer{stage}.{block}" for stage in range(1, 5) for block in range(2)]
SECONDS = 20


def images_of(n: int) -> Data:
    g = torch.Generator().manual_seed(0)
    return torch.rand(n, 3, 32, 32, generator=g), torch.randint(0, 10, (n,), generator=g)


def networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return zoo.build("resnet18"), zoo.build("resnet18")


class _EnoughError(Exception):
    """The moments are done; what follows is not timed."""


def timed(data: Data, indices: Any, methods: list[str], batch: int = 50) -> tuple[float, float]:
    """Seconds of the pass for indices and methods, and of the linear algebra after it.

    The first batch bears the dry run; what the others take counts, for all of them.
    """
    marks: list[float] = []

    def progress(stage: str, done: int, total: int | None) -> None:
        if stage == "moments":
            marks.append(time.perf_counter())

    def stop(_: object) -> None:
        marks.append(time.perf_counter())
        raise _EnoughError

    with suppress(_EnoughError):
        suture.compare(*networks(), data=data, methods=methods, indices=indices, batch_size=batch, ood=None,
                       progress=progress, on_stage=stop)
    *batches, end = marks
    return (batches[-1] - batches[0]) * len(batches) / (len(batches) - 1), end - batches[-1]


def passes(n: int, repeat: int) -> list[bool]:
    """(a) all indices from moments, and direct matching, in passes of the networks."""
    data = images_of(n)
    floor = Floor(networks()[0], data[0])
    held = []
    for indices, (bound, methods) in CLAIMED.items():
        floor.measure()
        runs = [timed(data, indices, methods) for _ in range(repeat)]
        base = 2 * floor.measure()
        took, after = (statistics.median(part) for part in zip(*runs, strict=True))
        print(f"  {floor}; twice that for two networks")
        print(f"  indices={indices!r}: linear algebra of {len(BLOCKS)}x{len(BLOCKS)} cells {after:.2f} s")
        held.append(claim(f"pass with indices={indices!r}, methods={methods} / floor of both networks",
                          took / base, bound))
    return held


def folds(n: int, repeat: int) -> list[bool]:
    """What the held-out R² adds, which keeps five folds apart: time beside the same pass, and memory of the
    sums."""
    data, most = images_of(n), list(GROUPS["moments"])
    kinds = {"with r2_folds": most, "without": [name for name in most if name != "r2_folds"]}
    floor = Floor(networks()[0], data[0])
    runs = {kind: [timed(data, names, ["dm"])[0] for _ in range(repeat)] for kind, names in kinds.items()}
    base = 2 * floor.measure()
    shapes = [Shape(Kind.MAP, 64 * 2**s, (32 // 2**s,) * 2) for s in range(4) for _ in range(2)]
    for kind, names in kinds.items():
        planned = Accumulators(shapes, shapes,
                               AccumulatorSettings(chosen(names), fits_layers=True)).nbytes_planned
        print(f"  {kind}: {statistics.median(runs[kind]) / base:.2f} floors, sums of "
              f"{planned / 2**20:.0f} MiB")
    return []


def peak(work: str, n: int) -> float:
    """Peak resident MiB of a fresh process that does `work`, one of the functions below, on `n` images."""
    code = (f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import indices; "
            f"indices.{work}({n})")
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    print(f"  {work}: {out.stdout.splitlines()[-1]}")
    return float(out.stdout.split()[-2])


def _report(start: float) -> None:
    print(f"{time.perf_counter() - start:.1f} s, {_peak_kib() / 1024:.0f} MiB")


def _peak_kib() -> int:
    """Of this process alone: what `getrusage` says holds for its parent before the exec too."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines()
                    if line.startswith("VmHWM:"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def by_networks(n: int) -> None:
    """For `peak`: the bare forward passes of both networks."""
    start = time.perf_counter()
    data, both = images_of(n), networks()
    with torch.no_grad():
        for network in both:
            network.eval()
            for batch in data[0].split(50):
                network(batch)
    _report(start)


def by_suture_pooled(n: int) -> None:
    """For `peak`: all indices from moments of pooled representations."""
    start = time.perf_counter()
    timed(images_of(n), "moments@pool", [])
    _report(start)


def by_suture(n: int) -> None:
    """For `peak`: all indices from moments and direct matching, of all cells."""
    start = time.perf_counter()
    timed(images_of(n), "moments", ["dm"])
    _report(start)


def by_suture_minibatches(n: int) -> None:
    """For `peak`: the library's number, CKA of minibatches of flattened representations."""
    start = time.perf_counter()
    timed(images_of(n), ["cka_minibatch@flatten"], [])
    _report(start)


def by_pytorch_cka(n: int) -> None:
    """For `peak`: CKA alone."""
    from cka import compute_cka

    start = time.perf_counter()
    loader = DataLoader(TensorDataset(*images_of(n)), batch_size=256, drop_last=n % 256 < 4)
    compute_cka(*networks(), loader, layers=BLOCKS, progress=False, device="cpu")
    _report(start)


def beside_library(n: int) -> list[bool]:
    """(b) memory of all indices here, and of CKA alone there."""
    if importlib.util.find_spec("cka") is None:
        print("  pytorch_cka is not installed: left out")
        return []
    floor, theirs = peak("by_networks", n), peak("by_pytorch_cka", n)
    works = {"all indices from moments and direct matching": "by_suture",
             "the same, pooled": "by_suture_pooled", "the same CKA": "by_suture_minibatches"}
    return [claim(f"peak memory on top of the networks', {what} / CKA alone of pytorch_cka",
                  (peak(work, n) - floor) / (theirs - floor), 1.0) for what, work in works.items()]


def gathered(sites: int, width: int, rows: int, requests: list[Request]) -> Accumulators:
    """Of random vectors at so many sites of each side, every site correlated with every other."""
    g = torch.Generator().manual_seed(0)
    common = torch.randn(rows, width, generator=g)
    made = Accumulators([Shape(Kind.VECTOR, width)] * sites, [Shape(Kind.VECTOR, width)] * sites,
                        AccumulatorSettings(requests))
    xs, ys = ([common + torch.randn(rows, width, generator=g) for _ in range(sites)] for _ in range(2))
    made.update(xs, ys)
    return made


def from_plain_moments() -> list[Request]:
    """All indices that need the moments of a pair of matrices alone."""
    names = {r.name: r for r in chosen("moments")}
    return [r for r in names.values() if r.index.needs.name in ("MOMENTS", "HIGHER")]


def algebra(sites: int, width: int, rows: int) -> list[bool]:
    """(c) what is left to do after the pass."""
    requests = from_plain_moments()
    made, cells = gathered(sites, width, rows, requests), list(product(range(sites), range(sites)))
    start = time.perf_counter()
    made.compute_all_values(cells)
    took = time.perf_counter() - start
    each: dict[str, float] = {}
    for r in requests:
        start = time.perf_counter()
        compute_indices([r], {r.alignment: dict.fromkeys(FROM_MOMENTS, made.get_pair(0, 0))})
        each[r.name] = time.perf_counter() - start
    slow = sorted(each, key=each.__getitem__, reverse=True)[:6]
    print(f"  {len(requests)} indices; slowest in a cell: "
          f"{', '.join(f'{name} {each[name]:.2f} s' for name in slow)}")
    return [claim(f"seconds of linear algebra, {sites}x{sites} cells of width {width}", took, SECONDS)]


def main() -> int:
    """Print the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-n", type=int, default=600)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--sites", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--only", choices=("passes", "folds", "library", "algebra"))
    args = parser.parse_args()
    header("indices", args.n)
    parts = {"passes": lambda: passes(args.n, args.repeat), "folds": lambda: folds(args.n, args.repeat),
             "library": lambda: beside_library(args.n),
             "algebra": lambda: algebra(args.sites, args.width, 3 * args.width)}
    held = [h for name, part in parts.items() if args.only in (None, name) for h in part()]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
