"""The task of a network: its logits, which are scored, their labels, and how "auto" infers it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suture._base import (
    SutureError,
    check_classes,
    count_examples,
    describe_value,
    expect,
    list_tensors,
    replace_input,
)
from suture.networks import Call, apply, disable_gradients, extract_main_output, record, walk
from suture.representations import get_token_mask

TaskName = Literal["auto", "classification", "next_token", "tokens", "none"]
TASKS: tuple[str, ...] = get_args(TaskName)
ROUNDING = 1e-5
"""Change of logits, relative to the largest one, that is rounding."""
IGNORED_LABEL = -100
"""Label of a position that is not scored, as in the losses of PyTorch and Hugging Face."""
_IGNORE = "give labels (N, T), -100 where a position is not scored"


@dataclass(frozen=True)
class ScoredRows:
    """The scored rows of a batch's logits, with their labels.

    Attributes:
        size: number of examples N.
        counted: (N, T) booleans, True for scored tokens; None if each example has one row of logits.
        labels: (M,) class numbers of the scored rows, example by example; None if unknown.
    """

    size: int
    counted: Tensor | None
    labels: Tensor | None

    @cached_property
    def _index(self) -> Tensor:
        assert self.counted is not None
        return self.counted.flatten().nonzero()[:, 0]

    @property
    def count(self) -> int:
        """Number of scored rows M; an accelerator waits for it."""
        return self.size if self.counted is None else len(self._index)

    @property
    def tokens(self) -> Tensor | None:
        """Number of scored tokens of each example, (N,); None if each example has one row."""
        return None if self.counted is None else self.counted.sum(1)

    def select(self, logits: Tensor) -> Tensor:
        """Return the scored rows (k M, V) of logits (k N, V) or (k N, T, V) of k copies of the examples."""
        if self.counted is None:
            return logits
        self.check_length(logits)
        copies = range(len(logits) // self.size)
        index = torch.cat([self._index + k * self.counted.numel() for k in copies])
        return logits.flatten(0, 1).index_select(0, index)

    def check_length(self, logits: Tensor) -> None:
        """Raise a `SutureError` if logits (N, T, V) have another number of tokens than these rows."""
        if self.counted is not None and logits.shape[1] != self.counted.shape[1]:
            raise SutureError(f"expected a label for each of the {logits.shape[1]} positions of the logits, "
                              f"got {self.counted.shape[1]}; {_IGNORE}")

    def sum_per_example(self, values: Tensor) -> Tensor:
        """Return the sums (k, N) of `values` (k, M) over the scored rows of each example."""
        if self.counted is None:
            return values
        # Not index_add: on a GPU its order changes from run to run, and so does the last digit.
        full = values.new_zeros(len(values), self.counted.numel(), dtype=torch.float32)
        full[:, self._index] = values.float()
        return full.view(len(values), *self.counted.shape).sum(2)


class Task(Enum):
    """The task of a network, on which stitched networks are trained and scored.

    - "classification": logits (N, classes), labels (N,).
    - "next_token": logits (N, T, V). Labels are the next token ids, or the next labels if labels (N, T) are
      given, as in Hugging Face. Labels (N,) of whole texts are ignored. The last position is not scored, nor
      one before a padding token.
    - "tokens": logits (N, T, V), labels (N, T) of the same position: masked language models, token
      classification.
    - "none": the output is not logits but, for example, hidden states. Nothing is scored.

    Padding tokens and positions with the label `IGNORED_LABEL` are never scored.
    """

    CLASSIFICATION = "classification"
    NEXT_TOKEN = "next_token"
    TOKENS = "tokens"
    NONE = "none"

    @property
    def of_tokens(self) -> bool:
        """True if every token has logits."""
        return self in (Task.NEXT_TOKEN, Task.TOKENS)

    def extract_logits(self, output: Any) -> Tensor:
        """Return the logits in a network's output: ``output["logits"]``, or the first floating point tensor.

        A shape other than (N, classes), or (N, T, V) for tasks of tokens, raises a `SutureError`.
        """
        logits = extract_main_output(output)
        if logits is None or logits.ndim != (3 if self.of_tokens else 2):
            wanted = "(N, T, vocabulary)" if self.of_tokens else "(N, classes)"
            raise SutureError(f"expected logits {wanted} for task={self.value!r}, got "
                              f"{describe_value(output if logits is None else logits)}; wrap the network so "
                              "that it returns them, or write task='none', methods=['dm']")
        return logits

    def find_rows(self, inputs: Any, labels: Tensor | None) -> ScoredRows:
        """Return the scored rows of a batch, from the target network's inputs and the labels of the data.

        For tasks of tokens, labels must be (N, T). If "next_token" has none, it uses the token ids in
        `inputs`. If both are missing, a `SutureError` is raised.
        """
        if not self.of_tokens:
            return ScoredRows(count_examples(inputs), None, labels)
        wanted = labels if labels is not None and labels.ndim == 2 else None
        if wanted is None and self is Task.NEXT_TOKEN:
            wanted = find_token_ids(inputs)
        if wanted is None:
            needed = "labels" if self is Task.TOKENS else "token ids or labels"
            raise SutureError(f"expected {needed} (N, T) for task={self.value!r}, got "
                              f"{'none' if labels is None else describe_value(labels)}; {_IGNORE}")
        expect(not (wanted.is_floating_point() or wanted.is_complex()), "integer labels (N, T)", wanted,
               _IGNORE)
        mask = get_token_mask(inputs)
        padding = ~mask if mask is not None and mask.shape == wanted.shape else torch.zeros_like(wanted) > 0
        kept = wanted.long().masked_fill(padding, IGNORED_LABEL)
        if self is Task.NEXT_TOKEN:
            kept = F.pad(kept[:, 1:], (0, 1), value=IGNORED_LABEL).masked_fill(padding, IGNORED_LABEL)
        counted = kept != IGNORED_LABEL
        return ScoredRows(len(kept), counted, kept[counted])

    def check_labels(self, rows: ScoredRows, logits: Tensor) -> None:
        """Raise a `SutureError` if labels are not class numbers of the logits (N, classes) or (N, T, V)."""
        if rows.labels is not None:
            rows.check_length(logits)
            expect(rows.labels.ndim == 1, "integer labels (N,)", rows.labels,
                   "yield one class number for each example")
            check_classes(rows.labels, logits.shape[-1], f"the network has {logits.shape[-1]} outputs")


extract_logits = Task.CLASSIFICATION.extract_logits
"""Return the logits (N, classes) of a classifier's output."""


def find_token_ids(inputs: Any) -> Tensor | None:
    """Return the (N, T) token ids among a network's inputs, or None.

    They are ``inputs["input_ids"]``, else the first integer tensor (N, T) that is not the attention mask.
    """
    named = isinstance(inputs, Mapping)
    first = [inputs["input_ids"]] if named and "input_ids" in inputs else list_tensors(inputs)
    mask = inputs.get("attention_mask") if named else None
    return next((t for t in first if t is not mask and isinstance(t, Tensor) and t.ndim == 2 and not
                 (t.is_floating_point() or t.is_complex() or t.dtype == torch.bool)), None)


@torch.no_grad()
def resolve_task(asked: str, network: nn.Module, inputs: Any, labels: Tensor | None, *,
                 tokens: Any = None, trained: bool = False) -> Task:
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
        tokens: the inputs that the output follows (`SitedNetwork.view_output`). Default: all inputs.
        trained: check also that the labels are classes of the network, for training.

    Raises:
        SutureError: an output or labels that do not fit the task; labels (N, T) of a causal network whose
            numbers of logits and embeddings differ, because they may belong to the same or the next position.
    """
    few = None if labels is None else labels[:count_examples(inputs)]
    tokens = inputs if tokens is None else tokens
    with disable_gradients():
        root = record(network, inputs)
    task = _infer_task(network, inputs, tokens, few, root) if asked == "auto" else Task(asked)
    if task is not Task.NONE:
        logits = task.extract_logits(root.output)
        rows = task.find_rows(tokens, few if task.of_tokens else labels)
        rows.check_length(logits)
        if trained:
            task.check_labels(rows, logits)
    return task


def _infer_task(network: nn.Module, inputs: Any, tokens: Any, labels: Tensor | None, root: Call) -> Task:
    logits, ids = extract_main_output(root.output), find_token_ids(tokens)
    if logits is None or logits.ndim != 3:
        return Task.CLASSIFICATION
    named = isinstance(root.output, Mapping) and "logits" in root.output
    aligned, classes = labels is not None and labels.ndim == 2, logits.shape[2]
    vocabulary = _count_vocabulary(root, ids)
    if not (named or aligned or classes == vocabulary):
        return Task.NONE
    if ids is None or int(ids.max()) >= classes or not _is_causal(network, inputs, tokens, ids, logits):
        return Task.TOKENS
    own = find_token_ids(inputs) is ids
    if labels is not None and aligned and _are_of_same_position(labels, ids, own=own):
        return Task.TOKENS
    if aligned and classes != vocabulary:
        raise SutureError("labels (N, T) may be of the same or of the next token: the network is causal, "
                          f"with {classes} outputs and {vocabulary or 'no'} embeddings; write "
                          "task='next_token' or task='tokens'")
    return Task.NEXT_TOKEN


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


def _count_vocabulary(root: Call, ids: Tensor | None) -> int | None:
    """Return the number of rows of the embedding that reads the token ids, or None."""
    if ids is None:
        return None
    for call in walk(root):
        if isinstance(call.module, nn.Embedding) and any(
                isinstance(a, Tensor) and a.shape == ids.shape and torch.equal(a, ids) for a in call.args):
            return call.module.num_embeddings
    return None


def _is_causal(network: nn.Module, inputs: Any, tokens: Any, ids: Tensor, logits: Tensor) -> bool:
    """Check that logits do not depend on later tokens, by changing the last token of each example."""
    if logits.shape[1] != ids.shape[1]:
        return False
    mask = get_token_mask(tokens)
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
