"""Make docs/gallery.md and its images from small networks on the digits; it takes a few minutes.

    python docs/gallery.py [FOLDER]     # keeps results in the folder (default: runs/gallery)

Every line of code on the page is the line that made the image below it, at the width of a column, 3.3 inches.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

import suture

HERE = Path(__file__).parent
RESULTS = """\
import copy, dataclasses
import suture
from suture import zoo

train, test = zoo.digits("train"), zoo.digits("test")
recipe, kept = dataclasses.replace(zoo.DIGITS_RECIPE, epochs=8), {}

def keep(network, history):     # called before the training and after each epoch
    if len(history.losses) in (0, 1, 2, 4, 8):
        kept[f"epoch {len(history.losses)}"] = copy.deepcopy(network)

one, _ = zoo.train_network("resnet_digits", 0, recipe, on_epoch=keep)
two, _ = zoo.train_network("resnet_digits", 1, recipe)
how = {"device": "cpu", "seed": 0, "indices": ["cka_debiased"], "nulls": 200}
tlm = suture.TaskRecipe(epochs=6, batch_size=64, lr=1e-2, schedule="cosine")
result = suture.compare(one, None, train, test, names=("A", "A"), tlm=tlm, save_to="gallery/A-A", **how)
other = suture.compare(one, two, train, test, names=("A", "B"), methods=["dm"], save_to="gallery/A-B", **how)
study = suture.study(kept, train, test, folder="gallery/study", methods=(), ood=None, device="cpu", seed=0,
                     indices=["cka"], nulls=0,
                     about={name: {"epoch": int(name.split()[1])} for name in kept})"""
"""Code of the page that trains and compares."""


class Shown(NamedTuple):
    """A figure of the gallery."""

    name: str
    title: str
    words: str
    code: str


FIGURES = (
    Shown("pair", "The pair", "How well the stitched networks work, and how far their representations lie "
          "from native ones, for task loss matching above and direct matching below. Hatched cells work, but "
          "with representations that no natural input reaches.", "result.plot_pair()"),
    Shown("pair-auroc", "The pair with a detector", "Any distance of a stitching method can stand on the "
          "right.", 'result.plot_pair("auroc_mahalanobis")'),
    Shown("map", "One measure", "Limits are those of the measure, so that figures can be compared; `vmin`, "
          "`vmax` and `cmap` change that. A star marks what is not to be trusted, ° what is at chance.",
          'result.plot("cka_debiased").figure'),
    Shown("profile", "Corresponding layers", "Bars are 95 % intervals; the band holds 95 % of what the index "
          "says by chance. The dotted line at a natural distance of 1 is as far as natural inputs go.",
          "other.plot_profile()"),
    Shown("curves", "Learning curves", "Medians and ranges over cells.", "result.plot_curves()"),
    Shown("scores", "Scores of a detector", "One panel for each target site.", "result.plot_scores()"),
    Shown("grid", "Matrices of one's own", "Any labelled matrices, with one colour bar for all of one "
          "measure.", 'from suture.results import Heat, draw_matrix_grid\n\n'
          'first, second = (r.matrix("cka_debiased") for r in (result, other))\n'
          'draw_matrix_grid([[Heat(first, "cka_debiased"), Heat(second, "cka_debiased")]],\n'
          '                 columns=("A → A", "A → B"))'),
    Shown("study-map", "Networks of a study", "Checkpoints of one training.", 'study.plot("map")'),
    Shown("study-tree", "Tree", "Average linkage of distances that are a metric.", 'study.plot("tree")'),
    Shown("study-embedding", "Embedding", "Names that would cover others are left out.",
          'study.plot("embedding", along="epoch")'),
    Shown("study-trend", "Trend", "Every pair of networks over the difference of their epochs.",
          'study.plot("trend", along="epoch")'),
)


def compute(folder: Path) -> dict[str, Any]:
    """Train and compare by the code on the page, or load what an earlier run has kept."""
    names: dict[str, Any] = {}
    exec(compile(RESULTS.replace('"gallery/', f'"{folder}/'), "docs/gallery.md", "exec"), names)
    return names


def draw(shown: Shown, names: dict[str, Any]) -> Figure:
    """Draw a figure by the code on the page."""
    with suture.style("column"):
        *before, last = ast.parse(shown.code).body
        exec(compile(ast.Module(before, []), shown.name, "exec"), names)
        return eval(ast.unparse(last), names)


def write_page(results: dict[str, Any]) -> str:
    """Write the page."""
    parts = [_HEAD.replace("{results}", RESULTS)]
    for shown in FIGURES:
        parts.append(f"## {shown.title}\n\n{shown.words}\n\n```python\n{shown.code}\n```\n\n"
                     f'<img src="gallery/{shown.name}.png" width="400" alt="{shown.title}">\n')
    table = results["result"].to_latex("dm.relative_accuracy", digits=2)
    parts.append("## Tables\n\n`to_latex` of a comparison or a study writes a table in the style of "
                 "booktabs, with intervals and escaped names.\n\n```python\n"
                 'print(result.to_latex("dm.relative_accuracy", digits=2))'
                 f"\n```\n\n```latex\n{table}```\n")
    return "\n".join(parts)


_HEAD = """# Gallery

Figures of comparisons (`suture.compare`) and of a study (`suture.study`), 3.3 inches wide, the column of a
conference paper. `docs/gallery.py` makes them on a CPU in a few minutes: `result` compares a small ResNet
with itself, `other` with one of another seed, and `study` five checkpoints of its training, all on
scikit-learn's digits (500 test images):

```python
{results}
```

Each example made the image below it, within a style, such as

```python
with suture.style("column"):        # or "two-column" (6.75 inches), "slide"
    figure = result.plot_pair()
    figure.savefig("pair.pdf")      # embeds TrueType fonts, whoever saves it
```

Without a style, sizes, fonts and widths are those of matplotlib's settings (`rcParams`). Text shrinks to 5
points where there is less room; numbers lose digits, then go; long names are rotated, shortened by an
ellipsis, and then only every second, third, ... is written. `result.plot(measure, ax=ax)` draws on your own
axes; figures of them look best with `layout="constrained"`. A `PdfPages` document has one type of fonts for
all pages: open it within a style, or set `pdf.fonttype` to 42.
"""


def main(folder: Path) -> None:
    results = compute(folder)
    (HERE / "gallery").mkdir(exist_ok=True)
    for shown in FIGURES:
        draw(shown, results).savefig(HERE / "gallery" / f"{shown.name}.png", dpi=200)
    (HERE / "gallery.md").write_text(write_page(results), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/gallery"))
