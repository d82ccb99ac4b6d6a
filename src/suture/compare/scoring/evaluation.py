"""One pass of all stitched networks over test data, with results per example."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from suture._base import NO_KEEPER, Keeper, Progress, SutureError, remember_lengths
from suture.compare.records import Evaluation, stack_cells
from suture.compare.scoring.chance import ClassCounts
from suture.compare.scoring.grids import (
    arrange_output,
    shift_to_mean,
    square_norms,
    sum_squares,
    zero_padding,
)
from suture.compare.setup import make_nan_error
from suture.data import Batch, Batches, MicroBatch, go_on
from suture.networks import RecordedPass, SitedNetwork, disable_gradients, extract_main_output
from suture.ood import ScoreCollector, join_parts
from suture.representations import Cell, Masks, View, get_row_mask, select_output_mask, to_grid
from suture.stitching import ScoredRows, StitchingLayer, Task

_OUTPUT = "output"
"""Key of the target network's output beside the numbers of its sites."""


class Evaluator:
    """An evaluation of stitched networks, grouped by target site.

    Each batch needs one front pass of the source, one full pass of the target, and the tails. Stitched
    representations of one target site pass its tail together, up to the micro-batch. Only the channel sums of
    each target site, (N, q) float32, are kept until the mean is known.

    Args:
        source, target: frozen networks at their sites, on one device; the same object for self-stitching.
        layers: per cell, on the device.
        micro_batch: most examples that pass a whole network at once (see `SitedNetwork.count_at_once`).
            A `MicroBatch` is shared, and keeps what this pass learns about the memory.
        collector: gets every native and stitched representation for the detectors.
        task: task of the target's output.
    """

    def __init__(self, source: SitedNetwork, target: SitedNetwork, layers: Mapping[Cell, StitchingLayer],
                 micro_batch: int | MicroBatch, collector: ScoreCollector | None = None,
                 task: Task = Task.CLASSIFICATION) -> None:
        self.source, self.target, self.layers = source, target, layers
        self.pieces, self.collector, self.task = MicroBatch.of(micro_batch), collector, task
        self._groups: dict[int, list[int]] = {}
        for i, j in layers:
            self._groups.setdefault(j, []).append(i)
        self._parts: dict[str, dict[Any, list[Tensor]]] = defaultdict(dict)
        self._origin: dict[Any, Tensor] = {}
        self._classes = ClassCounts()

    @disable_gradients()
    def run(self, batches: Batches, device: torch.device, progress: Progress | None = None,
            stage: str = "evaluation", keeper: Keeper = NO_KEEPER) -> Evaluation:
        """Evaluate the stitched networks in one pass over `batches`.

        Raises:
            SutureError: labels outside the classes, an output that does not suit the task, no scored tokens,
                or NaN or inf in a representation of the networks themselves.
        """
        self._parts, self._origin, self._classes = defaultdict(dict), {}, ClassCounts()
        sizes: list[int] = []
        state = {"sizes": sizes, "parts": self._parts, "origin": self._origin, "classes": self._classes}
        if self.collector is not None:
            state |= self.collector.get_state()
        with keeper.keep(stage, state, stage.rpartition(" ")[2], self._shorten) as kept:
            for k, batch in go_on(batches, kept):
                sizes.append(batch.size)
                for _ in self.pieces.map(batch, device, partial(self._try_piece, number=k)):
                    pass
                if progress:
                    progress(stage, k + 1, batches.count_batches())
        tokens = self._parts["tokens"].get(0)
        if tokens is not None and not any(t.any() for t in tokens):
            raise SutureError(f"the {batches.name} hold no scored token; give texts of at least two tokens, "
                              "and labels that are not all -100")
        return self._join_parts(sizes)

    def _shorten(self) -> None:
        """Join the parts so far, so that a checkpoint has few tensors."""
        for of in self._parts.values():
            join_parts(of)
        if self.collector is not None:
            self.collector.join_parts()

    def _join_parts(self, sizes: Sequence[int]) -> Evaluation:
        got: dict[str, dict[Any, NDArray[Any]]] = defaultdict(dict, {
            kind: {key: torch.cat(parts).cpu().numpy() for key, parts in of.items()}
            for kind, of in self._parts.items()})
        self._parts.clear()
        tokens, own_correct = got["tokens"].get(0), got["own_correct"].get(0)
        predicted, labelled = self.task is not Task.NONE, own_correct is not None
        shape = (len(self.source.sites), len(self.target.sites), sum(sizes))

        def stack(kind: str, wanted: bool, dtype: type = np.float32) -> NDArray[Any] | None:
            return stack_cells(got[kind], shape, dtype) if wanted else None

        hits = np.bool_ if tokens is None else np.float32
        spread = {j: shift_to_mean(d, got["sums"].pop(j), got["rows"][j])
                  for j, d in got["deviation"].items()}
        scale, whole = got["scale"].pop(_OUTPUT, None), spread.pop(_OUTPUT, None)
        broken = {key: int(counts.sum()) for key, counts in got["broken"].items()}
        return Evaluation(
            self.task, np.array(sizes), tokens, own_correct, got["own_ce"].get(0), broken.pop("own", 0),
            stack("correct", labelled, hits), stack("agree", predicted, hits), stack("kl", predicted),
            stack("ce", labelled), broken, self._classes.find_most(),
            stack_cells(got["scale"], shape[1:], np.float32),
            stack_cells(spread, shape[1:], np.float32), stack_cells(got["error"], shape, np.float32),
            scale, whole, stack("output_gap", not predicted))

    def _record(self, kind: str, key: Any, value: Tensor) -> None:
        self._parts[kind].setdefault(key, []).append(value)

    def _sum_finite_squares(self, network: SitedNetwork, xs: list[Tensor], inputs: object,
                            number: int) -> list[Tensor]:
        """Return |x|² (N,) without padding for every site, and refuse NaN and inf."""
        mask, squares = network.find_masks(inputs), []
        for k, (shape, x) in enumerate(zip(network.shapes, xs, strict=True)):
            squares.append(sum_squares(x.float(), shape, get_row_mask(shape, View.ALL, mask)))
            if not torch.isfinite(squares[-1]).all():
                raise make_nan_error(network, k, number, "test data")
        return squares

    def _list_parts(self) -> list[list[Tensor]]:
        own = [parts for of in self._parts.values() for parts in of.values()]
        return own if self.collector is None else own + self.collector.list_parts()

    def _try_piece(self, piece: Batch, number: int) -> None:
        """Evaluate a piece; leave nothing behind if that fails."""
        undo = (remember_lengths(self._list_parts), _remember_items(self._origin),
                _remember_items(self._classes.counts))
        try:
            self._evaluate_piece(piece, number)
        except (RuntimeError, MemoryError):
            for step in undo:
                step()
            raise

    def _evaluate_piece(self, piece: Batch, number: int) -> None:
        done = self.target.run_full(piece.target)
        natives, mask = self.target.pick_representations(done), self.target.find_masks(piece.target)
        logits = None if self.task is Task.NONE else self.task.extract_logits(done.output)
        xs = natives if self.source is self.target else self.source.front(piece.source)
        scales = self._sum_finite_squares(self.target, natives, piece.target, number)
        if xs is not natives:
            self._sum_finite_squares(self.source, xs, piece.source, number)
        own = (self._measure_output(done.output, piece.size, mask) if logits is None
               else self._predict_target(piece, logits))
        for j, (shape, native) in enumerate(zip(self.target.shapes, natives, strict=True)):
            self._record_native(j, to_grid(native.float(), shape, View.ALL), scales[j],
                                get_row_mask(shape, View.ALL, mask))
            if self.collector is not None:
                self.collector.add(j, native, mask, logits)
        for j in self._groups:
            self._evaluate_column(j, piece, xs, natives[j].float(), done, own)

    def _evaluate_column(self, j: int, piece: Batch, xs: list[Tensor], native: Tensor,
                         done: RecordedPass, own: _TargetPredictions | _TargetOutput) -> None:
        """Evaluate all cells of one target site, as many at once as the micro-batch allows."""
        mask, shape = self.target.find_masks(piece.target), self.target.shapes[j]
        counted = get_row_mask(shape, View.ALL, mask)
        sources, at_once = self._groups[j], self.target.count_at_once(j, self.pieces.most, piece.size)
        for start in range(0, len(sources), at_once):
            cells = [(i, j) for i in sources[start:start + at_once]]
            stitched = [self.layers[c](xs[c[0]], self.source.find_masks(piece.source)) for c in cells]
            for c, s in zip(cells, stitched, strict=True):
                self._record("error", c, sum_squares(s.float() - native, shape, counted))
            logits: Sequence[Tensor | None] = [None] * len(cells)
            output = self.target.tail(j, stitched[0] if len(cells) == 1 else torch.cat(stitched), done)
            if isinstance(own, _TargetOutput):
                self._record_outputs(cells, output, own)
            else:
                together = self.task.extract_logits(output)
                logits = together.chunk(len(cells))
                self._record_predictions(cells, together, own)
            if self.collector is not None:
                for c, s, each in zip(cells, stitched, logits, strict=True):
                    self.collector.add(c, s, mask, each)

    def _predict_target(self, piece: Batch, logits: Tensor) -> _TargetPredictions:
        rows = self.task.find_rows(self.target.view_output(piece.target), piece.labels)
        self.task.check_labels(rows, logits)
        own = _TargetPredictions(rows, rows.select(logits))
        self._record("broken", "own", (own.classes < 0).sum()[None])
        self._classes.add("prediction", own.classes, logits.shape[-1])
        if rows.tokens is not None:
            self._record("tokens", 0, rows.tokens)
        if rows.labels is not None:
            self._classes.add("label", rows.labels, logits.shape[-1])
            self._record("own_ce", 0, rows.sum_per_example(_cross_entropy(own.log_p, rows.labels)[None])[0])
            self._record("own_correct", 0, rows.sum_per_example((own.classes == rows.labels)[None])[0])
        return own

    def _measure_output(self, output: Any, size: int, masks: Masks) -> _TargetOutput:
        own = _TargetOutput(*arrange_output(_get_output(output), size, select_output_mask(masks)))
        self._record_native(_OUTPUT, own.grid, square_norms(zero_padding(own.grid, own.mask)), own.mask)
        return own

    def _record_outputs(self, cells: Sequence[Cell], output: Any, own: _TargetOutput) -> None:
        """Compare the outputs of k stitched networks with the target network's."""
        grid, _ = arrange_output(_get_output(output), len(cells) * len(own.grid), None)
        for c, each in zip(cells, grid.chunk(len(cells)), strict=True):
            self._record("output_gap", c, square_norms(zero_padding(each - own.grid, own.mask)))

    def _record_native(self, j: int | str, grid: Tensor, scale: Tensor, mask: Tensor | None) -> None:
        # Deviations are from the first piece's mean, because a mean far above the spread would cost all
        # float32 digits.
        grid, positions = zero_padding(grid, mask), tuple(range(1, grid.ndim - 1))
        rows = torch.full((len(grid),), grid[0, ..., 0].numel()) if mask is None else mask.flatten(1).sum(1)
        if j not in self._origin:
            self._origin[j] = grid.sum((0, *positions)) / rows.sum().clamp(min=1)
        deviation = zero_padding(grid - self._origin[j], mask)
        self._record("scale", j, scale)
        self._record("deviation", j, square_norms(deviation))
        self._record("sums", j, deviation.sum(positions))
        self._record("rows", j, rows)

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


@dataclass(frozen=True)
class _TargetOutput:
    """The target network's output (N, 1, rows, channels), and the mask (N, 1, rows) of rows that count."""

    grid: Tensor
    mask: Tensor | None


def _remember_items(of: dict[Any, Any]) -> Callable[[], None]:
    """Return a function that gives `of`, which checkpoints hold, the items back that it has now."""
    before = dict(of)

    def undo() -> None:
        of.clear()
        of.update(before)

    return undo


def _get_output(output: Any) -> Tensor:
    found = extract_main_output(output)
    assert found is not None  # the search for bypasses needs one
    return found


def _predict_classes(logits: Tensor) -> Tensor:
    best, classes = logits.max(1)
    return classes.masked_fill(~best.isfinite(), -1)


def _cross_entropy(log_p: Tensor, labels: Tensor) -> Tensor:
    return -log_p.gather(1, labels[:, None])[:, 0]
