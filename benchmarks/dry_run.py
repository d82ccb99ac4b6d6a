"""What a dry run costs beside the comparison that it predicts (issue 16): at most a tenth of it.

Dry run and comparison take turns on the same networks and data, in one process. The first turn warms up, and
of the others the best of each counts. A comparison that takes less than `SHORT` seconds is printed without a
claim, for the checks of its networks have a price of their own. The prediction is compared with what came.
transformers is optional: without it the BERT is left out, and said so. Exit code 1 if a claim does not hold.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import DataLoader

import suture
from common import claim, header
from suture import zoo

SHORT = 5.0
Given = dict[str, Any]
"""Arguments of `suture.compare`."""


def digits(n: int) -> Given:
    """The demo's network, with random weights, on the digits."""
    return {"source": zoo.build("resnet_digits"), "data": zoo.digits("train"), "test": zoo.digits("test")}


def resnet18(n: int) -> Given:
    """At 32x32, with the default indices."""
    g = torch.Generator().manual_seed(0)
    return {"source": zoo.build("resnet18"),
            "data": (torch.rand(n, 3, 32, 32, generator=g), torch.randint(0, 10, (n,), generator=g))}


def bert(n: int) -> Given:
    """Four layers of width 64 on padded texts of 32 tokens."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    network = BertForSequenceClassification(BertConfig(
        vocab_size=500, hidden_size=64, num_hidden_layers=4, num_attention_heads=4, intermediate_size=128,
        max_position_embeddings=64))
    mask = torch.ones(n, 32, dtype=torch.long)
    mask[n // 2:, 20:] = 0
    ids, labels = torch.randint(5, 500, (n, 32)), torch.randint(0, 2, (n,))
    rows = [({"input_ids": ids[k], "attention_mask": mask[k]}, labels[k]) for k in range(n)]
    return {"source": network, "data": DataLoader(rows, 100)}


def brief(epochs: int) -> Given:
    """Both ways of stitching, with few epochs."""
    return {"methods": ["dm", "tlm"], "tlm": suture.TaskRecipe(epochs=epochs)}


DM: Given = {"methods": ["dm"]}
CASES: dict[str, tuple[Callable[[int], Given], Given]] = {
    "digits, dm": (digits, DM), "digits, dm and tlm of 2 epochs": (digits, brief(2)),
    "digits, dm and tlm of 20 epochs": (digits, brief(20)), "resnet18, dm": (resnet18, DM),
    "resnet18, dm and tlm of 1 epoch": (resnet18, brief(1)), "bert, dm": (bert, DM),
    "bert, dm and tlm of 5 epochs": (bert, brief(5))}
LONG = ("digits, dm and tlm of 20 epochs", "resnet18, dm and tlm of 1 epoch")
"""Cases whose comparison takes minutes."""


def take(work: Callable[[], Any]) -> tuple[float, Any]:
    """Wall time and result of one call."""
    start = time.perf_counter()
    made = work()
    return time.perf_counter() - start, made


def measure(given: Given, repeat: int) -> tuple[float, float, float]:
    """Seconds of the dry run and of the comparison, the best of `repeat`, and the median prediction."""
    network = given.pop("source")
    took: list[tuple[float, float, float]] = []
    for _ in range(repeat + 1):
        dry, found = take(lambda: suture.dry_run(network, None, device="cpu", **given))
        run, _ = take(lambda: suture.compare(network, None, device="cpu", **given))
        took.append((dry, run, sum(found.seconds.values())))
    dries, runs, predicted = zip(*(took[1:] or took), strict=True)
    return min(dries), min(runs), sorted(predicted)[len(predicted) // 2]


def main() -> int:
    """Print the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-n", type=int, default=200)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--case", choices=list(CASES), action="append")
    args = parser.parse_args()
    header("dry run", args.n)
    passed = []
    for name in args.case or [c for c in CASES if c not in LONG]:
        make, options = CASES[name]
        try:
            given = make(args.n)
        except ImportError as e:
            print(f"  left out: {name} ({e.name} does not import)")
            continue
        dry, run, predicted = measure(given | options, args.repeat)
        print(f"  {name}: dry run {dry:.2f} s, comparison {run:.2f} s, predicted {predicted:.2f} s")
        if run >= SHORT:
            passed.append(claim(f"{name}: dry run / comparison", dry / run, 0.1))
        else:
            print(f"  {name}: dry run / comparison: {dry / run:.3f}, of a short comparison")
        passed.append(claim(f"{name}: prediction and comparison, larger / smaller",
                            max(predicted, run) / min(predicted, run), 1.5))
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
