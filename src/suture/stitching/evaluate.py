"""Run every stitched network over test data: one pass, per-example results, and the scores that they give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from suture import scores
from suture._errors import SutureError
from suture.batches import Batches, Progress, on_device, pieces
from suture.calls import no_gradients
from suture.detectors.scoring import Scoring, is_constant
from suture.representations import View, look, mask_of, row_mask
from suture.scores import Estimate, missing
from suture.sites import SitedNetwork
from suture.stitching.layer import StitchingLayer
from suture.stitching.task import Cell, check_labels, logits_of

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Evaluation:
    """Per-example results of stitched networks.

    Attributes:
        labels: (N,) or None where the data have none.
        own: (N,) classes that the target network predicts; -1 where its largest logit is nan or infinite.
        own_ce: (N,) its cross-entropy in nats, or None without labels.
        batches: (B,) sizes of the test batches, in order.
        scale: per target site (N,) |T|².
        spread: per target site (N,) |T - mean|², the mean per channel over all rows (positions) of the test data.
        predicted: per cell (N,) classes that the stitched network predicts; -1 as in `own`.
        kl: per cell (N,) KL(target network's predictions || stitched network's) in nats.
        ce: per cell (N,) cross-entropy of the stitched network in nats; empty without labels.
        error: per cell (N,) squared distance of the stitched from the target's own representation, |S - T|².

    Norms are over everything but the examples, without the rows that an attention mask leaves out.
    """

    labels: NDArray[np.int64] | None
    own: NDArray[np.int64]
    own_ce: Floats | None
    batches: NDArray[np.int64]
    scale: dict[int, Floats]
    spread: dict[int, Floats]
    predicted: dict[Cell, NDArray[np.int64]]
    kl: dict[Cell, Floats]
    ce: dict[Cell, Floats]
    error: dict[Cell, Floats]


class Evaluator:
    """Evaluates stitched networks grouped by target site.

    Per batch: one front pass of the source, one full pass of the target, and the tails. Stitched representations are
    concatenated in front of a shared tail as far as the micro-batch allows. No representation is kept; the channel
    sums of each target site are (N, q) float32 until the pass ends, because the mean is known only then.

    Args:
        source, target: frozen networks with their sites, on one device; the same object for self-stitching.
        layers: per cell, on the device.
        micro_batch: most examples that pass a whole network at once (see `SitedNetwork.together`).
        scoring: is shown every native and stitched representation as it passes by, so that detectors cost no pass of
            their own.
    """

    def __init__(self, source: SitedNetwork, target: SitedNetwork, layers: Mapping[Cell, StitchingLayer],
                 micro_batch: int, scoring: Scoring | None = None) -> None:
        self.source, self.target, self.layers, self.micro_batch = source, target, layers, micro_batch
        self.scoring = scoring
        self._groups: dict[int, list[int]] = {}
        for i, j in layers:
            self._groups.setdefault(j, []).append(i)
        self._parts: dict[str, dict[Any, list[Tensor]]] = {}
        self._origin: dict[int, Tensor] = {}

    @torch.no_grad()
    def run(self, batches: Batches, device: torch.device, progress: Progress | None = None,
            stage: str = "evaluation") -> Evaluation:
        """One pass over `batches`.

        Raises:
            SutureError: labels outside the classes of the network, an output that is not (N, classes).
        """
        self._parts = {k: {} for k in ("labels", "own", "own_ce", "scale", "deviation", "sums", "rows",
                                       "predicted", "kl", "ce", "error")}
        self._origin = {}
        sizes = []
        for k, batch in enumerate(batches):
            sizes.append(batch.size)
            for piece in pieces(on_device(batch, device), self.micro_batch):
                self._piece(piece.source, piece.target, piece.labels, piece.size, k)
            if progress:
                progress(stage, k + 1, batches.total())
        got: dict[str, dict[Any, NDArray[Any]]] = {
            kind: {key: torch.cat(parts).cpu().numpy() for key, parts in of.items()}
            for kind, of in self._parts.items()}
        self._parts = {}
        spread = {j: _about_mean(d, got["sums"].pop(j), got["rows"][j]) for j, d in got["deviation"].items()}
        return Evaluation(got["labels"].get(0), got["own"][0], got["own_ce"].get(0), np.array(sizes), got["scale"],
                          spread, got["predicted"], got["kl"], got["ce"], got["error"])

    def _keep(self, kind: str, key: Any, value: Tensor) -> None:
        self._parts[kind].setdefault(key, []).append(value)

    def _finite_squares(self, network: SitedNetwork, xs: list[Tensor], number: int) -> list[Tensor]:
        squares = [_squares(x.float()) for x in xs]
        for site, s in zip(network.sites, squares, strict=True):
            if not torch.isfinite(s).all():
                raise SutureError(f"NaN or inf in the representation at {network.name} site {str(site)!r}, in batch "
                                  f"{number} of the test data; check the inputs and weights, or leave this site out")
        return squares

    def _piece(self, source: object, target: object, labels: Tensor | None, size: int,
               number: int) -> None:
        with no_gradients():
            done = self.target.full(target)
            natives = self.target.representations(done)
            xs = natives if self.source is self.target else self.source.front(source)
        scales = self._finite_squares(self.target, natives, number)
        if xs is not natives:
            self._finite_squares(self.source, xs, number)
        logits = logits_of(done.output)
        if labels is not None:
            check_labels(labels, logits)
            self._keep("labels", 0, labels)
        log_p = logits.float().log_softmax(1)
        if labels is not None:
            self._keep("own_ce", 0, _cross_entropy(log_p, labels))
        self._keep("own", 0, _classes(logits))
        mask, theirs = mask_of(source), mask_of(target)
        masks = [row_mask(shape, View.ALL, theirs) for shape in self.target.shapes]
        for j, native in enumerate(natives):
            self._keep_native(j, native.float(), scales[j], masks[j])
            if self.scoring is not None:
                self.scoring.look(j, native, theirs)
                self.scoring.logits(j, logits)
        for j, sources in self._groups.items():
            at_once = self.target.together(j, self.micro_batch, size)
            native = natives[j].float()
            for start in range(0, len(sources), at_once):
                cells = [(i, j) for i in sources[start:start + at_once]]
                stitched = [self.layers[c](xs[c[0]], mask) for c in cells]
                for c, s in zip(cells, stitched, strict=True):
                    self._keep("error", c, self._length(j, s.float() - native, masks[j]))
                    if self.scoring is not None:
                        self.scoring.look(c, s, theirs)
                together = stitched[0] if len(cells) == 1 else torch.cat(stitched)
                self._keep_predictions(cells, logits_of(self.target.tail(j, together, done)), log_p, labels)

    def _keep_native(self, j: int, native: Tensor, scale: Tensor, mask: Tensor | None) -> None:
        # About the first rows' mean, not about zero: a mean far above the spread would cost all digits of float32.
        shape = self.target.shapes[j]
        grid = look(native, shape, View.ALL)
        if j not in self._origin:
            self._origin[j] = grid.mean((0, 1, 2))
        deviation = _rows(grid - self._origin[j], mask)
        self._keep("scale", j, scale if mask is None else self._length(j, native, mask))
        self._keep("deviation", j, _squares(deviation))
        self._keep("sums", j, deviation.sum((1, 2)))
        self._keep("rows", j, torch.full((len(grid),), shape.rows) if mask is None else mask.sum((1, 2)))

    def _length(self, j: int, x: Tensor, mask: Tensor | None) -> Tensor:
        """|x|² of each example over the rows that count."""
        return _squares(x if mask is None else _rows(look(x, self.target.shapes[j], View.ALL), mask))

    def _keep_predictions(self, cells: Sequence[Cell], logits: Tensor, log_p: Tensor, labels: Tensor | None) -> None:
        classes = _classes(logits).view(len(cells), -1)
        log_q = logits.float().log_softmax(1).view(len(cells), *log_p.shape)
        p = log_p.exp()
        # A class of probability 0 adds nothing, also where its logit is -inf. The sum is not negative; rounding is.
        kl = torch.where(p == 0, 0, p * (log_p - log_q)).sum(2).clamp(min=0)
        for k, c in enumerate(cells):
            if self.scoring is not None:
                self.scoring.logits(c, logits.view(len(cells), *log_p.shape)[k])
            self._keep("predicted", c, classes[k])
            self._keep("kl", c, kl[k])
            if labels is not None:
                self._keep("ce", c, _cross_entropy(log_q[k], labels))


def _classes(logits: Tensor) -> Tensor:
    best, classes = logits.max(1)
    return classes.masked_fill(~best.isfinite(), -1)


def _cross_entropy(log_p: Tensor, labels: Tensor) -> Tensor:
    return -log_p.gather(1, labels[:, None])[:, 0]


def _rows(grid: Tensor, mask: Tensor | None) -> Tensor:
    """A grid (N, H, W, C) with zeros at the rows that do not count, such as padding."""
    return grid if mask is None else grid.masked_fill(~mask[..., None], 0)


def _squares(x: Tensor) -> Tensor:
    # No flatten: it would copy a channels-last map into another order first.
    norms: Tensor = torch.linalg.vector_norm(x, dim=tuple(range(1, x.ndim)))
    return norms.square()


def _about_mean(deviation: Floats, sums: Floats, rows: NDArray[Any]) -> Floats:
    """(N,) |T - mean|² from |T - c|² (N,) and the channel sums of T - c (N, q) over `rows` (N,) rows per example."""
    shift = sums.sum(0, dtype=np.float64) / rows.sum(dtype=np.float64)
    cross = np.asarray(sums @ shift.astype(np.float32), np.float64)
    # Not negative but for rounding.
    about: Floats = np.maximum(deviation - 2 * cross + rows * (shift @ shift), 0).astype(np.float32)
    return about


# -- scores -----------------------------------------------------------------------------------------------------------

QUANTITIES = tuple(scores.RECORDS)
"""What is scored of each stitched network; see `suture.measures.MEASURES` for what they are."""
_LABELLED = ("accuracy", "relative_accuracy", "ce_gap")
_PREDICTED = ("accuracy", "relative_accuracy", "agreement", "kl", "ce_gap")
Scored = tuple[int, int, str, Estimate, int]
"""Source site, target site, measure, estimate, number of examples (of batches for a mean over batches)."""


def arrays_of(found: Evaluation, method: str, shape: tuple[int, int]) -> dict[str, NDArray[Any]]:
    """Per-example arrays of a comparison: the `Record` of every measure is made of them.

    Args:
        found: the evaluation.
        method: "dm" or "tlm".
        shape: (S, T) numbers of source and target sites.

    Returns:
        ``{method}.correct`` and ``.agree`` bool, ``.kl``, ``.ce`` and ``.error`` float32, all (S, T, N);
        ``target.correct`` bool and ``target.ce`` float32 (N,), ``target.scale`` and ``target.spread`` float32 (T, N),
        ``target.batches`` int64 (B,). Cells that were not evaluated are False or nan. Without labels ``correct`` and
        ``ce`` are left out.
    """
    n, (s, t) = len(found.own), shape
    arrays: dict[str, NDArray[Any]] = {"target.batches": found.batches}
    for name, of in (("scale", found.scale), ("spread", found.spread)):
        arrays[f"target.{name}"] = _stack(of, (t, n), np.float32)
    for name, values in (("kl", found.kl), ("error", found.error)):
        arrays[f"{method}.{name}"] = _stack(values, (s, t, n), np.float32)
    agree = {c: (p == found.own) & (p >= 0) for c, p in found.predicted.items()}
    arrays[f"{method}.agree"] = _stack(agree, (s, t, n), np.bool_)
    if found.labels is not None and found.own_ce is not None:
        correct = {c: p == found.labels for c, p in found.predicted.items()}
        arrays[f"{method}.correct"] = _stack(correct, (s, t, n), np.bool_)
        arrays[f"{method}.ce"] = _stack(found.ce, (s, t, n), np.float32)
        arrays["target.correct"] = found.own == found.labels
        arrays["target.ce"] = found.own_ce
    return arrays


def same_examples(one: scores.Arrays, other: scores.Arrays) -> bool:
    """Whether two passes had the same test examples in the same order, by what the target network made of them.

    Not to the last digit, which may differ between devices. True where `one` has no pass yet.
    """
    for name, rtol, atol in (("target.scale", 1e-2, 0.0), ("target.ce", 5e-2, 1e-3)):
        if name in one and name in other:
            a, b = one[name], other[name]
            if a.shape != b.shape or not np.allclose(a, b, rtol=rtol, atol=atol, equal_nan=True):
                return False
    return True


def _stack(of: Mapping[Any, NDArray[Any]], shape: tuple[int, ...], dtype: type) -> NDArray[Any]:
    full: NDArray[Any] = np.full(shape, False if dtype is np.bool_ else np.nan, dtype)
    for key, values in of.items():
        full[key] = values
    return full


def scores_of(found: Evaluation, arrays: scores.Arrays, method: str, shape: tuple[int, int], seed: int,
              failed: Mapping[Cell, str]) -> list[Scored]:
    """Every measure of every cell, cell by cell in the order of sites.

    Args:
        found: the evaluation.
        arrays: what `arrays_of` made of it.
        method, shape: as for `arrays_of`.
        seed: of the bootstraps.
        failed: why cells were not evaluated; their measures are missing for that reason.
    """
    n = len(found.own)
    columns = [_column(found, arrays, method, j, [i for i in range(shape[0]) if (i, j) not in failed], seed)
               for j in range(shape[1])]
    rows: list[Scored] = []
    for (i, j), quantity in product(product(*map(range, shape)), QUANTITIES):
        e = missing(failed[i, j]) if (i, j) in failed else columns[j][quantity][i]
        rows.append((i, j, f"{method}.{quantity}", e, len(found.batches) if quantity == "residual_batches" else n))
    return rows


def _column(found: Evaluation, arrays: scores.Arrays, method: str, j: int, sources: Sequence[int],
            seed: int) -> dict[str, dict[int, Estimate]]:
    """By quantity and source: the estimates of all cells into one target site."""
    column: dict[str, dict[int, Estimate]] = {quantity: {} for quantity in QUANTITIES}
    if not sources:
        return column
    for quantity, of in column.items():
        if found.labels is None and quantity in _LABELLED:
            estimates = [missing("the test data have no labels")] * len(sources)
        elif quantity == "r2" and _constant(found, j):
            estimates = [missing("the target's representation is constant on the test data")] * len(sources)
        else:
            records = [scores.record(arrays, f"{method}.{quantity}", i, j) for i in sources]
            estimates = _estimates(quantity, records, seed)
        of.update(zip(sources, estimates, strict=True))
    for i, quantity in product(sources, _PREDICTED):
        reason = _unpredicted(found, (i, j))
        if reason and not (found.labels is None and quantity in _LABELLED):
            column[quantity][i] = missing(reason)
    return column


def _estimates(quantity: str, records: Sequence[scores.Record], seed: int) -> list[Estimate]:
    if quantity in ("accuracy", "agreement"):
        return [scores.proportion(r.top) for r in records]
    if quantity == "relative_accuracy":
        return [scores.ratio_of_hits(r.top, r.bottom > 0, seed) for r in records]
    if quantity == "residual_batches":
        return [scores.mean_of_batches(r.top) for r in records]
    return scores.ratios_of_sums(np.stack([r.top for r in records]), records[0].bottom, seed)


def _constant(found: Evaluation, j: int) -> bool:
    spread, scale = (of[j].sum(dtype=np.float64) for of in (found.spread, found.scale))
    return is_constant(spread, scale)


def _unpredicted(found: Evaluation, cell: Cell) -> str:
    """Why a cell's predictions say nothing; empty where they do."""
    for who, classes in (("target", found.own), ("stitched", found.predicted[cell])):
        bad = int((classes < 0).sum())
        if bad:
            return f"the {who} network's logits are nan or infinite for {bad} of {len(classes)} test examples"
    return ""
