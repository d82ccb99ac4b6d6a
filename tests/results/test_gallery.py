"""The gallery's page holds the code that made it, from the networks to the last figure."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_holds_the_code_of_its_results_and_figures() -> None:
    spec = importlib.util.spec_from_file_location("gallery", DOCS / "gallery.py")
    gallery = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gallery)
    page = (DOCS / "gallery.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)\n```", page, re.DOTALL)
    assert blocks[0] == gallery.RESULTS
    assert blocks[2:-1] == [shown.code for shown in gallery.FIGURES]
    compile(gallery.RESULTS, "results", "exec")
    images = [f"gallery/{shown.name}.png" for shown in gallery.FIGURES]
    assert re.findall(r'src="(.*?)"', page) == images
    assert all((DOCS / image).is_file() for image in images)
