"""What a network's output is taken for: its task, which rows of its logits count, and what they should
say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from suture._base import SutureError, count_examples, list_tensors
from suture.networks import extract_main_output
from suture.representations import get_token_mask

IGNORED_LABEL = -100
"""Label of a position that does not count, as in the losses of PyTorch and Hugging Face."""


@dataclass(frozen=True)
class ScoredRows:
    """Which rows of a batch's logits count, and what they should say.

    Attributes:
        size: examples N.
        counted: (N, T) booleans, the tokens whose logits count; None where each example has one row of
            logits.
        labels: class numbers of the rows that count, (M,), one example after the other; None where none are
            known.
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
        """How many rows count, M; on an accelerator that waits for it."""
        return self.size if self.counted is None else len(self._index)

    def select(self, logits: Tensor) -> Tensor:
        """The rows that count, (k M, V), of logits (k N, V) or (k N, T, V) of k concatenated copies of the
        examples.

        Raises:
            SutureError: logits of another number of tokens.
        """
        if self.counted is None:
            return logits
        self.check_length(logits)
        copies = range(len(logits) // self.size)
        index = torch.cat([self._index + k * self.counted.numel() for k in copies])
        return logits.flatten(0, 1).index_select(0, index)

    def check_length(self, logits: Tensor) -> None:
        """Raises SutureError where logits (N, T, V) are of another number of tokens."""
        if self.counted is not None and logits.shape[1] != self.counted.shape[1]:
            raise SutureError(f"expected a label for each of the {logits.shape[1]} positions of the logits, "
                              f"got {self.counted.shape[1]}; give labels (N, T), -100 where a "
                              "position does not count")

    def sum_per_example(self, values: Tensor) -> Tensor:
        """Sums (k, N) float32 over the rows of each example of `values` (k, M); `values` where it has just
        one."""
        if self.counted is None:
            return values
        # Not index_add: on a GPU its order, and so the last digit, is another in every run.
        full = values.new_zeros(len(values), self.counted.numel(), dtype=torch.float32)
        full[:, self._index] = values.float()
        return full.view(len(values), *self.counted.shape).sum(2)

    @property
    def tokens(self) -> Tensor | None:
        """(N,) how many tokens of each example count; None where each example has one row."""
        return None if self.counted is None else self.counted.sum(1)


class Task(Enum):
    """What a network is made for, and so what stitched networks are trained for and scored on.

    - "classification": logits (N, classes), labels (N,).
    - "next_token": logits (N, T, V); the label of a position is the token id of the next one, or the next one
      of the labels (N, T) where these are given, `IGNORED_LABEL` or not, as Hugging Face does it. The last
      position does not count, nor one where the attention mask leaves out itself or the next. Labels (N,) are
      of whole texts and not the task's.
    - "tokens": logits (N, T, V) and labels (N, T) position by position, `IGNORED_LABEL` where one does not
      count: masked language models, token classification. What the attention mask leaves out does not count.
    - "none": the output is no logits, such as the hidden states of an encoder. Nothing is scored on it.
    """

    CLASSIFICATION = "classification"
    NEXT_TOKEN = "next_token"
    TOKENS = "tokens"
    NONE = "none"

    @property
    def of_tokens(self) -> bool:
        """Whether there are logits for every token."""
        return self in (Task.NEXT_TOKEN, Task.TOKENS)

    def extract_logits(self, output: Any) -> Tensor:
        """The logits in a network's output: ``output["logits"]``, or the first floating point tensor.

        Raises:
            SutureError: it is not (N, classes), or (N, T, V) where the task is one of tokens.
        """
        if not self.of_tokens:
            return extract_logits(output)
        logits = extract_main_output(output)
        if logits is None or logits.ndim != 3:
            got = type(output).__name__ if logits is None else tuple(logits.shape)
            raise SutureError(f"expected logits (N, T, vocabulary) for task={self.value!r}, got {got}; "
                              "write task='auto', or wrap the network so that it returns them")
        return logits

    def find_rows(self, inputs: Any, labels: Tensor | None) -> ScoredRows:
        """What counts in a batch.

        Args:
            inputs: of the target network: token ids and attention mask are looked for there.
            labels: as the data give them.

        Raises:
            SutureError: a task of tokens without labels (N, T), or, for the next token, without token ids.
        """
        if not self.of_tokens:
            return ScoredRows(count_examples(inputs), None, labels)
        given = labels if labels is not None and labels.ndim == 2 else None
        if self is Task.TOKENS and given is None:
            got = "none" if labels is None else f"shape {tuple(labels.shape)}"
            raise SutureError(f"expected labels (N, T) for task='tokens', got {got}; yield (inputs, labels) "
                              "with -100 where a position does not count, or write task='none', "
                              "methods=['dm']")
        wanted = find_token_ids(inputs) if given is None else given
        if wanted is None:
            raise SutureError("expected token ids (N, T) for task='next_token', got inputs without; name "
                              "them 'input_ids', or give labels (N, T)")
        if wanted.is_floating_point() or wanted.is_complex():
            raise SutureError(f"expected integer labels (N, T), got {wanted.dtype} of shape "
                              f"{tuple(wanted.shape)}; yield one class number for each token, -100 where it "
                              "does not count")
        kept, mask = wanted.long(), get_token_mask(inputs)
        if mask is not None and mask.shape == wanted.shape:
            kept = kept.masked_fill(~mask, IGNORED_LABEL)
        if self is Task.NEXT_TOKEN:
            kept = F.pad(kept[:, 1:], (0, 1), value=IGNORED_LABEL)
            if mask is not None and mask.shape == wanted.shape:
                kept = kept.masked_fill(~mask, IGNORED_LABEL)
        counted = kept != IGNORED_LABEL
        return ScoredRows(len(kept), counted, kept[counted])

    def check_labels(self, rows: ScoredRows, logits: Tensor) -> None:
        """Labels must be class numbers of the network.

        Args:
            rows: of a batch.
            logits: (N, classes) or (N, T, V).

        Raises:
            SutureError: a label below 0 or not below the number of classes, another number of tokens than
                logits.
        """
        if rows.labels is None:
            return
        rows.check_length(logits)
        if not self.of_tokens:
            check_labels(rows.labels, logits)
            return
        _check_range(rows.labels, logits.shape[-1], " (-100 where a position does not count)")


def extract_logits(output: Any) -> Tensor:
    """The logits (N, classes) in a network's output: ``output["logits"]``, or the first floating point
    tensor.

    Raises:
        SutureError: it is not (N, classes).
    """
    logits = extract_main_output(output)
    if logits is None or logits.ndim != 2:
        got = type(output).__name__ if logits is None else tuple(logits.shape)
        raise SutureError(f"expected logits (N, classes) from the network, got {got}; wrap it so that it "
                          "returns them, or write task='none', methods=['dm']")
    return logits


def check_labels(labels: Tensor, logits: Tensor) -> None:
    """Labels must be class numbers of the network, one for each example.

    Raises:
        SutureError: a label below 0 or not below the number of classes.
    """
    if labels.is_floating_point() or labels.ndim != 1:
        raise SutureError(f"expected integer labels (N,), got {labels.dtype} of shape {tuple(labels.shape)}; "
                          "yield one class number for each example")
    _check_range(labels, logits.shape[1])


def _check_range(labels: Tensor, classes: int, beside: str = "") -> None:
    if len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= classes):
        bad = int(labels.min()) if int(labels.min()) < 0 else int(labels.max())
        raise SutureError(f"expected labels from 0 to {classes - 1}{beside}, got {bad}; the network has "
                          f"{classes} outputs")


def find_token_ids(inputs: Any) -> Tensor | None:
    """(N, T) token ids among a network's inputs: ``inputs["input_ids"]``, else the first whole numbers of two
    axes.

    The attention mask is none.
    """
    named = isinstance(inputs, Mapping)
    first = [inputs["input_ids"]] if named and "input_ids" in inputs else list_tensors(inputs)
    mask = inputs.get("attention_mask") if named else None
    return next((t for t in first if t is not mask and _is_token_ids(t)), None)


def _is_token_ids(x: Any) -> bool:
    return (isinstance(x, Tensor) and x.ndim == 2
            and not (x.is_floating_point() or x.is_complex() or x.dtype == torch.bool))
