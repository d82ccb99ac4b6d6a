"""Make torchvision importable beside a torch that its binary part does not fit."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch

# torchvision's wheel for CUDA does not load beside a torch for the CPU, and then its import fails, because it
# registers shapes for two operators of that binary part (torchvision/_meta_registrations.py). Nothing here
# calls them. They must not be defined where the binary part does load and defines them itself. Kept alive as
# long as the library is.
OPERATORS = ("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
             "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
LIBRARY: list[torch.library.Library] = []


def binary_loads() -> bool:
    """Whether torchvision's operators can be had. Does not import torchvision."""
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    try:
        torch.ops.load_library(str(Path(spec.origin).with_name("_C.so")))
    except OSError:
        return False
    return True


if not binary_loads():
    LIBRARY.append(torch.library.Library("torchvision", "DEF"))
    for schema in OPERATORS:
        LIBRARY[0].define(schema)
