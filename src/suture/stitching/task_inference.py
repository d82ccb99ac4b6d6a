"""The task of a network, inferred from its output on a few examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from suture._base import SutureError, count_examples, replace_input
from suture.networks import Call, apply, disable_gradients, extract_main_output, record, walk
from suture.representations import get_token_mask
from suture.stitching.tasks import Task, find_token_ids

TaskName = Literal["auto", "classification", "next_token", "tokens", "none"]
TASKS: tuple[str, ...] = get_args(TaskName)
ROUNDING = 1e-5
"""Change of logits, relative to the largest one, that is rounding."""


@torch.no_grad()
def resolve_task(asked: str, network: nn.Module, inputs: Any, labels: Tensor | None, *,
                 trained: bool = False) -> Task:
    """Return the task on which stitched networks are scored.

    "auto" infers it from the target network's output, by the first rule that applies:

    - There is no 3-D tensor: classification.
    - The 3-D tensor is hidden states, not logits: none. It is logits if it is named "logits", if labels are
      (N, T), or if its last axis is as long as the embedding of the token ids (the vocabulary).
    - The inputs are token ids below the number of classes, and the network is causal: next token. In a causal
      network, changing the last token changes no earlier logits.
    - Else: tokens, with a label for each position.

    Args:
        asked: one of `TASKS`.
        network: the target network, frozen.
        inputs: a few examples.
        labels: of these examples, and perhaps of more.
        trained: check also that the labels are classes of the network, for training.

    Raises:
        SutureError: an output or labels that do not fit the task; labels (N, T) of a causal network whose
            numbers of logits and embeddings differ, because they may belong to the same or the next position.
    """
    few = None if labels is None else labels[:count_examples(inputs)]
    with disable_gradients():
        root = record(network, inputs)
    task = _infer_task(network, inputs, few, root) if asked == "auto" else Task(asked)
    if task is not Task.NONE:
        logits = task.extract_logits(root.output)
        rows = task.find_rows(inputs, few if task.of_tokens else labels)
        rows.check_length(logits)
        if trained:
            task.check_labels(rows, logits)
    return task


def _infer_task(network: nn.Module, inputs: Any, labels: Tensor | None, root: Call) -> Task:
    logits, ids = extract_main_output(root.output), find_token_ids(inputs)
    if logits is None or logits.ndim != 3:
        return Task.CLASSIFICATION
    named = isinstance(root.output, Mapping) and "logits" in root.output
    aligned, classes = labels is not None and labels.ndim == 2, logits.shape[2]
    vocabulary = _count_vocabulary(root, ids)
    if not (named or aligned or classes == vocabulary):
        return Task.NONE
    if ids is None or int(ids.max()) >= classes or not _is_causal(network, inputs, ids, logits):
        return Task.TOKENS
    if aligned and classes != vocabulary:
        raise SutureError("labels (N, T) may be of the same or of the next token: the network is causal, "
                          f"with {classes} outputs and {vocabulary or 'no'} embeddings; write "
                          "task='next_token' or task='tokens'")
    return Task.NEXT_TOKEN


def _count_vocabulary(root: Call, ids: Tensor | None) -> int | None:
    """Return the number of rows of the embedding that reads the token ids, or None."""
    if ids is None:
        return None
    for call in walk(root):
        if isinstance(call.module, nn.Embedding) and any(
                isinstance(a, Tensor) and a.shape == ids.shape and torch.equal(a, ids) for a in call.args):
            return call.module.num_embeddings
    return None


def _is_causal(network: nn.Module, inputs: Any, ids: Tensor, logits: Tensor) -> bool:
    """Check that logits do not depend on later tokens, by changing the last token of each example."""
    if logits.shape[1] != ids.shape[1]:
        return False
    mask = get_token_mask(inputs)
    real = mask if mask is not None and mask.shape == ids.shape else torch.ones_like(ids, dtype=torch.bool)
    long = (real.sum(1) > 1).nonzero()[:, 0]
    if not len(long):
        raise SutureError("cannot tell whether the network is causal from sequences of fewer than two "
                          "tokens; write task='next_token' or task='tokens'")
    last = ids.shape[1] - 1 - real.flip(1).int().argmax(1)
    least, most = int(ids.min()), int(ids.max())
    other = most if most > least else least - 1 if least else 1
    changed = ids.clone()
    changed[long, last[long]] = torch.where(ids[long, last[long]] == least, other, least).to(ids.dtype)
    with disable_gradients():
        after = extract_main_output(apply(network, replace_input(inputs, ids, changed)))
    assert after is not None
    before = real & (torch.arange(ids.shape[1], device=ids.device) < last[:, None])
    # A class that the network excludes has a logit of -inf.
    own, new = (t.float().nan_to_num(0, 0, 0) for t in (logits, after))
    return bool((new - own)[long][before[long]].abs().max() <= ROUNDING * own[real].abs().max())
