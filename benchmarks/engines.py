"""How much faster two workers run a study than one process: processes and Ray against serial, on one thread.

Sixteen small ResNets, each compared with itself by direct matching and by a few epochs of task loss matching,
with evidence. The time of each engine is that of the whole call: its workers start, load networks and data,
and end. The results must be equal, number for number.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import suture
from common import claim, header
from suture import OOD, TaskRecipe, zoo
from suture.studies import Ray

NETWORKS = 16


def run(engine: str | Ray, folder: Path, epochs: int) -> tuple[float, np.ndarray]:
    """Return the seconds of a study on an engine, and all its numbers."""
    networks = {f"seed {k}": zoo.build("resnet_digits", seed=k) for k in range(NETWORKS)}
    start = time.perf_counter()
    study = suture.study(networks, zoo.digits("train"), zoo.digits("test"), pairs="self", folder=folder,
                         engine=engine, methods=["dm", "tlm"] if epochs else ["dm"], indices="cka",
                         tlm=TaskRecipe(epochs=max(1, epochs), lr=1e-2), ood=OOD(()))
    took = time.perf_counter() - start
    table = study.table.sort_values(["source_network", "source", "target", "measure"])
    return took, table[["value", "low", "high"]].to_numpy(float)


def main() -> int:
    """Print serial time over that of two workers."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--engines", nargs="*", default=["processes:2", "ray"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    header("engines", len(zoo.digits("train")))
    passed = True
    with tempfile.TemporaryDirectory() as name:
        alone, numbers = run("serial", Path(name) / "serial", args.epochs)
        print(f"serial, {NETWORKS} tasks: {alone:.1f} s")
        for word in args.engines:
            engine = Ray(workers=2) if word == "ray" else word
            took, found = run(engine, Path(name) / word.replace(":", ""), args.epochs)
            print(f"{engine}: {took:.1f} s, {alone / took:.2f} times as fast")
            np.testing.assert_array_equal(found, numbers)
            if isinstance(engine, Ray):
                passed = claim("time with Ray's two workers / serial", took / alone, 1 / 1.6)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
