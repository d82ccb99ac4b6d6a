"""What sensitivity curves and probes cost beside one pass of the network (issue 19, speed).

ResNet-18 at 32x32, 8 block sites, graded ranks (14 at the widest). The floor is one bare forward pass of the
network as it is over the same images, in batches of 50; seconds are those of the process. Curves are of all
indices from second moments of stitched positions, of all from moments of pooled examples, and of direct
matching. Their linear algebra hardly grows with the images: what does, the moments of pooled examples, is
measured at two numbers of them, and the claim is for a pass over 50,000 (CIFAR-10). Indices of stitched
positions from sums of fourth order (cka_debiased, rv2, RSA) need a further pass (--further). Exit code 1 if a
claim does not hold.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import torch

from common import claim, header
from suture import zoo
from suture.compare import CompareOptions, Setup, set_up
from suture.indices import GROUPS, INDICES
from suture.stitching import direct_match
from suture.studies.probes import ProbeRecipe
from suture.studies.probes.call import train_and_test
from suture.studies.sensitivity_test.index_curves import PROJECTED, PooledIndices
from suture.studies.sensitivity_test.network_curves import CurveData, Deletion

IMAGES = 50_000
SITES = [f"layer{stage}.{block}" for stage in range(1, 5) for block in range(2)]
NAMES = [name for name in GROUPS["moments"] if INDICES[name].needs in PROJECTED] + ["moments@pool"]
HIGHER = [name for name in GROUPS["moments"] if INDICES[name].needs.name == "HIGHER"]


def prepare(n: int, indices: list[str]) -> Setup:
    """The setup of a network with itself over random images."""
    g = torch.Generator().manual_seed(0)
    data = torch.rand(n, 3, 32, 32, generator=g), torch.randint(0, 10, (n,), generator=g)
    return set_up(CompareOptions(zoo.build("resnet18").eval(), data=data, methods=["dm"], indices=indices,
                                 ood=None, sites=SITES, device="cpu", batch_size=50))


def timed(work: Callable[[], object]) -> tuple[float, object]:
    """Seconds of this process, and what the work returns."""
    start = time.process_time()
    made = work()
    return time.process_time() - start, made


def fit_all(data: CurveData) -> None:
    """All indices, and the maps of direct matching."""
    for j in range(len(SITES)):
        data.compute_indices(j)
        for pair in data.get_pairs(j)[0]:
            direct_match(pair)


def fit_pooled(data: CurveData, n: int) -> None:
    """The moments of so many pooled examples, more than there are channels, at all ranks."""
    assert data.bases is not None
    for basis, ranks in zip(data.bases, data.ranks, strict=True):
        indices = PooledIndices(data.routes.pooled, torch.randn(n, len(basis.mean)), None, basis, 2000, 0)
        for rank in ranks:
            indices.make_pair(rank)


def run_bare(setup: Setup) -> None:
    """One forward pass of the network, as it is."""
    network = zoo.build("resnet18").eval()
    with torch.no_grad():
        for batch in setup.data.fit:
            network(batch.source)


def main() -> int:
    """Print the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-n", type=int, default=600)
    parser.add_argument("--further", action="store_true", help="also the indices that need a further pass")
    args = parser.parse_args()
    header("sensitivity", args.n)
    deletion, setup = Deletion("graded", False, ProbeRecipe()), prepare(args.n, NAMES)
    bare = [timed(lambda: run_bare(setup))[0] for _ in range(2)]
    passed, data = timed(lambda: CurveData(setup, deletion))
    assert isinstance(data, CurveData)
    base = (min(bare) + timed(lambda: run_bare(setup))[0]) / 2 / args.n
    each = (timed(lambda: fit_pooled(data, 4500))[0] - timed(lambda: fit_pooled(data, 1500))[0]) / 3000
    once = timed(lambda: fit_all(data))[0]
    print(f"  {sum(map(len, data.ranks))} ranks of {len(SITES)} sites: pass {passed:.1f} s, linear algebra "
          f"{once:.1f} s and {1e3 * each:.2f} ms an image, whose forward pass takes {1e3 * base:.1f} ms",
          flush=True)
    curves = passed / args.n + each + once / IMAGES
    held = [claim(f"pass with all curves / bare forward pass, {IMAGES} images", curves / base, 1.2)]
    if args.further:
        further = timed(lambda: CurveData(prepare(args.n, HIGHER), deletion))[0]
        print(f"  passes for {', '.join(HIGHER)}, stitched: {further / args.n / base:.2f} floors")
    torch.optim.Adam([torch.zeros(1)])  # loads what the first optimiser of a process loads
    probes = timed(lambda: train_and_test(setup, deletion.recipe, data.ranks, data.bases, data.examples))[0]
    print(f"  probes at all ranks, {args.n} images: {probes:.1f} s")
    held.append(claim("training and test of all probes / bare forward pass", probes / args.n / base, 0.5))
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
