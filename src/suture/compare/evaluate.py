"""One pass of all stitched networks over test data, with results per example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from suture._base import Progress, SutureError
from suture.data import Batch, Batches, cut_batch, move_batch
from suture.networks import RecordedPass, SitedNetwork, disable_gradients
from suture.numbers import Float32Array
from suture.ood import ScoreCollector
from suture.representations import Cell, Shape, View, get_row_mask, get_token_mask, to_grid
from suture.stitching import ScoredRows, StitchingLayer, Task

ResultArray = NDArray[np.bool_] | NDArray[np.float32]


@dataclass(frozen=True)
class Evaluation:
    """Per-example results of stitched networks.

    For classification, `correct` and `agree` are booleans. For tasks of tokens, results of predictions are
    float32 sums over the scored tokens of an example. Norms are over all axes but the examples, without
    padding.

    Attributes:
        task: the scored task; with "none" the results of predictions are empty.
        batches: (B,) sizes of the test batches, in order.
        tokens: (N,) number of scored tokens; None for other tasks.
        labelled: True if the test data have labels.
        own_correct: (N,) True where the target network predicts the label; None without labels.
        own_ce: (N,) cross-entropy of the target network in nats; None without labels.
        own_broken: number of its invalid predictions, whose largest logit is NaN or infinite.
        correct: per cell (N,) True where the stitched network predicts the label; empty without labels.
        agree: per cell (N,) True where it predicts the same as the target network.
        kl: per cell (N,) KL(target network's predictions || stitched network's) in nats.
        ce: per cell (N,) cross-entropy of the stitched network in nats; empty without labels.
        broken: per cell, as `own_broken`.
        scale: per target site (N,) |T|².
        spread: per target site (N,) |T - mean|², with the mean per channel over all rows (positions) of the
            test data.
        error: per cell (N,) |S - T|², the squared distance of the stitched from the native representation.
    """

    task: Task
    batches: NDArray[np.int64]
    tokens: NDArray[np.int64] | None
    labelled: bool
    own_correct: ResultArray | None
    own_ce: Float32Array | None
    own_broken: int
    correct: dict[Cell, ResultArray]
    agree: dict[Cell, ResultArray]
    kl: dict[Cell, Float32Array]
    ce: dict[Cell, Float32Array]
    broken: dict[Cell, int]
    scale: dict[int, Float32Array]
    spread: dict[int, Float32Array]
    error: dict[Cell, Float32Array]

    @property
    def examples(self) -> int:
        """Number of examples N."""
        return int(self.batches.sum())


class Evaluator:
    """An evaluation of stitched networks, grouped by target site.

    Each batch needs one front pass of the source, one full pass of the target, and the tails. Stitched
    representations of one target site pass its tail together, up to the micro-batch. Only the channel sums of
    each target site, (N, q) float32, are kept until the mean is known.

    Args:
        source, target: frozen networks at their sites, on one device; the same object for self-stitching.
        layers: per cell, on the device.
        micro_batch: most examples that pass a whole network at once (see `SitedNetwork.count_at_once`).
        collector: gets every native and stitched representation for the detectors.
        task: task of the target's output; with "none" no tail runs.
    """

    def __init__(self, source: SitedNetwork, target: SitedNetwork, layers: Mapping[Cell, StitchingLayer],
                 micro_batch: int, collector: ScoreCollector | None = None,
                 task: Task = Task.CLASSIFICATION) -> None:
        self.source, self.target, self.layers, self.micro_batch = source, target, layers, micro_batch
        self.collector, self.task = collector, task
        self._groups: dict[int, list[int]] = {}
        for i, j in layers:
            self._groups.setdefault(j, []).append(i)
        self._parts: dict[str, dict[Any, list[Tensor]]] = {}
        self._origin: dict[int, Tensor] = {}

    @torch.no_grad()
    def run(self, batches: Batches, device: torch.device, progress: Progress | None = None,
            stage: str = "evaluation") -> Evaluation:
        """Evaluate the stitched networks in one pass over `batches`.

        Raises:
            SutureError: labels outside the classes, an output that does not suit the task, no scored tokens,
                or NaN or inf in a representation of the networks themselves.
        """
        self._parts = {k: {} for k in ("own_correct", "own_ce", "broken", "tokens", "correct", "agree", "kl",
                                       "ce", "scale", "deviation", "sums", "rows", "error")}
        self._origin = {}
        sizes = []
        for k, batch in enumerate(batches):
            sizes.append(batch.size)
            for piece in cut_batch(move_batch(batch, device), self.micro_batch):
                self._evaluate_piece(piece, k)
            if progress:
                progress(stage, k + 1, batches.count_batches())
        got: dict[str, dict[Any, NDArray[Any]]] = {
            kind: {key: torch.cat(parts).cpu().numpy() for key, parts in of.items()}
            for kind, of in self._parts.items()}
        self._parts = {}
        tokens, correct = got["tokens"].get(0), got["own_correct"].get(0)
        if tokens is not None and not tokens.any():
            raise SutureError(f"the {batches.name} hold no scored token; give texts of at least two tokens, "
                              "and labels that are not all -100")
        spread = {j: _shift_to_mean(d, got["sums"].pop(j), got["rows"][j])
                  for j, d in got["deviation"].items()}
        broken = {key: int(counts.sum()) for key, counts in got["broken"].items()}
        return Evaluation(self.task, np.array(sizes), tokens, correct is not None, correct,
                          got["own_ce"].get(0), broken.pop("own", 0), got["correct"], got["agree"], got["kl"],
                          got["ce"], broken, got["scale"], spread, got["error"])

    def _record(self, kind: str, key: Any, value: Tensor) -> None:
        self._parts[kind].setdefault(key, []).append(value)

    def _sum_finite_squares(self, network: SitedNetwork, xs: list[Tensor], inputs: object,
                            number: int) -> list[Tensor]:
        """Return |x|² (N,) without padding for every site, and refuse NaN and inf."""
        mask, squares = get_token_mask(inputs), []
        for site, shape, x in zip(network.sites, network.shapes, xs, strict=True):
            squares.append(_sum_squares(x.float(), shape, get_row_mask(shape, View.ALL, mask)))
            if not torch.isfinite(squares[-1]).all():
                raise SutureError(f"NaN or inf at {network.name} site {str(site)!r} in batch {number} of the "
                                  "test data; check inputs and weights, or leave this site out")
        return squares

    def _evaluate_piece(self, piece: Batch, number: int) -> None:
        done, logits = None, None
        with disable_gradients():
            if self.task is Task.NONE:
                natives = self.target.front(piece.target)
            else:
                done = self.target.run_full(piece.target)
                natives, logits = (self.target.pick_representations(done),
                                   self.task.extract_logits(done.output))
            xs = natives if self.source is self.target else self.source.front(piece.source)
        scales = self._sum_finite_squares(self.target, natives, piece.target, number)
        if xs is not natives:
            self._sum_finite_squares(self.source, xs, piece.source, number)
        own = None if logits is None else self._predict_target(piece, logits)
        mask = get_token_mask(piece.target)
        for j, native in enumerate(natives):
            self._record_native(j, native.float(), scales[j],
                                get_row_mask(self.target.shapes[j], View.ALL, mask))
            if self.collector is not None:
                self.collector.add(j, native, mask, logits)
        for j in self._groups:
            self._evaluate_column(j, piece, xs, natives[j].float(), done, own)

    def _evaluate_column(self, j: int, piece: Batch, xs: list[Tensor], native: Tensor,
                         done: RecordedPass | None, own: _TargetPredictions | None) -> None:
        """Evaluate all cells of one target site, as many at once as the micro-batch allows."""
        mask, shape = get_token_mask(piece.target), self.target.shapes[j]
        counted = get_row_mask(shape, View.ALL, mask)
        sources, at_once = self._groups[j], self.target.count_at_once(j, self.micro_batch, piece.size)
        for start in range(0, len(sources), at_once):
            cells = [(i, j) for i in sources[start:start + at_once]]
            stitched = [self.layers[c](xs[c[0]], get_token_mask(piece.source)) for c in cells]
            for c, s in zip(cells, stitched, strict=True):
                self._record("error", c, _sum_squares(s.float() - native, shape, counted))
            logits: Sequence[Tensor | None] = [None] * len(cells)
            if own is not None and done is not None:
                together = stitched[0] if len(cells) == 1 else torch.cat(stitched)
                output = self.task.extract_logits(self.target.tail(j, together, done))
                logits = output.chunk(len(cells))
                self._record_predictions(cells, output, own)
            if self.collector is not None:
                for c, s, each in zip(cells, stitched, logits, strict=True):
                    self.collector.add(c, s, mask, each)

    def _predict_target(self, piece: Batch, logits: Tensor) -> _TargetPredictions:
        rows = self.task.find_rows(piece.target, piece.labels)
        self.task.check_labels(rows, logits)
        own = _TargetPredictions(rows, rows.select(logits))
        self._record("broken", "own", (own.classes < 0).sum()[None])
        if rows.tokens is not None:
            self._record("tokens", 0, rows.tokens)
        if rows.labels is not None:
            self._record("own_ce", 0, rows.sum_per_example(_cross_entropy(own.log_p, rows.labels)[None])[0])
            self._record("own_correct", 0, rows.sum_per_example((own.classes == rows.labels)[None])[0])
        return own

    def _record_native(self, j: int, native: Tensor, scale: Tensor, mask: Tensor | None) -> None:
        # Deviations are from the first piece's mean, because a mean far above the spread would cost all
        # float32 digits.
        grid = to_grid(native, self.target.shapes[j], View.ALL)
        if j not in self._origin:
            self._origin[j] = grid.mean((0, 1, 2)) if mask is None else _average_counted(grid, mask)
        deviation = _zero_uncounted(grid - self._origin[j], mask)
        self._record("scale", j, scale)
        self._record("deviation", j, _square_norms(deviation))
        self._record("sums", j, deviation.sum((1, 2)))
        self._record("rows", j,
                     torch.full((len(grid),), grid[0, ..., 0].numel()) if mask is None else mask.sum((1, 2)))

    def _record_predictions(self, cells: Sequence[Cell], logits: Tensor, own: _TargetPredictions) -> None:
        """Compare the logits of k stitched networks with the target network's and the labels.

        `logits` are (k N, V) or (k N, T, V).
        """
        rows, shape = own.rows, (len(cells), *own.log_p.shape)
        counted = rows.select(logits)
        classes = _predict_classes(counted).view(shape[:2])
        log_q = counted.float().log_softmax(1).view(shape)
        p = own.log_p.exp()
        # A class of probability 0 adds nothing, even if its logit is -inf. Only rounding can make the sum
        # negative.
        kl = torch.where(p == 0, 0, p * (own.log_p - log_q)).sum(2).clamp(min=0)
        found = {"kl": kl, "agree": (classes == own.classes) & (classes >= 0)}
        if rows.labels is not None:
            found["ce"] = torch.stack([_cross_entropy(q, rows.labels) for q in log_q])
            found["correct"] = classes == rows.labels
        for name, values in found.items():
            for c, each in zip(cells, rows.sum_per_example(values), strict=True):
                self._record(name, c, each)
        for c, each in zip(cells, (classes < 0).sum(1, keepdim=True), strict=True):
            self._record("broken", c, each)


class _TargetPredictions:
    """The target network's log-probabilities (M, V) and classes (M,) of the scored rows."""

    def __init__(self, rows: ScoredRows, logits: Tensor) -> None:
        self.rows = rows
        self.log_p, self.classes = logits.float().log_softmax(1), _predict_classes(logits)


def _predict_classes(logits: Tensor) -> Tensor:
    best, classes = logits.max(1)
    return classes.masked_fill(~best.isfinite(), -1)


def _cross_entropy(log_p: Tensor, labels: Tensor) -> Tensor:
    return -log_p.gather(1, labels[:, None])[:, 0]


def _sum_squares(x: Tensor, shape: Shape, mask: Tensor | None) -> Tensor:
    """Return |x|² of each example, (N,), without padding."""
    return _square_norms(x if mask is None else _zero_uncounted(to_grid(x, shape, View.ALL), mask))


def _average_counted(grid: Tensor, mask: Tensor) -> Tensor:
    return grid[mask].sum(0) / mask.sum().clamp(min=1)


def _zero_uncounted(grid: Tensor, mask: Tensor | None) -> Tensor:
    """Return a grid (N, H, W, C) with zeros at padding."""
    return grid if mask is None else grid.masked_fill(~mask[..., None], 0)


def _square_norms(x: Tensor) -> Tensor:
    # No flatten: it would copy a channels-last map into another memory order.
    norms: Tensor = torch.linalg.vector_norm(x, dim=tuple(range(1, x.ndim)))
    return norms.square()


def _shift_to_mean(deviation: Float32Array, sums: Float32Array, rows: NDArray[Any]) -> Float32Array:
    """Return |T - mean|² (N,) from |T - c|² (N,), channel sums of T - c (N, q) and row counts (N,)."""
    shift = sums.sum(0, dtype=np.float64) / rows.sum(dtype=np.float64)
    cross = np.asarray(sums @ shift.astype(np.float32), np.float64)
    # Only rounding can make it negative.
    about: Float32Array = np.maximum(deviation - 2 * cross + rows * (shift @ shift), 0).astype(np.float32)
    return about
