"""The figure of the README, from what `make demo` left in suture-demo/A-A (n = 500 test images)."""

from pathlib import Path

import suture
from suture.results.drawing import files

if __name__ == "__main__":
    root = Path(__file__).parents[1]
    measures = ["dm.relative_accuracy", "tlm.relative_accuracy", "cka"]
    shown = files.draw_overview(suture.load(root / "suture-demo" / "A-A"), measures)
    shown.savefig(root / "docs" / "demo.png", dpi=110)
