"""Auxiliary inputs, which a detector should tell from the data: given by a user, or made from the data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional as F

from suture._base import (
    SutureError,
    convert_examples,
    convert_tensors,
    count_duplicates,
    count_examples,
    expect,
    hash_examples,
    list_tensors,
)
from suture.data import (
    TRAINING_KINDS,
    UNSEEN_KINDS,
    Batch,
    Batches,
    Prepared,
    find_input_kind,
    has_lists,
    make_auxiliary,
    split_labels,
)
from suture.representations import get_token_mask
from suture.stitching import IGNORED_LABEL

HELD_OUT = 500
"""Number of auxiliary examples that measure a detector's quality and are never used for training."""
TRAINING_BYTES = 2**29
"""Memory for auxiliary inputs made for training: 43,000 images of 3x32x32, 890 of 3x224x224."""
FEW_EXAMPLES = 20
"""Minimum number of auxiliary examples needed to assess a detector."""
NOT_MADE_NOTE = ("no auxiliary data and no maker for this kind of input: nothing shows that the detectors "
                 "see anything; pass ood=OOD(auxiliary=...), or leave them out: ood=OOD(())")


@dataclass
class AuxiliaryData:
    """Auxiliary inputs by use.

    Attributes:
        inputs: "auxiliary" (held out), "unseen" (of another kind) and "training".
        about: their origin.
        notes: sentences for the reader of the scores.
    """

    inputs: dict[str, Any] = field(default_factory=dict)
    about: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add_given(self, use: str, data: Any, like: Any, most: int) -> None:
        """Add the first `most` inputs that a user gave, checked against the data's (`like`).

        Of "auxiliary" data the last half, at most `HELD_OUT` examples, is held out. The rest is for training.
        """
        given = gather_inputs(as_batches(data, f"{use} data"), most, like)
        n = count_examples(given)
        last = min(HELD_OUT, n) if use == "unseen" else min(HELD_OUT, max(1, n // 2))
        name = getattr(data.data if isinstance(data, Prepared) else data, "name", None)
        of = f" of {name}" if isinstance(name, str) else ""
        self.about[use] = f"given: {n} examples{of}" + f", {last} of them held out" * (use == "auxiliary")
        self.inputs[use] = take_examples(given, slice(n - last, n))
        if last < FEW_EXAMPLES:
            self.notes.append(f"{last} {use} examples show little of what a detector sees: its quality "
                              f"counts from {FEW_EXAMPLES} on; give more")
        if use == "auxiliary" and n > last:
            self.inputs["training"] = take_examples(given, slice(0, n - last))

    def make_missing(self, like: Any, *, training: int, unseen: bool, seed: int) -> None:
        """Make missing inputs from a sample of images or token ids; for other kinds, add a note."""
        kind = find_input_kind(like)
        if "auxiliary" not in self.inputs and kind is not None:
            size = sum(t.nbytes for t in list_tensors(like)) // count_examples(like)
            for use, n, kinds, own_seed in (
                    ("auxiliary", HELD_OUT, TRAINING_KINDS[kind], 3 * seed + 1),
                    ("training", min(training, max(HELD_OUT, TRAINING_BYTES // size)), TRAINING_KINDS[kind],
                     3 * seed),
                    ("unseen", HELD_OUT if unseen else 0, UNSEEN_KINDS[kind], 3 * seed + 2)):
                able = [k for k in kinds if n and _can_make(like, k)]
                if able:
                    self.inputs[use] = make_auxiliary(like, n, kinds=able, seed=own_seed)
                    self.about[use] = f"made from the data: {n} examples of {', '.join(able)}"
        if not {"auxiliary", "unseen"} & set(self.inputs):
            self.notes.append(NOT_MADE_NOTE)

    def count_copies(self, data: Iterable[Batch]) -> None:
        """Add a note on the number of given auxiliary examples that are also in the data."""
        given = [self.inputs[use] for use in ("training", "auxiliary") if use in self.inputs]
        n = sum(count_examples(g) for g in given)
        same = count_duplicates(list(map(_list_example_tensors, given)),
                                (_list_example_tensors(b.target) for b in data))
        if same:
            self.notes.append(f"{same} of {n} auxiliary examples are exact copies of examples in the data")


def _can_make(like: Any, kind: str) -> bool:
    """Check that new inputs can be made; blank images, for example, allow none."""
    try:
        make_auxiliary(like, 2, kinds=[kind])
    except SutureError:
        return False
    return True


def as_batches(data: Any, name: str = "auxiliary data", **how: Any) -> Batches:
    """Return batches of a data set, or of bare inputs (a tensor or a mapping) without labels.

    `how` are options of `Batches`.
    """
    if isinstance(data, torch.Tensor | Mapping):
        inputs = split_labels(data)[0]
        data = [Batch(inputs, inputs, None)]
    return Batches(data, name=name, **how)


def gather_inputs(data: Batches, most: int, like: Any = None) -> Any:
    """Return the target network's inputs of the first `most` examples, as one batch on the CPU.

    Texts with an attention mask are padded on the right to the longest. Without a mask, texts of another
    length than the first are skipped.

    Args:
        data, most: the batches, and number of examples.
        like: inputs whose number, shapes and types of tensors they must have. Default: the first batch.
    """
    parts: list[Any] = []
    left, wanted = most, None if like is None else describe_form(like)
    for batch in data:
        if has_lists((batch.target, like)):
            expect(like is None, f"tensors of one shape as {data.name}", "lists of examples",
                   "leave them out, with methods=[] or ood=None")
            return batch.target
        part = take_examples(batch.target, slice(0, left))
        form = describe_form(part)
        wanted = wanted or form
        if form != wanted:
            if like is None and _loosen_form(form) == _loosen_form(wanted):
                continue
            raise SutureError(f"expected {data.name} like the data, per example {format_form(wanted)}, got "
                              f"{format_form(form)}; bring them to one size and type")
        parts.append(part)
        left -= count_examples(part)
        if left <= 0:
            break
    return _concatenate(_pad_texts(parts))


def _concatenate(parts: Sequence[Any]) -> Any:
    """Return nested inputs of all examples, on the CPU."""
    n = count_examples(parts[0])
    # A tensor without an axis of examples, such as a single number, is the same for all.
    joined = iter([torch.cat([t.cpu() for t in column]) if _is_per_example(column[0], n) else column[0].cpu()
                   for column in zip(*(list_tensors(p) for p in parts), strict=True)])
    return convert_tensors(parts[0], lambda _: next(joined))


def join_batches(batches: Sequence[Batch]) -> list[Batch]:
    """Join batches into one, with texts padded on the right to the longest; leave them where that cannot be.

    Lists of examples, and texts of several lengths without a mask, cannot be joined.
    """
    inputs = [b.target for b in batches]
    forms = {tuple(describe_form(x)) for x in inputs} if not has_lists(inputs) else set()
    if len(batches) < 2 or len(forms) != 1:
        return list(batches)
    joined = _concatenate(_pad_texts(inputs))
    labels = [b.labels for b in batches if b.labels is not None]
    longest = max((y.shape[1] for y in labels if y.ndim == 2), default=0)
    padded = [F.pad(y, (0, longest - y.shape[1]), value=IGNORED_LABEL) if y.ndim == 2 else y for y in labels]
    return [Batch(joined, joined, torch.cat(padded).cpu() if labels else None)]


def take_examples(inputs: Any, rows: slice | torch.Tensor) -> Any:
    """Return some examples of nested inputs."""
    return convert_examples(inputs, count_examples(inputs), lambda part: part[rows])


def fingerprint_examples(batches: Iterable[Any]) -> str:
    """Return 16 hex digits that identify a set of examples in any order."""
    found = sorted(example for inputs in batches for example in hash_examples(_list_example_tensors(inputs)))
    return hashlib.sha256(b"".join(found)).hexdigest()[:16]


def _is_per_example(t: torch.Tensor, n: int) -> bool:
    return bool(t.ndim) and len(t) == n


def _list_example_tensors(inputs: Any) -> tuple[torch.Tensor, ...]:
    n = count_examples(inputs)
    return tuple(t for t in list_tensors(inputs) if _is_per_example(t, n))


InputForm = list[tuple[tuple[int | str, ...], torch.dtype]]


def describe_form(inputs: Any) -> InputForm:
    """Return each tensor's shape per example, with the length of an attention mask as "T", and its type."""
    n, mask = count_examples(inputs), get_token_mask(inputs)
    own = None if mask is None else (mask.shape[1],)
    shapes = [tuple(t.shape[1:] if _is_per_example(t, n) else t.shape) for t in list_tensors(inputs)]
    return [(("T",) if s == own else s, t.dtype) for s, t in zip(shapes, list_tensors(inputs), strict=True)]


def _loosen_form(form: InputForm) -> InputForm:
    """Return the form without the lengths of texts."""
    return [(("T",) if len(s) == 1 and not d.is_floating_point else s, d) for s, d in form]


def format_form(form: InputForm) -> str:
    return " and ".join(f"{shape} {str(dtype).removeprefix('torch.')}" for shape, dtype in form)


def _pad_texts(parts: list[Any]) -> list[Any]:
    """Pad texts with zeros to the longest."""
    masks = [get_token_mask(p) for p in parts]
    longest = max((m.shape[1] for m in masks if m is not None), default=0)

    def pad(part: Any, mask: torch.Tensor | None) -> Any:
        return part if mask is None else convert_tensors(
            part, lambda t: F.pad(t, (0, longest - t.shape[1])) if t.shape == mask.shape else t)

    return [pad(part, mask) for part, mask in zip(parts, masks, strict=True)]
