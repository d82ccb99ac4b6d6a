"""What is scored of a network's output, and on which task: given, or found by evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from suture._base import SutureError, count_examples, describe_value, expect, replace_input
from suture.data import Batch
from suture.networks import OutputKind, Readout, apply, disable_gradients, name_tensors, sums_to_one
from suture.representations import get_token_mask
from suture.stitching.output_choice import choose_output, find_kind, has_tokens, is_logarithmic, read_choice
from suture.stitching.output_evidence import Evidence
from suture.stitching.tasks import IGNORED_LABEL, Task, find_token_ids

ROUNDING = 1e-5
"""Change of logits, relative to the largest one, that is rounding."""


_LEAST = 20
"""Smallest number of examples whose largest values can show that an output is no logits."""


@dataclass(frozen=True)
class ScoredOutput:
    """The scored tensor of a network's output, and the task it is scored on.

    Attributes:
        readout: how it is read.
        why: reason why "auto" found no task; empty if it found one.
        notes: sentences for the reader on what was found.
    """

    task: Task
    readout: Readout
    why: str = ""
    notes: tuple[str, ...] = ()


@torch.no_grad()
def resolve_output(network: nn.Module, inputs: Any, labels: Tensor | None, *, task: str = "auto",
                   output: str | int | None = None,
                   more: Callable[[], Iterable[Batch]] | None = None, trained: bool = False) -> ScoredOutput:
    """Return what is scored of the target network's output, and on which task.

    `choose_output` chooses the tensor, and `find_kind` recognises probabilities. "auto" infers the task by
    the first rule that applies:

    - Labels are numbers, several for each example, or missing for an output of one number: none.
    - The rows (N, K) have unit norm, as embeddings do, or most of their largest values lie beyond all labels:
      none.
    - The output is (N, K), or one number for each example with labels 0 and 1: classification.
    - The output has three axes and is hidden states, not logits: none. It is logits if it is named "logits",
      if labels are (N, T), or if its last axis is as long as the embedding of the token ids (the vocabulary).
    - The inputs are token ids below the number of classes, and the network is causal: next token. In a causal
      network, changing the last token changes no earlier logits.
    - The output has three axes: tokens, with a label for each position.
    - Else: none.

    Args:
        network: the target network, frozen.
        inputs: a batch.
        labels: of its examples.
        task: one of `TASKS`.
        output: the place of the tensor, its kind, or both, such as ``"1"`` or ``"head@sigmoid"``. None: find
            them.
        more: returns batches of more examples, spread over the data. Default: `inputs`.
        trained: check also that the labels are classes of the network, for training.

    Raises:
        SutureError: an output or labels that do not fit the task, or evidence that does not decide.
    """
    evidence = Evidence(network, inputs, labels, more)
    _check_batched(evidence)
    path, kind = read_choice(output, evidence)
    note = kind_note = ""
    if path is None:
        path, note = choose_output(evidence, task)
    expect(evidence.named[path].ndim > 0, "an output for each example", "a single number",
           "wrap the network so that it returns one")
    why, found, task_note = "", Task.NONE, ""
    if task == "auto":
        why, found, task_note = _infer_task(path, evidence)
    else:
        found = Task(task)
    single = found is Task.CLASSIFICATION and evidence.named[path][0].numel() == 1
    if found is Task.NONE:
        kind = OutputKind.VALUES
    elif kind is None:
        kind, kind_note = find_kind(path, evidence, single)
    tokens = found is Task.NONE and has_tokens(path, evidence)
    made = ScoredOutput(found, Readout(path, kind, single, tokens), why,
                        tuple(n for n in (note, task_note, kind_note) if n))
    if found is not Task.NONE:
        _check_labels(made, evidence, trained)
    return made


def _check_batched(evidence: Evidence) -> None:
    """Check that the output is not a list of one dictionary for each example, as of a detector's boxes."""
    output, size = evidence.root.output, count_examples(evidence.few)
    if isinstance(output, tuple | list) and len(output) == size and all(
            isinstance(one, Mapping) for one in output):
        raise SutureError(f"expected one output for a batch, got a list of {size} dictionaries; write "
                          "methods=[] for indices, or return features instead")


def _check_labels(made: ScoredOutput, evidence: Evidence, trained: bool) -> None:
    task = made.task
    logits = task.extract_logits(made.readout.read(evidence.root.output))
    rows = task.find_rows(evidence.tokens, evidence.few_labels if task.of_tokens else evidence.labels)
    rows.check_length(logits)
    if trained:
        task.check_labels(rows, logits)


def _infer_task(path: str, evidence: Evidence) -> tuple[str, Task, str]:
    """Return the reason if there is no task, the task, and a note."""
    x, labels = evidence.named[path], evidence.labels
    if x.ndim == 3:
        why, task = _infer_token_task(path, x, evidence)
    else:
        why = _explain_none(path, evidence)
        task = Task.NONE if why else Task.CLASSIFICATION
    if task is Task.NONE:
        return why, task, (f"the task is none, because {why}: stitched networks are scored by output_r2 and "
                           "output_error")
    note = ""
    if task is Task.CLASSIFICATION and labels is None:
        note = (f"without labels, the output of {x.shape[1]} numbers is taken for logits; write task='none' "
                "if it is an embedding or a regression")
    elif task is Task.CLASSIFICATION and x[0].numel() == 1:
        note = ("the output is taken for the logit of class 1, with labels 0 and 1; write task='none' if it "
                "is a regression")
    return why, task, note


def _explain_none(path: str, evidence: Evidence) -> str:
    """Return the reason why an output without tokens is no logits of classes; "" if it is."""
    x, labels = evidence.named[path], evidence.labels
    if x.ndim not in (1, 2):
        return f"the output is {describe_value(x)}"
    width = x[0].numel()
    if labels is not None and (labels.is_floating_point() or labels.ndim != 1):
        return _explain_values(labels, width)
    if width == 1:
        known = None if labels is None else evidence.many_labels
        binary = known is not None and set(known.tolist()) <= {0, 1}
        return "" if binary else "the output is one number for each example"
    if sums_to_one(x) or is_logarithmic(x):
        return ""
    if all(bool(((t.float().norm(dim=1) - 1).abs() < 1e-3).all()) for t in (x, evidence.get_many(path))):
        return "its rows have unit norm, as embeddings do"
    return _explain_misses(path, evidence)


def _explain_values(labels: Tensor, width: int) -> str:
    """Return the reason why labels are no class numbers; raise an error for classes written otherwise."""
    whole, what = bool((labels == labels.round()).all()), describe_value(labels)
    if whole and width > 1 and labels.ndim == 2 and labels.shape[1] == width:
        if bool(((labels == 0) | (labels == 1)).all()) and bool((labels.sum(1) == 1).all()):
            raise SutureError(f"expected class numbers (N,), got one-hot labels, {what}; write "
                              "labels.argmax(1), or task='none'")
    elif whole and width > 1 and labels[0].numel() == 1:
        raise SutureError(f"expected class numbers (N,), got {what}; write labels.long().flatten(), or "
                          "task='none'")
    return f"labels, {what}, are no class numbers"


def _explain_misses(path: str, evidence: Evidence) -> str:
    """Return the reason if most of the largest values lie beyond all labels; "" if not."""
    width = evidence.named[path].shape[1]
    if evidence.labels is None or width < 2 * (int(evidence.labels.max()) + 1):
        return ""
    x, labels = evidence.get_many(path), evidence.many_labels
    last = -1 if labels is None else int(labels.max())
    beyond = int((x.argmax(1) > last).sum())
    few = len(x) < _LEAST or labels is None or len(set(labels.tolist())) < 2
    if few or width < 2 * (last + 1) or 2 * beyond <= len(x):
        return ""
    return (f"{beyond} of {len(x)} examples have their largest value beyond the last label, {last}, as "
            "embeddings do (if it is logits, write task='classification')")


def _infer_token_task(path: str, logits: Tensor, evidence: Evidence) -> tuple[str, Task]:
    """Return the task of an output (N, T, K), or the reason why it has none."""
    labels, ids = evidence.few_labels, find_token_ids(evidence.tokens)
    if labels is not None and labels.is_floating_point() and bool((labels != labels.round()).any()):
        return f"labels, {describe_value(labels)}, are no class numbers", Task.NONE
    aligned, classes = labels is not None and labels.ndim == 2, logits.shape[2]
    if not (path.split(".")[0] == "logits" or aligned or classes == evidence.vocabulary):
        return "the output is hidden states", Task.NONE
    if ids is None or int(ids.max()) >= classes or not _is_causal(evidence, path, ids):
        return "", Task.TOKENS
    own = find_token_ids(evidence.few) is ids
    if labels is not None and aligned and _are_of_same_position(labels, ids, own=own):
        return "", Task.TOKENS
    if aligned and classes != evidence.vocabulary:
        raise SutureError("labels (N, T) may be of the same or of the next token: the network is causal, "
                          f"with {classes} outputs and {evidence.vocabulary or 'no'} embeddings; write "
                          "task='next_token' or task='tokens'")
    return "", Task.NEXT_TOKEN


def _are_of_same_position(labels: Tensor, ids: Tensor, *, own: bool) -> bool:
    """Return True where labels (N, T) of a causal network are of the same position as its logits.

    They are if they repeat the ids one place earlier. They are of the next position if they repeat the ids.
    Else it depends on whose ids they are: a decoder gets its labels moved by one, any other network not.
    """
    if labels.shape != ids.shape:
        return False
    scored = labels != IGNORED_LABEL
    shifted = bool((labels == ids.roll(-1, 1))[:, :-1][scored[:, :-1]].all())
    same = bool((labels == ids)[scored].all())
    return shifted if shifted != same else not own


def _is_causal(evidence: Evidence, path: str, ids: Tensor) -> bool:
    """Check that logits do not depend on later tokens, by changing the last token of each example."""
    logits, inputs = evidence.named[path], evidence.few
    if logits.shape[1] != ids.shape[1]:
        return False
    mask = get_token_mask(evidence.tokens)
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
        after = name_tensors(apply(evidence.network, replace_input(inputs, ids, changed)))[path]
    before = real & (torch.arange(ids.shape[1], device=ids.device) < last[:, None])
    # A class that the network excludes has a logit of -inf.
    own, new = (t.float().nan_to_num(0, 0, 0) for t in (logits, after))
    return bool((new - own)[long][before[long]].abs().max() <= ROUNDING * own[real].abs().max())
