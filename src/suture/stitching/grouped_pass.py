"""One batch through many stitched networks, grouped by target site, with each layer's own gradient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from suture.data import Batch, cut_batch
from suture.networks import RecordedPass, SitedNetwork, disable_gradients
from suture.representations import Cell, View, get_row_mask, get_token_mask
from suture.representations import to_grid as grid_of
from suture.stitching.batch_budget import BatchBudget, find_backward_budget, measure_tail_bytes, try_in_memory
from suture.stitching.layer import StitchingLayer
from suture.stitching.objective import compute_task_losses
from suture.stitching.recipe import TaskRecipe
from suture.stitching.tasks import ScoredRows, Task

Layers = Mapping[Cell, StitchingLayer]
Grads = dict[Cell, list[Tensor | None]]


def sort_by_target(layers: Layers) -> dict[Cell, StitchingLayer]:
    """Return the layers sorted by target site, so that cells with the same tail are neighbours."""
    return {c: layers[c] for c in sorted(layers, key=lambda c: c[1])}


def list_trainable(layer: StitchingLayer) -> list[Tensor]:
    """Return the trainable parameters of a layer, in a fixed order."""
    return [p for p in layer.parameters() if p.requires_grad]


class ObjectiveSums:
    """Sums of one pass on the device, with one entry for each of `n` cells.

    Attributes:
        loss: sum of the objective over the examples, or over the scored tokens.
        hits: number of these whose label is predicted.
        bad: the first step in which the objective was not finite, or -1.
        examples: number of examples or scored tokens.
        labelled: True if `hits` is meaningful.
    """

    def __init__(self, n: int, device: torch.device) -> None:
        self.loss, self.hits = torch.zeros(n, device=device), torch.zeros(n, device=device)
        self.bad = torch.full((n,), -1, device=device)
        self.examples = 0
        self.labelled = True

    def add(self, other: ObjectiveSums, step: int) -> None:
        """Add the sums of one batch, which belongs to `step`."""
        self.loss += other.loss
        self.hits += other.hits
        self.bad = torch.where((self.bad < 0) & ~torch.isfinite(other.loss), step, self.bad)
        self.examples += other.examples
        self.labelled &= other.labelled


@dataclass(frozen=True)
class _PieceOutputs:
    """The networks' outputs on a piece of a batch.

    `xs` and `ys` are the representations at all source and target sites. `done` is the target's pass, and
    `own` its logits of the scored rows.
    """

    xs: list[Tensor]
    ys: list[Tensor]
    done: RecordedPass | None
    own: Tensor
    rows: ScoredRows
    size: int
    mask: Tensor | None
    target_mask: Tensor | None


class GroupedPass:
    """A pass of batches through the networks stitched by many layers.

    Each batch needs one front pass of the source and one full pass of the target. Each target site needs a
    pass of its tail over the stitched representations of its sources. `BatchBudget` says how many of them are
    concatenated.

    Args:
        source, target: frozen networks with their sites, on `device`; the same object for self-stitching.
        recipe: gives the objective and the precision.
        micro_batch: most examples that pass a whole network at once.
        device: of the networks and layers.
        task: of the target's output.

    Attributes:
        batch_budget: sizes of the passes, and the cuts because memory ran out.
    """

    def __init__(self, source: SitedNetwork, target: SitedNetwork, recipe: TaskRecipe, micro_batch: int,
                 device: torch.device, task: Task = Task.CLASSIFICATION) -> None:
        self.source, self.target, self.recipe, self.device = source, target, recipe, device
        self.task = task
        self.batch_budget = BatchBudget([str(s) for s in target.sites], micro_batch,
                                        find_backward_budget(device))
        self._matches = recipe.objective == "match"

    def run(self, layers: Layers, batch: Batch, check: ScoredRows | None, *,
            backward: bool) -> tuple[Grads, ObjectiveSums]:
        """Return the sums over a batch and, for each layer, the gradient of its mean objective plus penalty.

        If memory runs out, the whole batch runs again in smaller pieces.

        Args:
            layers: in the order of `sort_by_target`.
            batch: on the device.
            check: the batch's rows if their labels are to be checked. They should be on the CPU, because the
                check would wait for an accelerator.
            backward: compute gradients.

        Raises:
            SutureError: labels outside the classes, or one example that does not fit the memory.
        """
        while True:
            found = try_in_memory(lambda: self._run_once(layers, batch, check, backward))
            if found is not None:
                return found
            self.batch_budget.halve_examples(self.batch_budget.choose_piece_size(batch.size))

    def _run_once(self, layers: Layers, batch: Batch, check: ScoredRows | None,
                  backward: bool) -> tuple[Grads, ObjectiveSums]:
        groups = _group_by_target(layers)
        if self.batch_budget.to_measure and not self._matches:
            self._measure_tails(batch, [j for j, _, _ in groups])
        grads: Grads = {}
        sums = ObjectiveSums(len(layers), self.device)
        rows = self._find_rows(batch)
        sums.examples, sums.labelled = rows.count, rows.labels is not None and not self._matches
        scales = torch.zeros(len(layers), device=self.device)
        for piece in cut_batch(batch, self.batch_budget.choose_piece_size(batch.size)):
            if not self._find_rows(piece).count:
                continue
            look = self._run_networks(piece, check)
            check = None
            for j, first, cells in groups:
                if self._matches:
                    scales[first:first + len(cells)] += self._sum_squares(j, look.ys[j].float(), look)
                for k, losses, hits, new in self._run_group(layers, j, cells, look,
                                                            sums.examples if backward else None):
                    here = slice(first + k, first + k + len(losses))
                    sums.loss[here] += losses
                    sums.hits[here] += hits
                    for c, gradient in new.items():
                        _add_gradients(grads, c, gradient)
        if self._matches:
            sums.loss *= batch.size / scales
            grads = {c: [None if g is None else g / s for g in grads[c]]
                     for c, s in zip(layers, scales, strict=True) if c in grads}
        if backward:
            _add_penalties(layers, grads, sums)
        return grads, sums

    def _find_rows(self, batch: Batch) -> ScoredRows:
        return (ScoredRows(batch.size, None, None) if self._matches
                else self.task.find_rows(batch.target, batch.labels))

    def _cast_forward(self) -> AbstractContextManager[object]:
        if self.recipe.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def _run_networks(self, piece: Batch, check: ScoredRows | None) -> _PieceOutputs:
        same, rows = self.source is self.target, self._find_rows(piece)
        with disable_gradients(), self._cast_forward():
            if self._matches:
                ys = self.target.front(piece.target)
                done, own = None, ys[0]
            else:
                done = self.target.run_full(piece.target)
                ys, logits = self.target.pick_representations(done), self.task.extract_logits(done.output)
                if check is not None and self.recipe.needs_labels:
                    self.task.check_labels(check, logits)
                own = rows.select(logits)
            xs = ys if same else self.source.front(piece.source)
        return _PieceOutputs(xs, ys, done, own, rows, piece.size, get_token_mask(piece.source),
                             get_token_mask(piece.target))

    @torch.enable_grad()
    def _measure_tails(self, batch: Batch, targets: Sequence[int]) -> None:
        look = self._run_networks(next(cut_batch(batch, 4)), None)
        assert look.done is not None
        with self._cast_forward():
            self.batch_budget.set_tail_bytes({j: measure_tail_bytes(self.target, j, look.ys[j], look.done)
                                              for j in targets})

    def _run_group(self, layers: Layers, j: int, cells: Sequence[Cell], look: _PieceOutputs,
                   size: int | None) -> Iterator[tuple[int, Tensor, Tensor, Grads]]:
        """Yield the results of the cells of one target site, one concatenation at a time.

        Results are yielded after the whole concatenation has passed. If memory runs out before that, nothing
        was added.
        """
        start = 0
        while start < len(cells):
            most = 1 if self._matches else self.batch_budget.count_at_once(j, look.size)
            some = cells[start:start + most]

            def work(some: Sequence[Cell] = some) -> tuple[Tensor, Tensor, Grads]:
                return self._compute_gradients(layers, some, look, size)

            found = work() if len(some) == 1 else try_in_memory(work)
            if found is None:
                self.batch_budget.halve_batches(j, len(some))
                continue
            yield start, *found
            start += len(some)

    def _compute_gradients(self, layers: Layers, cells: Sequence[Cell], look: _PieceOutputs,
                           size: int | None) -> tuple[Tensor, Tensor, Grads]:
        """Return the sums of losses (k,) and hits (k,), and the gradients.

        There are gradients only if `size` is given, the number of scored rows of the whole batch.
        """
        losses, hits = (self._run_match(layers, cells[0], look) if self._matches
                        else self._run_task(layers, cells, look))
        moving = {c: list_trainable(layers[c]) for c in cells}
        flat = [p for ps in moving.values() for p in ps]
        new: Grads = {}
        if size is not None and flat:
            # "match" is scaled by |T|² of the whole batch, which is known only at its end.
            total = losses.sum() if self._matches else losses.sum() / size
            found = iter(torch.autograd.grad(total, flat, allow_unused=True))
            new = {c: [next(found) for _ in ps] for c, ps in moving.items()}
        return losses.detach().sum(1), hits, new

    def _run_task(self, layers: Layers, cells: Sequence[Cell], look: _PieceOutputs) -> tuple[Tensor, Tensor]:
        stitched = [self._stitch(layers[c], look.xs[c[0]], look.ys[c[1]], look.mask) for c in cells]
        together = stitched[0] if len(cells) == 1 else torch.cat(stitched)
        assert look.done is not None
        with self._cast_forward():
            output = self.target.tail(cells[0][1], together, look.done)
        logits, labels = look.rows.select(self.task.extract_logits(output)).float(), look.rows.labels
        losses = compute_task_losses(logits, look.own, labels, self.recipe)
        if labels is None or labels.ndim != 1:
            return losses, losses.new_zeros(len(cells))
        return losses, (logits.detach().argmax(1).view(len(cells), -1) == labels).sum(1)

    def _stitch(self, layer: StitchingLayer, x: Tensor, y: Tensor, mask: Tensor | None) -> Tensor:
        """Run a layer in float32, also where the networks run in bfloat16."""
        out: Tensor = (layer(x, mask) if self.recipe.precision == "float32"
                       else layer(x.float(), mask).to(y.dtype))
        return out

    def _run_match(self, layers: Layers, cell: Cell, look: _PieceOutputs) -> tuple[Tensor, Tensor]:
        i, j = cell
        difference = layers[cell](look.xs[i].float(), look.mask) - look.ys[j].float()
        return self._sum_squares(j, difference, look).view(1, 1), difference.new_zeros(1)

    def _sum_squares(self, j: int, x: Tensor, look: _PieceOutputs) -> Tensor:
        """Return |x|² over the rows of target site `j` that are not padding."""
        rows = get_row_mask(self.target.shapes[j], View.ALL, look.target_mask)
        if rows is not None:
            x = grid_of(x, self.target.shapes[j], View.ALL)[rows]
        return x.square().sum()


def _group_by_target(layers: Layers) -> list[tuple[int, int, list[Cell]]]:
    """Return target site, position of its first cell, and its cells, for each target site."""
    cells = list(layers)
    found: list[tuple[int, int, list[Cell]]] = []
    for k, c in enumerate(cells):
        if not k or c[1] != cells[k - 1][1]:
            found.append((c[1], k, []))
        found[-1][2].append(c)
    return found


def _add_penalties(layers: Layers, grads: Grads, sums: ObjectiveSums) -> None:
    for k, (c, layer) in enumerate(layers.items()):
        penalty = layer.penalty()
        if penalty is not None:
            _add_gradients(grads, c,
                           list(torch.autograd.grad(penalty, list_trainable(layer), allow_unused=True)))
            sums.loss[k] += penalty.detach() * sums.examples


def _add_gradients(grads: Grads, cell: Cell, new: list[Tensor | None]) -> None:
    old = grads.get(cell)
    if old is not None:
        new = [a if b is None else b if a is None else a + b for a, b in zip(old, new, strict=True)]
    grads[cell] = new
