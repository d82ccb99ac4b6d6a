"""Importing suture stays light where the optional libraries are there to be imported."""

from __future__ import annotations

import subprocess
import sys


def test_torchvision_is_there() -> None:
    import torchvision

    assert torchvision.models.resnet18(num_classes=3).fc.out_features == 3


def test_importing_suture_imports_none_of_them() -> None:
    heavy = ("torchvision", "timm", "pytorch_ood", "sklearn")
    code = (f"import sys, suture.cli, suture.ood.two_sample; print(*[m for m in {heavy} if m in "
            "sys.modules])")
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True,
                          text=True).stdout.split() == []
