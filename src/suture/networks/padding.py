"""Padding: a guard against numbers that it changes, and inputs of decoders that follow from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from suture._base import SutureError, convert_examples, convert_tensors, count_examples
from suture.networks.arguments import find_padding_id, list_arguments
from suture.networks.calls import extract_main_output
from suture.networks.input_sequences import InputSequences
from suture.representations import Shape, TokenMasks

TOLERANCE = 1e-3
ACCELERATOR_TOLERANCE = 1e-2
"""Relative changes of a token that are rounding, in float32 and where products may use TensorFloat-32."""
_POSITIONS = "position_ids"
_RUN_ERRORS = (RuntimeError, IndexError, ValueError, TypeError, AssertionError)
Outputs = tuple[Sequence[Tensor], Any]
"""The representations at the sites, and the network's output."""


class PaddingGuard:
    """A check of the first batch with left padding, and of the first with other padding.

    One example of it runs padded, and alone without its padding. Where left padding changes the numbers of
    its tokens, the network gets positions counted from the first token, if it takes them and if they undo the
    change; else it is refused. Any other change by padding gives a note.

    Args:
        run: function from inputs to `Outputs`.
        names, shapes: of the sites.
        name: name of the network in messages.
        dtype: of the forward passes.

    Attributes:
        makes_positions: True if the network gets positions made from the mask.
        notes: sentences for the reader.
    """

    def __init__(self, network: nn.Module, sequences: InputSequences, run: Callable[[Any], Outputs],
                 names: Sequence[str], shapes: Sequence[Shape], name: str, dtype: torch.dtype) -> None:
        self._run, self._names, self._shapes, self._name = run, names, shapes, name
        self._rounding = max(TOLERANCE, 8 * torch.finfo(dtype).eps)
        self._sequences, self.makes_positions = sequences, False
        self._takes_positions = _POSITIONS in list_arguments(network)
        self._checked: set[tuple[int, bool]] = set()
        self.notes: list[str] = []

    def complete(self, inputs: Any) -> Any:
        """Return a batch with the positions that its network needs; check the batch if it is of a new kind.

        Raises:
            SutureError: left padding changes the numbers, and no positions undo that.
        """
        masks = self._sequences.find_masks(inputs)
        for k, mask in enumerate(masks.masks if isinstance(masks, TokenMasks) else (masks,)):
            if mask is not None and not bool(mask.all()):
                for left in (True, False):
                    # Not marked before the check ends well: what refuses a batch once refuses it again.
                    if (k, left) not in self._checked and self._check(inputs, mask, k, left):
                        self._checked.add((k, left))
        self._note_unread(inputs)
        if self.makes_positions and isinstance(masks, Tensor):
            return self._add_positions(inputs, masks)
        return inputs

    def _add_positions(self, inputs: Any, mask: Tensor) -> Any:
        named = self._sequences.name(inputs)
        if _POSITIONS in named:
            return inputs
        return {**named, _POSITIONS: (mask.long().cumsum(1) - 1).clamp(min=0)}

    def _check(self, inputs: Any, mask: Tensor, sequence: int, left: bool) -> bool:
        """Check one example with padding of a kind; return False where there is none."""
        row = _choose_row(mask, left)
        if row is None:
            return False
        size, own = count_examples(inputs), mask[row]
        one = convert_examples(inputs, size, lambda part: part[row:row + 1])
        kept = own.nonzero()[:, 0]
        tokens = slice(int(kept[0]), int(kept[-1]) + 1)
        alone = self._try(self._cut(one, sequence, tokens))
        if alone is None:  # such as a network that accepts one length only
            return True
        where = self._find_change(one, alone, sequence, tokens, own)
        if not where:
            return True
        if not left:
            self.notes.append(f"padding changes the numbers of the {self._name}: {where}, for an example "
                              "alone against padded; results depend on the lengths of the batches")
            return True
        if self._takes_positions and len(self._sequences.of) < 2:
            numbered = self._add_positions(one, own[None])
            if numbered is not one and not self._find_change(numbered, alone, sequence, tokens, own):
                self.makes_positions = True
                self.notes.append(f"{_POSITIONS} of the {self._name} are made from the attention mask, "
                                  "because without them left padding changes its numbers")
                return True
        raise SutureError(f"left padding changes the numbers of the {self._name}: {where}, for an example "
                          f"alone against padded; pad on the right, or give {_POSITIONS}")

    def _cut(self, one: Any, sequence: int, tokens: slice) -> Any:
        """Return the inputs of one example with some tokens of a sequence only."""
        named = self._sequences.name(one)
        masks = self._sequences.find_masks(one)
        mask = masks.masks[sequence] if isinstance(masks, TokenMasks) else masks
        assert mask is not None
        length, several = mask.shape[1], len(self._sequences.of) > 1
        names = self._sequences.of[sequence].names if several else tuple(named)
        chosen = {id(named[n]) for n in names if n in named}

        def cut(t: Tensor) -> Tensor:
            for d in range(1, t.ndim) if id(t) in chosen or not named else ():
                # Of (N, T, D) only the tokens are cut; masks of pairs (N, 1, T, T) are cut twice.
                if t.shape[d] == length and (d == 1 or t.ndim > 3 or t.shape[1] == 1):
                    t = t.narrow(d, tokens.start, tokens.stop - tokens.start)
            return t

        return convert_tensors(one, cut)

    def _try(self, inputs: Any) -> Outputs | None:
        try:
            return self._run(inputs)
        except _RUN_ERRORS:
            return None

    def _find_change(self, padded: Any, alone: Outputs, sequence: int, tokens: slice, mask: Tensor) -> str:
        """Return the first site whose tokens change by more than rounding, and by how much; "" for none."""
        xs, output = self._run(padded)
        end, own_end = extract_main_output(output), extract_main_output(alone[1])
        pairs = [(f"at {name!r}", s.varies and s.sequence == sequence, _put_channels_last(x, s),
                  _put_channels_last(y, s))
                 for name, s, x, y in zip(self._names, self._shapes, xs, alone[0], strict=True)]
        if end is not None and own_end is not None:
            follows = end.ndim == 3 and end.shape[1] == len(mask) and own_end.shape[1] < len(mask)
            pairs.append(("in the output", follows, end, own_end))
        for place, follows, x, y in pairs:
            if follows:
                x, y = (t[0][m] for t, m in ((x, _keep_only(mask, tokens)), (y, mask[tokens])))
            if x.shape == y.shape:
                change = _measure_change(x, y)
                if change > max(self._rounding, ACCELERATOR_TOLERANCE if x.is_cuda else 0):
                    return f"{change:.1%} {place}"
        return ""

    def _note_unread(self, inputs: Any) -> None:
        """Note tensors that look like masks but are not read as such."""
        for name in self._sequences.list_unread_masks(inputs):
            note = (f"input {name!r} of the {self._name} is not read as a mask, so padding tokens count; "
                    "wrap the network so that it takes attention_mask")
            if note not in self.notes:
                self.notes.append(note)


def _put_channels_last(x: Tensor, shape: Shape) -> Tensor:
    return x.movedim(1, -1) if shape.channels_first else x


def _keep_only(mask: Tensor, tokens: slice) -> Tensor:
    inside = torch.zeros_like(mask)
    inside[tokens] = True
    return mask & inside


def _choose_row(mask: Tensor, left: bool) -> int | None:
    """Return the example with most padding of a kind, rather one of several tokens; None without any."""
    real = mask.sum(1)
    padding = (mask if left else mask.flip(1)).int().argmax(1).masked_fill(real == 0, 0)
    best = int((padding * (1 + (real > 1).int() * mask.shape[1])).argmax())
    return best if int(padding[best]) > 0 else None


def _measure_change(x: Tensor, y: Tensor) -> float:
    """Return the largest change of a token, relative to its norm in `y`."""
    x, y = (t.detach().float().nan_to_num(0, 0, 0) for t in (x, y))
    if not y.ndim or not y.numel():
        return 0.0
    norms = torch.linalg.vector_norm(y, dim=-1)
    least = float(norms.mean()) * 1e-2 + torch.finfo(torch.float32).tiny
    return float((torch.linalg.vector_norm(x - y, dim=-1) / norms.clamp(min=least)).max())


_IDS, _MASK, _SHIFT = "decoder_input_ids", "decoder_attention_mask", "prepare_decoder_input_ids_from_labels"
_IGNORED = -100


def complete_decoder_inputs(network: nn.Module, inputs: Any, labels: Tensor | None) -> Any:
    """Return the inputs of an encoder-decoder with the ids and the mask of its decoder.

    Ids that are missing are the labels (N, T), moved by one place by the network's own method. A missing mask
    ends with the last scored label; without labels it ends before the padding tokens at the end of the ids.
    Inputs of any other network are returned as they are.
    """
    takes = list_arguments(network)
    if not isinstance(inputs, Mapping) or _IDS not in takes:
        return inputs
    labels = labels if labels is not None and labels.ndim == 2 and not labels.is_floating_point() else None
    found = dict(inputs)
    shift = getattr(network, _SHIFT, None)
    lacks = _IDS not in found and "decoder_inputs_embeds" not in found
    if lacks and labels is not None and shift is not None:
        found[_IDS] = shift(labels)
    ids = found.get(_IDS)
    if ids is None or _MASK in found or _MASK not in takes:
        return found if len(found) > len(inputs) else inputs
    pad = find_padding_id(network)
    if labels is not None and labels.shape == ids.shape:
        counted = labels != _IGNORED
    elif pad is not None:
        counted = ids != pad
    else:
        return found
    kept = counted.flip(1).cummax(1).values.flip(1)
    kept[:, 0] = True  # a decoder may start with the padding token
    return found if bool(kept.all()) else found | {_MASK: kept.to(torch.int64)}
