"""The table of the indices, how each behaves when a representation is altered, and what chance gives.
(indices.md)

    python docs/indices.py           # tables and pictures of the page; one to two minutes, no data to fetch

The representation: 1,000 of scikit-learn's digits through two fixed random layers with ReLUs. It is the
source, and altered by noise, rotation, scaling and deletion of principal components it is the target.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import special_ortho_group
from sklearn.datasets import load_digits

from common import HERE, fill
from suture.indices import (
    INDICES,
    TRANSFORMATIONS,
    FlatKernels,
    Index,
    Needs,
    expand_invariances,
    of_matrices,
)
from suture.numbers.measures import ALIGNMENTS

N, WIDTH = 1000, 32
STRENGTHS = np.linspace(0, 1, 9)
Matrix = NDArray[np.float64]
MISSING = "–"
SIGNS = dict(zip(TRANSFORMATIONS, "TSPODL", strict=True))
ALL = [n if i.needs is not Needs.KERNELS else f"{n}@flatten" for n, i in INDICES.items()]


# -- tables of the entries -----------------------------------------------------------------------------------

def lines(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table in Markdown."""
    return [f"| {' | '.join(r)} |" for r in (head, ["---"] * len(head), *rows)]


def code(text: str) -> str:
    """As it is, in a cell of a table."""
    return "`" + text.replace("|", "\\|") + "`"


def kept(given: frozenset[str]) -> str:
    """Letters of the transformations that leave an index unchanged, without those that others contain."""
    return " ".join(SIGNS[t] for t in TRANSFORMATIONS
                    if t in given and not any(t in expand_invariances(u) for u in given - {t})) or "none"


def native(index: Index) -> str:
    """Range, direction, and where colours end before the range does."""
    m = index.measure
    low, high = (f"{v:.4g}".replace("inf", "∞") for v in m.native)
    ends = "[("[math.isinf(m.native[0])] + f"{low}, {high}" + "])"[math.isinf(m.native[1])]
    colours = "" if m.native == (m.low, m.high) else f"; colours {m.low:g} to {m.high:g}"
    return f"{ends} {'↑' if m.larger_is_more_similar else '↓'}{colours}"


def entries() -> list[str]:
    """One table for what is needed, with a row for each index."""
    found = []
    for needs in Needs:
        group = [i for i in INDICES.values() if i.needs is needs]
        if not group:
            continue
        rows = [[f"`{i.name}` {i.measure.label}", code(i.formula), native(i), i.measure.common_form[0],
                 kept(i.invariant_x), "same" if i.invariant_y == i.invariant_x else kept(i.invariant_y),
                 str(i.least), i.cost, i.source] for i in group]
        found += [f"**From {needs.value}** ({len(group)})", "",
                  *lines(["index", "formula", "range", "common form", "source side", "target side", "least n",
                          "cost", "paper"], rows), ""]
    return found


def arguments() -> list[str]:
    """What may stand behind a colon."""
    rows = [[code(f"{i.name}:{a.default:g}"), a.name, f"{a.low:g} to {a.high:g}", a.about]
            for i in INDICES.values() if (a := i.argument)]
    return lines(["index, with the default", "argument", "from, to", "what it does"], rows)


def offered() -> list[str]:
    """Which indices an alignment has."""
    rows = []
    for alignment in ("stitch", *ALIGNMENTS):
        names = [n for n, i in INDICES.items() if alignment in i.alignments]
        left = [n for n in INDICES if n not in names]
        text = ", ".join(f"`{n}`" for n in (left if len(names) > len(left) else names))
        rows.append([f"`{alignment}`", str(len(names)),
                     f"all but {text}" if len(names) > len(left) else text])
    return lines(["alignment", "indices", "which"], rows)


# -- an altered representation -------------------------------------------------------------------------------

def features() -> Matrix:
    """(n, width) digits after two random layers, in units of the total spread."""
    rng = np.random.default_rng(0)
    x = load_digits().data[:N] / 16
    for width in (2 * WIDTH, WIDTH):
        x = np.maximum(0, x @ rng.standard_normal((x.shape[1], width)) / math.sqrt(x.shape[1]) - 0.1)
    return np.asarray(x / math.sqrt(x.var(0).sum()))


def alterations(x: Matrix) -> dict[str, Callable[[float], Matrix]]:
    """What is done to a representation, by a strength from 0 (nothing) to 1."""
    rng = np.random.default_rng(1)
    mean, spread = x.mean(0), x.std(0)
    noise = rng.standard_normal(x.shape)
    angles, planes = np.linalg.eig(special_ortho_group(x.shape[1], seed=rng).rvs())
    power = rng.uniform(-1, 1, x.shape[1])
    _, _, axes = np.linalg.svd(x - mean, full_matrices=False)

    def deleted(t: float) -> Matrix:
        top = axes[:x.shape[1] - round(t * (x.shape[1] - 1))]
        return np.asarray(mean + (x - mean) @ top.T @ top)

    return {
        "noise: t spreads of each unit": lambda t: x + t * spread * noise,
        "rotation: random Q to the power t": lambda t: x
        @ ((planes * angles**t) @ np.linalg.inv(planes)).real,
        "all units times 10^t": lambda t: x * 10**t,
        "each unit times 10^(ut), u in [-1, 1]": lambda t: x * 10**(power * t),
        f"deletion: {WIDTH} largest components to 1": deleted,
    }


LOOKS = (("#c8553d", "-"), ("#1b6ca8", "-"), ("#3a3a3a", (0, (1, 2))), ("#6a994e", "-"),
         ("#b07aa1", (0, (5, 2))))


def curves(x: Matrix) -> dict[str, dict[str, list[float]]]:
    """Values of every index, by index and alteration."""
    found: dict[str, dict[str, list[float]]] = {name: {} for name in ALL}
    for what, alter in alterations(x).items():
        values = [of_matrices(x, alter(float(t)), ALL, sample=N) for t in STRENGTHS]
        for name in ALL:
            found[name][what] = [v[name].value for v in values]
    return found


FIGURES: dict[str, tuple[str, Callable[[int, Index], bool]]] = {
    "indices-scatter": ("from moments: CKA, CCA, Procrustes distances", lambda k, i: k < 16),
    "indices-moments": ("from moments: regression, overlap, units, RSA, statistics",
                        lambda k, i: k >= 16 and i.needs not in (Needs.ROWS, Needs.KERNELS)),
    "indices-rows": ("from rows and from Gram matrices", lambda k, i: i.needs in (Needs.ROWS, Needs.KERNELS)),
}


def pictures(found: dict[str, dict[str, list[float]]]) -> list[str]:
    """A grid of panels for each group; native values between the colour limits of each index."""
    matplotlib.use("Agg")
    parts = []
    for file, (about, member) in FIGURES.items():
        group = [n for k, n in enumerate(ALL) if member(k, INDICES[n.partition("@")[0]])]
        _grid(HERE / f"{file}.png", group, found)
        parts += [f"![Indices {about}, under five alterations]({file}.png)", "",
                  f"*Indices {about}. n = {N}, {WIDTH} units.*", ""]
    return parts


def _grid(place: Path, names: Sequence[str], found: dict[str, dict[str, list[float]]]) -> None:
    from matplotlib import pyplot as plt

    rows = math.ceil(len(names) / 4)
    figure, axes = plt.subplots(rows, 4, figsize=(9, 1.55 * rows + 0.7), sharex=True, layout="constrained")
    for ax, name in zip(axes.flat, names, strict=False):
        _panel(ax, INDICES[name.partition("@")[0]], found[name])
    for k, ax in enumerate(axes.flat):
        ax.tick_params(labelbottom=len(names) - 4 <= k)
        ax.set_visible(k < len(names))
    figure.supxlabel("strength t", fontsize=9)
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside upper center", ncols=3,
                  frameon=False, fontsize=8)
    figure.savefig(place, dpi=100)
    plt.close(figure)


def _panel(ax: Any, index: Index, values: dict[str, list[float]]) -> None:
    m = index.measure
    for (what, v), (colour, style) in zip(values.items(), LOOKS, strict=True):
        ax.plot(STRENGTHS, v, color=colour, linestyle=style, linewidth=1.4, label=what)
    margin = 0.05 * (m.high - m.low)
    ax.set(xlim=(0, 1), xticks=(0, 0.5, 1), ylim=(m.low - margin, m.high + margin), yticks=(m.low, m.high))
    ax.set_yticklabels([f"{v:.3g}" for v in (m.low, m.high)])
    ax.set_title(f"{index.name} {'↑' if m.larger_is_more_similar else '↓'}", fontsize=8.5)
    ax.tick_params(labelsize=7.5, length=2)
    ax.spines[["top", "right"]].set_visible(False)


# -- what chance, examples and minibatches make of a number --------------------------------------------------

CHANCE = ("cka", "cka_debiased", "rv2", "cca", "pwcca", "opd", "shape", "r2", "r2_ridge", "r2_folds", "gulp",
          "eigenspace_overlap", "correlation_hard", "correlation_soft", "rsa_pearson", "rsa_cosine",
          "rsa_spearman", "distance_correlation", "cka_rbf", "jaccard", "second_order_cosine")
ROWS, DRAWS = (50, 200, 1000), 10


def chance() -> list[str]:
    """Means over draws of matrices that have nothing to do with each other."""
    columns = []
    for n in ROWS:
        draws = []
        for seed in range(DRAWS):
            rng = np.random.default_rng(seed)
            x, y = rng.standard_normal((2, n, WIDTH))
            draws.append(of_matrices(x, y, CHANCE))
        columns.append({c: float(np.mean([d[c].value for d in draws])) for c in CHANCE})
    rows = [[f"`{c}` {'↑' if INDICES[c].measure.larger_is_more_similar else '↓'}",
             *(MISSING if math.isnan(column[c]) else f"{column[c]:.2f}" for column in columns)]
            for c in CHANCE]
    return lines(["index", *(f"n = {n}" for n in ROWS)], rows)


COVERED = ("cka", "cka_debiased", "cca", "pwcca", "pwcca_target", "correlation_hard", "permutation", "opd",
           "r2", "r2_folds", "rsa_pearson", "gulp", "correlation_soft")
REPEATS, MANY, FEW, BLOCKS, NARROW = 100, 200_000, 500, 20, 12
LITTLE = 0.85


def related(rng: np.random.Generator, n: int) -> tuple[Matrix, Matrix]:
    """Two ReLU layers that share most of what they see."""
    fixed = np.random.default_rng(2)
    common, (a, b) = rng.standard_normal((n, 8)), fixed.standard_normal((2, 8, NARROW))
    x, y = (np.maximum(0, common @ w + rng.standard_normal((n, NARROW))) for w in (a, b))
    return x, y


def coverage() -> list[str]:
    """How often the interval of few examples holds the value of very many."""
    x, y = related(np.random.default_rng(10**6), MANY)
    truth = of_matrices(x, y, COVERED)
    held, widths = dict.fromkeys(COVERED, 0), dict.fromkeys(COVERED, 0.0)
    for seed in range(REPEATS):
        x, y = related(np.random.default_rng(seed), FEW)
        for c, v in of_matrices(x, y, COVERED, jackknife=BLOCKS).items():
            held[c] += v.low <= truth[c].value <= v.high
            widths[c] += (v.high - v.low) / REPEATS
    rows = [[f"`{c}`", f"{truth[c].value:.3f}", f"{widths[c]:.3f}", f"{100 * held[c] / REPEATS:.0f} %"]
            for c in COVERED]
    few = ", ".join(f"`{c}`" for c in COVERED if held[c] < LITTLE * REPEATS)
    return [*lines(["index", f"value of {MANY:,} examples", "mean width of the interval", "holds it"], rows),
            "", f"Not to be relied on, below {100 * LITTLE:.0f} %: {few or 'none'}."]


def minibatches(x: Matrix) -> list[str]:
    """Minibatch CKA by minibatch size, with one spread of noise, in two orders of the examples."""
    y = next(iter(alterations(x).values()))(1.0)
    sizes, labels = (4, 16, 64, 256, N), load_digits().target[:N]
    orders = {"as they come": np.arange(N), "sorted by class": np.argsort(labels, kind="stable")}
    whole = of_matrices(x, y, ["cka_debiased", "cka"])
    rows = []
    for order, at in orders.items():
        row = [order]
        for size in sizes:
            kernels = FlatKernels(1, 1, batch=size, keep=0, precision=torch.float64)
            kernels.update([torch.from_numpy(x[at])], [torch.from_numpy(y[at])])
            row.append(f"{INDICES['cka_minibatch'](kernels.get_kernels(0, 0)[Needs.KERNELS]).value:.3f}")
        rows.append([*row, *(f"{v.value:.3f}" for v in whole.values())])
    return lines(["order of the examples", *(f"minibatches of {s}" for s in sizes), "`cka_debiased`",
                  "`cka`"], rows)


def memory() -> str:
    """What a flattened pair of sites takes."""
    features = 64 * 32 * 32
    both, alone = (FlatKernels(1, 1, keep=keep).nbytes_planned([features, features]) / 2**20
                   for keep in (1000, 0))
    return (f"Flattened, two sites of 64 × 32 × 32 features take {both:,.0f} MiB at most (1,000 kept "
            f"examples and a minibatch of 256, float32), and {alone:,.0f} MiB where `cka_minibatch` alone is "
            "asked for (`FlatKernels.nbytes_planned`).")


# -- the page ------------------------------------------------------------------------------------------------

def main() -> None:
    """Write the tables and pictures."""
    warnings.simplefilter("error", RuntimeWarning)
    x = features()
    legend = ", ".join(f"**{sign}** {name}" for name, sign in SIGNS.items())
    parts = [
        "## What each alignment offers", "", *offered(), "", memory(), "",
        f"## All {len(INDICES)} indices", "",
        "Rows are centred where the formula says S: Sxy = X′Y of the centred matrices; ρ are canonical "
        "correlations; |·| is the Frobenius and |·|_* the nuclear norm. ↑ larger, ↓ smaller is more similar; "
        "the *common form* is what is shown where all measures must point the same way. *Source side* and "
        "*target side*: what may be done to the columns of that matrix without changing the number: "
        f"{legend} (L contains S, P, O and D; O contains P; D contains S). What is not listed changes it; "
        "`tests/indices/test_statements.py` asserts both. *Cost*: linear algebra of one cell, for p source "
        "and q target columns, n rows, minibatches of b.", "",
        *entries(), "**Arguments**, written behind the name:", "", *arguments(), "",
        "## How each behaves", "",
        f"Source: {N:,} of scikit-learn's digits through two fixed random layers with ReLUs ({WIDTH} units, "
        f"of which {int((x.std(0) == 0).sum())} never fire; in units of the total spread). Target: the same, "
        "altered; t = 0 is no alteration. Native values; each panel has the colour limits of its index, and "
        "curves that leave it go on outside. Rotation is about the origin; deletion keeps the mean.", "",
        *pictures(curves(x)),
        "## What chance gives", "",
        f"Two independent Gaussian matrices of {WIDTH} columns each, mean over {DRAWS} draws ({MISSING}: "
        "missing, with its reason):", "", *chance(), "",
        "## What intervals hold", "",
        f"Two related ReLU layers of {NARROW} units; {REPEATS} draws of n = {FEW} examples, "
        f"`jackknife={BLOCKS}`. Nominal: 95 %.", "", *coverage(), "",
        "## Minibatch CKA by minibatch size", "",
        f"The digits' features against themselves with one spread of noise, n = {N}:", "", *minibatches(x),
        "",
    ]
    fill(HERE / "indices.md", parts, "indices.py")


if __name__ == "__main__":
    main()
