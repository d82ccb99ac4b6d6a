"""Passes of a batch through many stitched networks, in pieces that fit the memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from suture.data import Batch, MicroBatch, cut_batch
from suture.networks import RecordedPass, SitedNetwork, disable_gradients
from suture.representations import Masks, View, get_row_mask, to_grid
from suture.stitching.layer import StitchingLayer
from suture.stitching.objective import TaskRecipe, compute_task_losses
from suture.stitching.tasks import ScoredRows, Task

LayerKey = tuple[int, ...]
"""Source site and target site of a layer, and any number that tells it from others of the same cell.

With S source sites, the source S + j is target site j itself, for own layers."""
Layers = Mapping[LayerKey, StitchingLayer]
Grads = dict[LayerKey, list[Tensor | None]]


def make_training_micro_batch(forward: int) -> MicroBatch:
    """Return the micro-batch of training, from the maximum without gradients (`choose_micro_batch`).

    It is half of `forward`, because training keeps more tensors and batches beyond the CPU's cache are slow.
    For a ResNet-20 at 32x32 (benchmarks/groups.py) it is 104 images with strides, where the size makes no
    difference. Without strides it is 26: 16 to 32 are fastest, 128 are 34 to 57 % slower.
    """
    return MicroBatch(forward // 2, "in training",
                      "use a device with more memory, or objective='match', which runs no tail")


def sort_by_target(layers: Layers) -> dict[LayerKey, StitchingLayer]:
    """Return the layers sorted by target site, so that cells with the same tail are neighbours."""
    return {c: layers[c] for c in sorted(layers, key=lambda c: c[1])}


def list_trainable(layer: StitchingLayer) -> list[Tensor]:
    return [p for p in layer.parameters() if p.requires_grad]


@dataclass(frozen=True)
class BatchSums:
    """Sums of one batch, with one entry for each of n cells.

    Attributes:
        loss: (n,) sum of the objective over the examples or scored tokens.
        hits: (n,) number of these that are classified correctly; meaningless unless `labelled`.
        examples: number of examples or scored tokens.
    """

    loss: Tensor
    hits: Tensor
    examples: int
    labelled: bool


@dataclass(frozen=True)
class _PieceOutputs:
    """Outputs of the networks on a piece of a batch.

    Attributes:
        xs: representations at all source sites, then at all target sites.
        ys: representations at all target sites.
        done: full pass of the target; None for "match".
        own: the target's logits of the scored rows; meaningless for "match".
    """

    piece: Batch
    rows: ScoredRows
    xs: list[Tensor]
    ys: list[Tensor]
    done: RecordedPass | None
    own: Tensor


class GroupedPass:
    """A pass of batches through the networks stitched by many layers.

    A batch needs one front pass of the source and one full pass of the target. Each target site adds a pass
    of its tail, with as many stitched representations concatenated as memory allows. For self-stitching,
    `source` and `target` are the same object. `micro_batch` examples fit the memory at once without
    gradients.
    """

    def __init__(self, source: SitedNetwork, target: SitedNetwork, recipe: TaskRecipe, micro_batch: int,
                 task: Task = Task.CLASSIFICATION) -> None:
        self.source, self.target, self.recipe, self.task = source, target, recipe, task
        self.micro_batch = make_training_micro_batch(micro_batch)
        self._matches = recipe.objective == "match"

    def run(self, layers: Layers, batch: Batch, device: torch.device, *, backward: bool,
            check: bool) -> tuple[Grads, BatchSums]:
        """Return each layer's gradient of its mean objective plus penalty, and the sums over the batch.

        If memory runs out, the whole batch runs again in smaller pieces. `layers` must be in the order of
        `sort_by_target`. `check` decides if labels are checked, for which an accelerator waits.
        """
        sources = 1 if self._matches else max(Counter(c[1] for c in layers).values(), default=1)
        with torch.set_grad_enabled(backward):  # whatever the caller has
            return self.micro_batch.run(lambda: self._run_once(layers, batch, device, backward, check),
                                        sources * batch.size)

    def _run_once(self, layers: Layers, batch: Batch, device: torch.device, backward: bool,
                  check: bool) -> tuple[Grads, BatchSums]:
        pieces = [(piece, self._find_rows(piece))
                  for piece in cut_batch(batch, self.micro_batch.choose_piece_size(batch.size))]
        count = sum(rows.count for _, rows in pieces)
        loss, hits, scales = torch.zeros(3, len(layers), device=device)
        grads: Grads = {}
        for piece, rows in pieces:
            if not rows.count:
                continue
            outputs = self._run_networks(piece, rows, device, check)
            for here, cells in self._group(layers, piece.size):
                losses, right = self._compute_losses(layers, cells, outputs)
                loss[here] += losses.detach().sum(1)
                hits[here] += right
                if self._matches:
                    j = cells[0][1]
                    scales[here] += self._sum_squares(j, outputs.ys[j].float(), outputs)
                if backward:
                    # "match" is scaled by |T|² of the whole batch, which is known only at its end.
                    _add_gradients(grads, layers, cells,
                                   losses.sum() if self._matches else losses.sum() / count)
        if self._matches:
            loss *= batch.size / scales
            grads = {c: [None if g is None else g / s for g in grads[c]]
                     for c, s in zip(layers, scales, strict=True) if c in grads}
        if backward:
            for k, (c, layer) in enumerate(layers.items()):
                if (penalty := layer.penalty()) is not None:
                    _add_gradients(grads, layers, [c], penalty)
                    loss[k] += penalty.detach() * count
        return grads, BatchSums(loss, hits, count, all(rows.labels is not None for _, rows in pieces))

    def _group(self, layers: Layers, size: int) -> Iterator[tuple[slice, list[LayerKey]]]:
        """Yield the cells whose stitched representations are concatenated, with their slice of `layers`."""
        at_once, start = 1 if self._matches else self.micro_batch.count_at_once(size), 0
        for _, group in groupby(layers, key=lambda c: c[1]):
            cells = list(group)
            for k in range(0, len(cells), at_once):
                some = cells[k:k + at_once]
                yield slice(start, start + len(some)), some
                start += len(some)

    def _find_rows(self, batch: Batch) -> ScoredRows:
        return (ScoredRows(batch.size, None, None) if self._matches
                else self.task.find_rows(self.target.view_output(batch.target), batch.labels))

    def _cast_forward(self, device: torch.device) -> AbstractContextManager[object]:
        if self.recipe.precision == "float32":
            return nullcontext()
        return torch.autocast(device.type, torch.bfloat16)

    def _run_networks(self, piece: Batch, rows: ScoredRows, device: torch.device,
                      check: bool) -> _PieceOutputs:
        done = None
        with disable_gradients(), self._cast_forward(device):
            if self._matches:
                ys = self.target.front(piece.target)
                own = ys[0]
            else:
                done = self.target.run_full(piece.target)
                ys, logits = self.target.pick_representations(done), self.task.extract_logits(done.output)
                if check and self.recipe.needs_labels:
                    self.task.check_labels(rows, logits)
                own = rows.select(logits)
            xs = ys if self.source is self.target else self.source.front(piece.source)
        return _PieceOutputs(piece, rows, [*xs, *ys], ys, done, own)

    def _compute_losses(self, layers: Layers, cells: Sequence[LayerKey],
                        outputs: _PieceOutputs) -> tuple[Tensor, Tensor]:
        """Return the losses (k, rows) of k cells with the same tail, and their hits (k,)."""
        j = cells[0][1]
        y = outputs.ys[j]
        piece, own = outputs.piece, len(self.source.sites)
        masks = (self.source.find_masks(piece.source), self.target.find_masks(piece.target))
        stitched = [self._stitch(layers[c], outputs.xs[c[0]], masks[c[0] >= own]) for c in cells]
        if outputs.done is None:
            difference = stitched[0] - y.float()
            return self._sum_squares(j, difference, outputs).view(1, 1), difference.new_zeros(1)
        together = (stitched[0] if len(cells) == 1 else torch.cat(stitched)).to(y.dtype)
        with self._cast_forward(y.device):
            output = self.target.tail(j, together, outputs.done)
        logits, labels = outputs.rows.select(self.task.extract_logits(output)).float(), outputs.rows.labels
        losses = compute_task_losses(logits, outputs.own, labels, self.recipe)
        if labels is None or labels.ndim != 1:
            return losses, losses.new_zeros(len(cells))
        return losses, (logits.detach().argmax(1).view(len(cells), -1) == labels).sum(1)

    def _stitch(self, layer: StitchingLayer, x: Tensor, mask: Masks) -> Tensor:
        """Run a layer, in float32 if the networks run in bfloat16 and for "match"."""
        out: Tensor = layer(x.float() if self._matches or self.recipe.precision == "bf16" else x, mask)
        return out

    def _sum_squares(self, j: int, x: Tensor, outputs: _PieceOutputs) -> Tensor:
        """Return |x|² at target site `j` without padding tokens."""
        rows = get_row_mask(self.target.shapes[j], View.ALL, self.target.find_masks(outputs.piece.target))
        if rows is not None:
            x = to_grid(x, self.target.shapes[j], View.ALL)[rows]
        return x.square().sum()


def _add_gradients(grads: Grads, layers: Layers, cells: Sequence[LayerKey], loss: Tensor) -> None:
    """Add the gradients of a loss to those of the layers of `cells`."""
    moving = {c: list_trainable(layers[c]) for c in cells}
    flat = [p for parameters in moving.values() for p in parameters]
    found = iter(torch.autograd.grad(loss, flat, allow_unused=True) if flat else ())
    for c, parameters in moving.items():
        new: list[Tensor | None] = [next(found) for _ in parameters]
        old = grads.get(c, [None] * len(new))
        grads[c] = [a if b is None else b if a is None else a + b for a, b in zip(old, new, strict=True)]
