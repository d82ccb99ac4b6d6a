"""The task of a network: its logits, which of them are scored, and their labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from suture._base import (
    SutureError,
    check_classes,
    count_examples,
    describe_value,
    expect,
    list_tensors,
)
from suture.networks import extract_main_output
from suture.representations import get_token_mask

TaskName = Literal["auto", "classification", "next_token", "tokens", "none"]
TASKS: tuple[str, ...] = get_args(TaskName)
IGNORED_LABEL = -100
"""Label of a position that is not scored, as in the losses of PyTorch and Hugging Face."""
_IGNORE = "give labels (N, T), -100 where a position is not scored, or write task='none'"


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
    - "none": the output is not logits but, for example, hidden states, an embedding or a regression. It is
      scored by its distance from the target network's own output.

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
            check_classes(rows.labels, logits.shape[-1], f"the network has {logits.shape[-1]} outputs; write "
                          "task='none' if they are no classes")


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
