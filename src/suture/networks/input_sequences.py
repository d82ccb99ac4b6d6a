"""The input sequences of a network: their tensors, their masks, and the evidence of who follows which."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from suture._base import convert_tensors, count_examples
from suture.networks.arguments import list_arguments
from suture.networks.calls import Call, CallId, disable_gradients, extract_main_output, record, walk
from suture.representations import (
    Kind,
    Masks,
    Shape,
    TokenMasks,
    find_sequence_lengths,
    get_token_mask,
    read_mask,
)

_MASK = "attention_mask"
"""Masks are known by this name, alone or with a word such as ``decoder_`` beside it, and by no other."""
Calls = dict[CallId, Call]
_NO_PADDING = ("special_tokens_mask", "bool_masked_pos", "global_attention_mask")
_DECODER, _IDS = "decoder_", "input_ids"
_GLOBAL = "global_attention_mask"
"""In Longformer and LED it marks tokens that see all others, and no padding."""


@dataclass(frozen=True)
class InputSequence:
    """One sequence of tokens among the inputs.

    Attributes:
        names: names of its tensors.
        ids: name of its token ids, if it has any.
        mask: name of its mask, if it has one.
    """

    names: tuple[str, ...]
    ids: str | None
    mask: str | None


class Text(NamedTuple):
    """Token ids (N, T) among the inputs, their mask as it was given, and whether the output follows them."""

    ids: Tensor
    mask: Tensor | None
    followed: bool


class InputSequences:
    """The input sequences of a network, found on a few examples; most networks have one or none.

    Tensors of two lengths are of two sequences. Those of one length are of two if each has its own word in
    its names, such as ``decoder_input_ids`` or ``tgt``, and if the network accepts one of them shorter.

    Attributes:
        of: the sequences, in the order of the network's arguments.
        output: number of the sequence that the output follows.
    """

    def __init__(self, network: nn.Module, inputs: Any) -> None:
        self._network, self._inputs = network, inputs
        self._passes: dict[tuple[str, int], Calls | None] = {}
        self.output = 0
        self.of = _split_by_name(self._sort(self.name(inputs)), count_examples(inputs))
        if len(self.of) > 1 and len(set(self._get_lengths(inputs))) == 1 and not self._are_separate():
            self.of = (_join(self.of),)

    def _sort(self, named: Mapping[str, Any]) -> dict[str, Any]:
        """Return inputs in the order of the network's arguments, then of their names' first appearance."""
        places = {name: k for k, name in enumerate(list_arguments(self._network))}
        return {k: named[k] for k in sorted(named, key=lambda k: places.get(k, len(places)))}

    def _get_lengths(self, inputs: Any) -> list[int]:
        named = self.name(inputs)
        return [named[s.names[0]].shape[-1] for s in self.of]

    def _are_separate(self) -> bool:
        """Return True where the network runs with another length of all sequences but one."""
        return sum(self.run_with_other_length(k) is None for k in range(len(self.of))) < 2

    def name(self, inputs: Any) -> Mapping[str, Any]:
        """Return the inputs by the names of the network's arguments; {} where they cannot be named."""
        if isinstance(inputs, Mapping):
            return inputs
        parts = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
        if len(parts) == 1 and isinstance(parts[0], Mapping):
            return parts[0]
        try:
            found = self._signature.bind(*parts).arguments
        except (TypeError, ValueError):
            return {}
        return {k: p for k, p in found.items() if isinstance(p, Tensor)}

    @cached_property
    def _signature(self) -> inspect.Signature:
        return inspect.signature(self._network.forward)

    def find_masks(self, inputs: Any) -> Masks:
        """Return the mask of the only sequence, or those of several."""
        named = self.name(inputs)
        masks = [read_mask(named.get(s.mask or "")) for s in self.of]
        if len(masks) > 1:
            return TokenMasks(tuple(masks), self.output)
        return masks[0] if masks and masks[0] is not None else get_token_mask(named or inputs)

    def find_text(self, inputs: Any) -> Text | None:
        """Return the first sequence of token ids that is not the decoder's; None without any.

        Integers beside floating point inputs are token ids if they are called so.
        """
        named, plain = self.name(inputs), [s for s in self.of if s.ids and not s.ids.startswith(_DECODER)]
        floats = any(t.is_floating_point() and _MASK not in k for k, t in named.items()
                     if isinstance(t, Tensor))
        found = next((s for s in plain if not floats or _IDS in str(s.ids)), None)
        ids = None if found is None else named.get(found.ids or "")
        if found is None or ids is None:
            return None
        return Text(ids, named.get(found.mask or ""), self.of[self.output] is found)

    def list_unread_masks(self, inputs: Any) -> list[str]:
        """List inputs (N, T) of zeros and ones that are named like masks of a sequence without one."""
        named = self.name(inputs)
        return [n for s in self.of if s.mask is None and s.ids is not None for n in s.names
                if n != s.ids and ("mask" in n or "pad" in n) and n not in _NO_PADDING and n in named
                and not bool((named[n] > 1).any()) and bool((named[n] != named[n].flatten()[0]).any())]

    def find_lengths(self, inputs: Any, sequence: int = 0) -> frozenset[int]:
        """Return the lengths that tokens of a sequence may have."""
        if len(self.of) > 1:
            return frozenset({self._get_lengths(inputs)[sequence]})
        mask = self.find_masks(inputs)
        return frozenset({mask.shape[1]}) if isinstance(mask, Tensor) else find_sequence_lengths(inputs)

    def view_output(self, inputs: Any) -> Any:
        """Return the inputs by name, only token ids and mask of the sequence that the output follows."""
        named = self.name(inputs)
        own = self.of[self.output] if self.of else None
        if own is None or (len(self.of) == 1 and own.mask in (None, _MASK)):
            return named if _MASK in named else inputs
        pairs = (("input_ids", own.ids), (_MASK, own.mask))
        found = {name: named[of] for name, of in pairs if of is not None and of in named}
        return found or inputs

    def find_output(self, root: Call, pick: Callable[[Any], Tensor | None]) -> None:
        """Find the sequence that the output follows, in the tensor that `pick` takes from it."""
        self.output = self.find_followed(root.id, pick(root.output), pick) or 0

    def find_followed(self, call: CallId, x: Tensor | None,
                      pick: Callable[[Any], Tensor | None]) -> int | None:
        """Return the number of the sequence whose length an axis of `x` follows; None for none or for one.

        Args:
            x: what `pick` takes from the output of the call.
        """
        if x is None or x.ndim < 2 or len(self.of) < 2:
            return None
        axes = (1, 2) if x.ndim == 3 else (1,)  # (N, T, D), or a map (N, C, T)
        lengths = self._get_lengths(self._inputs)
        for axis, k in product(axes, range(len(self.of))):
            if x.shape[axis] != lengths[k]:
                continue
            calls = self.run_with_other_length(k)
            if calls is None and axis == 1 and lengths.count(lengths[k]) == 1:
                return k
            other = None if calls is None or call not in calls else pick(calls[call].output)
            if other is not None and other.ndim == x.ndim and other.shape[axis] != x.shape[axis]:
                return k
        return None

    def run_with_other_length(self, sequence: int) -> Calls | None:
        """Return the calls of a pass in which a sequence alone has another length; None if it fails."""
        names = self.of[sequence].names
        return self._run_changed("length", sequence, _change_length, lambda name, t: name in names)

    def run_with_other_ids(self, sequence: int) -> Calls | None:
        """Return the calls of a pass with other token ids of a sequence; None if it fails or has none."""
        ids = self.of[sequence].ids
        return None if ids is None else self._run_changed(
            "ids", sequence, lambda t: t.flip((0, 1)), lambda name, t: name == ids)

    def run_with_other_inputs(self, sequence: int) -> Calls | None:
        """Return the calls of a pass with other contents in all inputs but those of a sequence."""
        ids = {s.ids for s in self.of} - {self.of[sequence].ids}
        return self._run_changed("inputs", sequence, lambda t: t.flip(0), lambda name, t: name in ids or (
            t.is_floating_point() and t.ndim > 0 and "mask" not in name))

    def _run_changed(self, what: str, sequence: int, change: Callable[[Tensor], Tensor],
                     chooses: Callable[[str, Tensor], bool]) -> Calls | None:
        if (what, sequence) not in self._passes:
            chosen = {id(t) for name, t in self.name(self._inputs).items()
                      if isinstance(t, Tensor) and chooses(name, t)}
            self._passes[what, sequence] = self._record(convert_tensors(
                self._inputs, lambda t: change(t) if id(t) in chosen else t)) if chosen else None
        return self._passes[what, sequence]

    def _record(self, inputs: Any) -> Calls | None:
        try:
            with disable_gradients():
                root = record(self._network, inputs)
        except (RuntimeError, IndexError, ValueError, TypeError, AssertionError):  # what a length may break
            return None
        return {c.id: c for c in (root, *walk(root))}


def _change_length(t: Tensor) -> Tensor:
    """Return a tensor (N, T), or a mask (N, ..., T), with one token fewer, or one more than one."""
    axes = [d for d in range(1, t.ndim) if t.shape[d] == t.shape[-1]]
    for d in axes:
        n = t.shape[d]
        t = t.narrow(d, 0, n - 1) if n > 1 else torch.cat([t, t], d)
    return t


def _is_token_tensor(name: str, given: Any, size: int) -> bool:
    """Return True for integers or booleans (N, T), and for masks (N, ..., T) of any type."""
    if not isinstance(given, Tensor) or given.ndim < 2 or len(given) != size or given.is_complex():
        return False
    return _MASK in name if given.ndim > 2 or given.is_floating_point() else True


def _split_by_name(named: Mapping[str, Any], size: int) -> tuple[InputSequence, ...]:
    tensors = {k: t for k, t in named.items() if _is_token_tensor(k, t, size)}
    ids = [k for k, t in tensors.items() if _MASK not in k and t.dtype != torch.bool]
    looked_up = [k for k in ids if bool((tensors[k] > 1).any())] or ids[:1]
    if len({t.shape[-1] for t in tensors.values()}) > 1:
        groups: dict[Any, list[str]] = {}
        for k, t in tensors.items():
            groups.setdefault(t.shape[-1], []).append(k)
    elif len(looked_up) > 1:
        groups = _group_by_words(tensors, looked_up)
    else:
        groups = {0: list(tensors)} if tensors else {}
    return tuple(_make_sequence(names, looked_up) for names in groups.values())


def _group_by_words(names: Iterable[str], ids: Sequence[str]) -> dict[Any, list[str]]:
    """Group names by the words that only one of the `ids` has; names without such a word go to the first."""
    words = {k: set(k.split("_")) for k in ids}
    own = {k: w - set().union(*(o for j, o in words.items() if j != k)) for k, w in words.items()}
    plain = next((k for k in ids if not own[k]), ids[0])
    groups: dict[Any, list[str]] = {k: [] for k in ids}
    for name in names:
        most = name if name in ids else max(ids, key=lambda k: len(own[k] & set(name.split("_"))))
        groups[most if name in ids or own[most] & set(name.split("_")) else plain].append(name)
    return groups


def _make_sequence(names: Sequence[str], ids: Sequence[str]) -> InputSequence:
    masks = [n for n in names if _MASK in n and n != _GLOBAL]
    return InputSequence(tuple(names), next((n for n in names if n in ids), None),
                         min(masks, key=len, default=None))


def _join(sequences: Iterable[InputSequence]) -> InputSequence:
    found = list(sequences)
    masks = [s.mask for s in found if s.mask is not None]
    names = tuple(n for s in found for n in s.names)
    ids = next((s.ids for s in found if s.ids), None)
    return InputSequence(names, ids, min(masks, key=len, default=None))


def view_output_inputs(network: nn.Module, inputs: Any, root: Call) -> Any:
    """Return what the output of a recorded pass follows, as `InputSequences.view_output` does."""
    sequences = InputSequences(network, inputs)
    sequences.find_output(root, extract_main_output)
    return sequences.view_output(inputs)


def choose_stack(shapes: Sequence[Shape]) -> list[int]:
    """Return the places of the last stack of blocks, if blocks follow several input sequences; else all.

    Their tokens could not be aligned. An encoder's blocks do not follow the decoder's tokens.
    """
    stacks: dict[tuple[bool, int], list[int]] = {}
    for k, shape in enumerate(shapes):
        if _has_tokens(shape):
            stacks.setdefault((shape.varies, shape.sequence), []).append(k)
    long = [stack for stack in stacks.values() if len(stack) >= 2]
    if len(stacks) < 2 or not long or not any(varies for varies, _ in stacks):
        return [*range(len(shapes))]
    chosen = max(long, key=lambda stack: stack[-1])
    return [k for k, shape in enumerate(shapes) if not _has_tokens(shape) or k in chosen]


def _has_tokens(shape: Shape) -> bool:
    """Return True for tokens (N, T, D), and for maps (N, C, T) of a text."""
    return shape.kind is Kind.TOKENS or shape.varies
