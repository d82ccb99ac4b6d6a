"""What a network does with a few examples, and how much of it is left after a shift."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from suture._base import count_examples
from suture.networks import extract_main_output
from suture.numbers import Estimate, estimate_hit_ratio, estimate_ratios, take_root
from suture.representations import get_token_mask
from suture.stitching import Task


@dataclass(frozen=True)
class Outcome:
    """The outcome of n examples.

    Attributes:
        classes: predictions (n,), or those of the M scored tokens; None without predictions.
        counts: (n,) scored tokens of each example; None if each has one prediction.
        labels: as `classes`; None without labels.
        output: the network's output (n, F) where it has no predictions; nan if it has no axis of examples.
    """

    classes: Tensor | None
    counts: Tensor | None
    labels: Tensor | None
    output: Tensor | None

    @classmethod
    def join(cls, parts: Sequence[Outcome]) -> Outcome:
        """Join the outcomes of pieces; zeros fill the outputs of shorter texts."""
        def cat(name: str) -> Tensor | None:
            of = [getattr(p, name) for p in parts]
            if any(x is None for x in of):
                return None
            longest = max(x.shape[-1] for x in of)
            return torch.cat([F.pad(x, (0, longest - x.shape[1])) if x.ndim == 2 else x for x in of])

        return cls(*(cat(name) for name in ("classes", "counts", "labels", "output")))

    def find_classes(self) -> tuple[Tensor, str]:
        """Return the class of each example, and where it is from; one class without a class for each."""
        if self.classes is None or self.counts is not None:
            n = len(next(x for x in (self.counts, self.output) if x is not None))
            return torch.zeros(n, dtype=torch.long), ""
        return (self.classes, "predictions") if self.labels is None else (self.labels, "labels")


def measure_outcome(task: Task, output: Any, inputs: Any, labels: Tensor | None) -> Outcome:
    """Measure the outcome of a piece, on the CPU.

    Args:
        task: of the network.
        output: of the network, perhaps for shifted inputs.
        inputs: the inputs before the shift, as the output follows them; they say which tokens are scored.
        labels: of the data.
    """
    if task is Task.NONE:
        found = extract_main_output(output)
        assert found is not None  # the search for bypasses needs one
        n, mask = count_examples(inputs), get_token_mask(inputs)
        if mask is not None and mask.shape == found.shape[:2]:
            found = found.masked_fill(~mask.to(found.device).reshape(*mask.shape, *[1] * (found.ndim - 2)), 0)
        whole = found.numel() % n == 0
        flat = found.float().reshape(n, -1) if whole else torch.full((n, 1), torch.nan)
        return Outcome(None, None, None, flat.cpu())
    logits, rows = task.extract_logits(output), task.find_rows(inputs, labels)
    task.check_labels(rows, logits)
    best, classes = rows.select(logits).float().max(1)
    return Outcome(classes.masked_fill(~best.isfinite(), -1).cpu(),
                   None if rows.tokens is None else rows.tokens.cpu(),
                   None if rows.labels is None else rows.labels.cpu(), None)


def compare_outcomes(shifted: Outcome, native: Outcome, seed: int = 0) -> Estimate:
    """Return how well a network still works: 1 where nothing has changed.

    It is the relative accuracy, without labels the agreement with the predictions before the shift, and
    without predictions 1 minus the relative error of the output: minus infinity where shifted outputs are not
    finite.
    """
    if shifted.classes is None or native.classes is None:
        return _compare_outputs(shifted, native, seed)
    wanted = native.classes if native.labels is None else native.labels
    known = wanted >= 0  # -1: the output is not finite
    hits, before = (known & (of.classes == wanted) for of in (shifted, native))
    if native.counts is None:
        return estimate_hit_ratio(hits.numpy(), before.numpy(), seed)
    per_text = [torch.stack([part.sum() for part in torch.split(h.float(), native.counts.tolist())]).numpy()
                for h in (hits, before)]
    return estimate_ratios(per_text[0][None], per_text[1], seed)[0]


def _compare_outputs(shifted: Outcome, native: Outcome, seed: int) -> Estimate:
    assert shifted.output is not None
    assert native.output is not None
    n, k = len(native.output), min(shifted.output.shape[1], native.output.shape[1])
    gap = (shifted.output[:, :k] - native.output[:, :k]).square().sum(1)
    before = native.output.square().sum(1)
    if bool(before.isfinite().all()) and not bool(gap.isfinite().all()):
        return Estimate(-math.inf, -math.inf, -math.inf)
    error = estimate_ratios(gap.reshape(1, n).numpy(), before.numpy(), seed)[0]
    root = error if error.reason else take_root(error)
    return Estimate(1 - root.value, 1 - root.high, 1 - root.low, root.reason)
