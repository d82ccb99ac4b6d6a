"""What a study costs beside its comparisons: each task, and the repetition of a finished one (issue 18).

210 pairs of 20 small networks in a folder, in one process. In place of comparing, each task saves the same
small comparison, so that all that is measured is the study's own. Seconds are those of the processor, in one
thread. Exit code 1 if a claim does not hold.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import suture
from common import claim, header
from suture.studies.running import tasks


def make(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))


def main() -> int:
    """Print seconds of a task, and of the repetition."""
    torch.set_num_threads(1)
    networks, data = {f"n{k}": make(k) for k in range(20)}, torch.rand(64, 8)
    how: dict[str, Any] = {"methods": [], "indices": ["cka"], "sites": ["0", "2"], "device": "cpu"}
    header("study_overhead", len(data))
    made = suture.compare(networks["n0"], data=data, **how)

    def save(names: tuple[str, str], save_to: Path, **given: Any) -> suture.Comparison:
        named = replace(made, source=names[0], target=names[1])
        named.save(save_to)
        return named

    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        made.save(Path(folder) / "alone")
        saving = time.process_time() - began
        whole, tasks.compare = tasks.compare, save  # type: ignore[assignment]
        began = time.process_time()
        study = suture.study(networks, data, folder=Path(folder) / "study", pass_memory="0", **how)
        each = (time.process_time() - began) / len(study.pairs)
        tasks.compare = whole
        began = time.process_time()
        suture.study(networks, data, folder=Path(folder) / "study", **how)
        again = time.process_time() - began
    print(f"  {study}: {each * 1000:.1f} ms for each task, of which {saving * 1000:.1f} ms to save a result")
    passed = [claim("seconds of a task beside its comparison", each - saving, 0.05),
              claim("seconds of the repetition for 200 tasks", again * 200 / len(study.pairs), 2)]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
