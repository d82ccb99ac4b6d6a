"""Does an accelerator give what the CPU gives? One command, on a machine that has one.

    python checks/gpu.py                        cuda, or the accelerator that is there
    python checks/gpu.py --only digits_self     one golden case, or one of bf16, memory, state
    python checks/gpu.py --device cpu           the script itself, where there is none, against other kernels

1. The golden comparisons run on both, in float32 with TF32 off. Indices may differ by 1e-4, scores by 1e-3
   (of the value, where it is above one), hits by one example whose two best classes are as good as tied.
   Scores of detectors are left out where stitched and native representations differ by rounding alone.
2. Forward passes in bfloat16 against float32 on the device.
3. Memory that runs out: the micro-batch is halved, and no number changes.
4. Random states, TF32 switches and the user's networks are as before.

It prints a table, and exits with 1 if anything failed.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # for the golden cases

from tests.golden.cases import CASES  # noqa: E402
from tests.golden.networks import images, network  # noqa: E402

import suture  # noqa: E402
from suture import zoo  # noqa: E402
from suture.networks import find_device  # noqa: E402

GOLDEN = ("digits_self", "digits_seeds", "patches_and_maps", "text_encoder", "masked_words", "next_words",
          "every_index", "as_in_the_paper", "every_detector", "every_family", "options", "two_preparations",
          "half_precision", "stitched")
LIMITS = {"indices": 1e-4, "scores": 1e-3}
BF16_LIMITS = {"indices": 2e-2, "scores": 5e-2}
"""bfloat16 has 8 bits: each operation is off by up to 0.4 %."""
TRAINED, TRAINED_LIMIT = "_energy", 1e-2
"""End of the scores of a detector that is trained on the device, whose training amplifies rounding."""
HITS = ("accuracy", "relative_accuracy", "agreement", "fpr95")
"""Quantities that count examples, and so change by steps."""
RANKED = ("ood_", "auroc_", "ap_", "fpr95_")
"""Quantities that only the order of two samples decides."""
HALF = "half_precision"
"""The golden case in half precision, held to the limits of bfloat16."""


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    what: str
    passed: bool
    found: str


def compare_tables(one: suture.Comparison, other: suture.Comparison, limits: dict[str, float]) -> Line:
    """Compare the values of two comparisons, and say where they differ most."""
    keys = ["source", "target", "measure"]
    both = one.table.merge(other.table, on=keys, how="outer", suffixes=("", "_other"), indicator=True)
    missing = (both["_merge"] != "both") | (both["value"].isna() != both["value_other"].isna())
    worst, equal = dict.fromkeys(limits, (0.0, "")), find_equal_cells(one)
    failures = [f"{m} of {s} into {t} is missing on one side"
                for s, t, m in both.loc[missing, keys].itertuples(index=False)]
    for row in both[~missing & both["value"].notna()].to_dict("records"):
        method, _, quantity = row["measure"].rpartition(".")
        kind = "scores" if method in ("dm", "tlm") else "indices"
        if method == "dm" and quantity.startswith(RANKED) and (row["source"], row["target"]) in equal:
            continue
        off = abs(row["value"] - row["value_other"]) / max(1.0, abs(row["value"]))
        allowed = limits[kind] + quantity.startswith(HITS) / max(1.0, row["n"])
        allowed = max(allowed, TRAINED_LIMIT * quantity.endswith(TRAINED))
        place = f"{row['measure']} of {row['source']} into {row['target']}"
        worst[kind] = max(worst[kind], (off, place))
        if not off <= allowed:
            failures.append(f"{place}: {row['value']:.6g} and {row['value_other']:.6g}")
    told = [f"{kind} {off:.1e}" + (f" ({place})" if off else "") for kind, (off, place) in worst.items()]
    count = [f"{len(failures)} fail"] if failures else []
    return Line("", not failures, "; ".join([*told, *failures[:3], *count]))


def find_equal_cells(given: suture.Comparison) -> set[tuple[str, str]]:
    """Find the cells whose representations from direct matching are the native ones but for rounding."""
    rows = given.table[(given.table["measure"] == "dm.residual") & (given.table["value"] < 1e-6)]
    return set(zip(rows["source"], rows["target"], strict=True))


@contextmanager
def on_device(device: str) -> Iterator[None]:
    """Let the golden cases, which name the CPU, run on a device; "cpu" stands for its other kernels."""
    if device == "cpu":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # oneDNN warns of TF32 on Intel GPUs when it is switched
            with torch.backends.mkldnn.flags(enabled=False):
                yield
        return

    def move(call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **named: call(*args, **{**named, "device": device})

    with mock.patch.multiple(suture, compare=move(suture.compare), stitch=move(suture.stitch),
                             dry_run=move(suture.dry_run)):
        yield


def check_golden(device: str, names: list[str]) -> Iterator[Line]:
    """Run golden cases on the CPU and on the device, and compare every comparison that they save."""
    for name in names:
        with TemporaryDirectory() as scratch:
            here, there = Path(scratch, "cpu"), Path(scratch, "device")
            start = time.perf_counter()
            try:
                for folder in (here, there):
                    folder.mkdir()
                CASES[name](here)
                with on_device(device):
                    CASES[name](there)
            except Exception as error:  # any failure is a line of the table
                yield Line(f"golden {name}", False, f"{type(error).__name__}: {error}")
                continue
            took, limits = time.perf_counter() - start, BF16_LIMITS if name == HALF else LIMITS
            for file in sorted(here.rglob("comparison.safetensors")):
                place = file.parent.relative_to(here)
                line = compare_tables(suture.load(here / place), suture.load(there / place), limits)
                yield Line(f"golden {name}/{place}", line.passed, line.found)
            sys.stderr.write(f"{name}: {took:.0f} s\n")


def check_bf16(device: str) -> Iterator[Line]:
    """Compare forward passes in bfloat16 with those in float32."""
    found = [compare_digits(device, forward=forward) for forward in ("float32", "bf16")]
    line = compare_tables(found[0], found[1], BF16_LIMITS)
    yield Line("forward passes in bf16", line.passed, line.found)


def compare_digits(device: str, **options: Any) -> suture.Comparison:
    """Compare the two trained networks of the golden cases."""
    given = {"methods": ["dm"], "indices": ["cka", "cka_debiased"], "ood": None} | options
    return suture.compare(network("digits0"), network("digits1"), images(512), images(256, "test"),
                          device=device, **given)


class Greedy(nn.Module):
    """A network whose first layer fails, as memory that runs out does, above a number of examples."""

    most = 24

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory (simulated).")
        return self.inner(x)


def check_memory(device: str) -> Iterator[Line]:
    """Let memory seem to run out in every pass of every stage, and on cuda let it run out."""
    def run(most: int) -> suture.Comparison:
        recipe = suture.TaskRecipe(epochs=1, batch_size=64, lr=1e-2)
        with mock.patch.object(Greedy, "most", most):
            return suture.compare(Greedy(network("digits0")), data=images(128), test=images(96, "test"),
                                  device=device, sites=["inner.layer1.*", "inner.layer3.*"], tlm=recipe,
                                  indices=["cka"], ood="mahalanobis")
    plain, cut = run(10**9), run(24)
    line = compare_tables(plain, cut, LIMITS)
    said = [note for note in cut.meta["notes"] if note.startswith("memory ran out")]
    yield Line("memory that seems to run out", line.passed and bool(said), f"{line.found}; notes: {said}")
    if torch.device(device).type == "cuda":
        yield from check_real_memory(device)


def check_real_memory(device: str) -> Iterator[Line]:
    """Give this process less memory of the card than a comparison needs."""
    def run() -> suture.Comparison:
        x = torch.rand(256, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        return suture.compare(zoo.build("resnet18"), data=(x, torch.arange(256) % 10),
                              test=(x[:64], torch.arange(64) % 10), device=device, methods=["dm"],
                              indices=["cka"], ood=None)
    plain = run()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    run()
    peak = torch.cuda.max_memory_allocated(device)
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.empty_cache()
    for share in (0.8, 0.65, 0.5, 0.4):
        torch.cuda.set_per_process_memory_fraction(min(1.0, share * peak / total), device)
        try:
            cut = run()
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, device)
            torch.cuda.empty_cache()
        said = [note for note in cut.meta["notes"] if note.startswith("memory ran out")]
        if said:
            line = compare_tables(plain, cut, LIMITS)
            yield Line(f"{share:.0%} of the {peak / 2**30:.2f} GiB it takes", line.passed,
                       f"{line.found}; notes: {said}")
            return
    yield Line("less memory than it takes", False, f"never ran out, peak {peak / 2**30:.2f} GiB")


def check_state(device: str) -> Iterator[Line]:
    """Look for what a comparison leaves behind."""
    def look() -> list[Any]:
        random = [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if on_cuda else [])]
        return [[t.tolist() for t in random], torch.get_float32_matmul_precision(),
                torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark,
                torch.are_deterministic_algorithms_enabled(), torch.is_grad_enabled(),
                {p.device for p in mine.parameters()}, mine.training]
    on_cuda, mine = torch.device(device).type == "cuda", network("small0").train()
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        before = look()
        suture.compare(mine, data=images(64), test=images(32, "test"), device=device, ood="mahalanobis",
                       tlm=suture.TaskRecipe(epochs=1))
        changed = [k for k, (a, b) in enumerate(zip(before, look(), strict=True)) if a != b]
    finally:
        torch.set_float32_matmul_precision(precision)
    yield Line("random states, switches, networks are as before", not changed, f"changed: {changed}")


OTHERS = {"bf16": check_bf16, "memory": check_memory, "state": check_state}
"""Checks beside the golden cases."""


def describe_machine(device: str) -> list[str]:
    """Name the card, and the versions of all that computes."""
    found = [f"Python {platform.python_version()}, torch {torch.__version__}, NumPy {np.__version__}, suture "
             f"{suture.__version__}, {platform.platform()}"]
    if torch.device(device).type == "cuda":
        card = torch.cuda.get_device_properties(device)
        found.append(f"{card.name}, {card.total_memory / 2**30:.0f} GiB, compute capability {card.major}."
                     f"{card.minor}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")
    return found


def choose_device(given: str) -> str:
    """Return the device, or exit in one line where it is missing."""
    try:
        return str(find_device(given))
    except suture.SutureError as error:
        sys.exit(f"checks/gpu.py: {error}; --device cpu tries the script itself")


def main() -> int:
    """Run all checks, print the table, return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="default: cuda")
    parser.add_argument("--only", action="append", choices=[*GOLDEN, *OTHERS],
                        help="only this check; may be repeated")
    given = parser.parse_args()
    device = choose_device(given.device)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    chosen = given.only or [*GOLDEN, *OTHERS]
    checks = [check_golden(device, [name for name in chosen if name in GOLDEN]),
              *(OTHERS[name](device) for name in chosen if name in OTHERS)]
    sys.stdout.write("".join(f"{line}\n" for line in describe_machine(device)))
    failed = 0
    for line in itertools.chain.from_iterable(checks):
        failed += not line.passed
        sys.stdout.write(f"{'ok  ' if line.passed else 'FAIL'}  {line.what}: {line.found}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{failed or 'no'} checks failed on {device}\n")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
