"""How long two networks wait for their data: CIFAR-10 from Parquet into two ResNet-20, one stream for both
(issue 5).

Decoding ahead in threads against decoding when asked, in turns, each with a source opened anew, so that
nothing is decoded yet; then a second pass, for which the images have been kept. Exit code 1 if the claim does
not hold.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from common import claim, header
from suture import zoo
from suture.data import sources
from suture.data.preprocessing import ImagePreprocessing

HERE = Path(__file__).resolve().parents[2] / "shared" / "data" / "cifar10"
BATCH, MICRO = 256, 50


def synthetic(root: Path, n: int) -> Path:
    """Smooth random images of CIFAR-10's size, as JPEG in Parquet in the hub layout."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    images = []
    for _ in range(n):
        out = io.BytesIO()
        small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        small.resize((32, 32), Image.Resampling.BICUBIC).save(out, "JPEG")
        images.append({"bytes": out.getvalue(), "path": None})
    names = {"_type": "ClassLabel", "names": [str(k) for k in range(10)]}
    message = {"huggingface": json.dumps({"info": {"features": {"img": {"_type": "Image"}, "label": names}}})}
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"img": pa.array(images, kind), "label": [k % 10 for k in range(n)]})
    pq.write_table(table.replace_schema_metadata(message), root / "test-00000-of-00001.parquet",
                   row_group_size=1000)
    return root


def batches(data: sources.Examples, ahead: bool) -> Iterator[Any]:
    """Raw batches, read ahead or taken when asked."""
    rows = torch.arange(len(data))
    return data.read(rows, BATCH) if ahead else (data.take(chosen) for chosen in rows.split(BATCH))


@torch.no_grad()
def waiting(networks: list[nn.Module], data: sources.Examples, ahead: bool) -> tuple[float, float]:
    """Seconds of one pass, and those of them in which the networks waited: reading and preparing."""
    prepare, waited = ImagePreprocessing(), 0.0
    start = asked = time.perf_counter()
    for raw, _ in batches(data, ahead):
        inputs = prepare(raw)
        waited += time.perf_counter() - asked
        for piece in inputs.split(MICRO):
            for network in networks:
                network(piece)
        asked = time.perf_counter()
    return time.perf_counter() - start, waited


def main() -> int:
    """Print the shares."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-n", type=int, default=4000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--data", type=Path, default=HERE if HERE.is_dir() else None)
    args = parser.parse_args()
    networks = [zoo.build("resnet20", seed).eval() for seed in (0, 1)]
    header("loading", args.n)
    with tempfile.TemporaryDirectory() as folder:
        data = args.data or synthetic(Path(folder), args.n)
        print(f"  data: {data if args.data else 'synthetic'}, "
              f"{sources.reading.count_workers()} threads decode")
        took: dict[str, list[tuple[float, float]]] = {"when asked": [], "ahead": [], "second pass": []}
        for _ in range(args.repeat):
            for way in ("when asked", "ahead"):
                opened = sources.open_source(data, split="test", n=args.n)
                took[way].append(waiting(networks, opened, ahead=way == "ahead"))
            took["second pass"].append(waiting(networks, opened, ahead=True))
    share = {way: statistics.median(waited / whole for whole, waited in found) for way, found in took.items()}
    longer = statistics.median(a / b
                               for (a, _), (b, _) in zip(took["ahead"], took["second pass"], strict=True))
    passed = claim("decoding ahead: waiting / whole pass", share["ahead"], 0.1)
    print(f"  decoding when asked: waiting / whole pass: {share['when asked']:.3f}")
    print(f"  second pass, kept decoded: waiting / whole pass: {share['second pass']:.3f}")
    print(f"  first pass, ahead / second pass: {longer:.3f} (decoding takes its share of the cores)")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
