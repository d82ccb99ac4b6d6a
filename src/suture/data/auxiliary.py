"""Auxiliary data: out-of-distribution images or token ids, made from in-distribution ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor

from suture._base import (
    SutureError,
    describe_value,
    expect,
    find_only_input,
    hash_examples,
    is_count,
    make_unknown_error,
    replace_input,
    walk_tensors,
)
from suture.data.auxiliary_kinds import KINDS, Images, Tokens
from suture.representations import get_token_mask

Originals = Images | Tokens
TRAINING_KINDS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "images": ("gaussian", "blobs", "patches", "channels", "mixture"), "tokens": ("random",)})
"""Kinds on which a detector may be trained or tuned, for images and for tokens."""
UNSEEN_KINDS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "images": ("uniform", "inversion", "photographs"), "tokens": ("shuffled",)})
"""The other kinds, for images and for tokens, which only evaluate detectors."""


def find_input_kind(like: Any) -> Literal["images", "tokens"] | None:
    """Find the kind of a batch of inputs: "images", "tokens", or None for anything else.

    Images are (N, C, H, W), floating point or uint8. Token ids are (N, T) integers. The tensor must be the
    only one in the inputs, which may be nested. Token ids may also be "input_ids" of a mapping whose other
    tensors all have shape (N, T).
    """
    own = find_only_input(like)
    if isinstance(own, Mapping):
        ids, found = own["input_ids"], list(walk_tensors(own))
        flat = len(found) == sum(isinstance(v, Tensor) for v in own.values())
        return "tokens" if flat and _is_token_ids(ids) and all(t.shape == ids.shape for t in found) else None
    if own is not None and own.ndim == 4 and (own.is_floating_point() or own.dtype == torch.uint8):
        return "images"
    return "tokens" if _is_token_ids(own) else None


def make_auxiliary(like: Any, n: int, *, kinds: Sequence[str] | None = None, seed: int = 0) -> Any:
    """Make auxiliary out-of-distribution inputs from a batch of in-distribution ones.

    Kinds for images (all values stay in the range of `like`):

    - "gaussian": noise with each channel's mean and standard deviation.
    - "uniform": noise over each channel's range.
    - "blobs": smooth random spots.
    - "patches": up to 4 x 4 patches, shuffled.
    - "channels": channels, permuted.
    - "inversion": low + high - x, with each channel's lowest and highest value.
    - "mixture": mean of two images.
    - "photographs": crops of scikit-learn's two photographs, gray for one channel. Channels after the third
      begin again with red. For a network of natural images they are in distribution.

    Kinds for token ids:

    - "shuffled": the ids of an example in another order.
    - "random": ids drawn uniformly from those of `like`.

    Padding tokens keep their ids; without a mask there is no padding. A position keeps its id if all examples
    have the same id there. The first unpadded id stays if it is the same in all examples, and so does the
    last.

    The examples to start from are drawn without replacement until all are used, then all over again. A result
    that equals an example of `like` is drawn again. The examples of one kind depend on their number, not on
    the other kinds.

    Args:
        like: a batch of a network's inputs, see `find_input_kind`.
        n: number of examples to make; may be larger than `like`.
        kinds: example i is of kind number i modulo the number of kinds. Default: all that suit the inputs.
        seed: seed of all draws (default 0); the global random state is neither read nor changed.

    Returns:
        `n` examples in the form of `like`: same nesting, dtype, device and shapes.

    Raises:
        SutureError: inputs of another kind, empty or not finite; no kinds, unknown kinds or kinds that do not
            suit the inputs; n below 1.
    """
    expect(is_count(n), "at least 1 auxiliary example", f"n={n}", "leave auxiliary data out for none")
    source = _find_originals(like)
    chosen, own = _choose_kinds(source, kinds), source.tensor
    seen = set(hash_examples(own))
    # Draws on the CPU are the same on every machine, whatever the default device is.
    with torch.device("cpu"):
        rows = torch.empty(n, dtype=torch.int64)
        made = torch.empty((n, *own.shape[1:]), dtype=own.dtype)
        for k, kind in enumerate(chosen[:n]):
            mine = slice(k, n, len(chosen))
            rows[mine], made[mine] = _make_new(source, kind, len(rows[mine]),
                                               _make_generator(seed, kind), seen)
    return _rebuild_inputs(like, made.to(own.device), rows)


def _rebuild_inputs(like: Any, made: Tensor, rows: Tensor) -> Any:
    """Put `made` in place of the images or ids of `like`, and `rows` of the other tensors beside ids."""
    own = find_only_input(like)
    if not isinstance(own, Mapping):
        return replace_input(like, own, made)
    return replace_input(like, own, {key: made if key == "input_ids" else v[rows.to(v.device)]
                                     if isinstance(v, Tensor) else v for key, v in own.items()})


def _is_token_ids(x: Any) -> bool:
    return (isinstance(x, Tensor) and x.ndim == 2
            and not (x.is_floating_point() or x.is_complex() or x.dtype == torch.bool))


def _find_originals(like: Any) -> Originals:
    kind = find_input_kind(like)
    if kind is None:
        found = [describe_value(t) for t in islice(walk_tensors(like), 4)]
        got = " and ".join([*found[:3], "more"][:len(found)]) or type(like).__name__
        raise SutureError("expected images (N, C, H, W) or token ids (N, T) to make auxiliary data from, "
                          f"got {got}; pass auxiliary=your own data")
    one = find_only_input(like)
    own = one["input_ids"] if isinstance(one, Mapping) else one
    expect(own.numel() > 0, "at least one example to make auxiliary data from",
           f"{kind} of shape {tuple(own.shape)}", "pass some in-distribution inputs")
    if kind == "images":
        return Images.of(own.detach())
    mask = get_token_mask(one)
    return Tokens.of(own, torch.ones_like(own, dtype=torch.bool) if mask is None else mask)


def _choose_kinds(source: Originals, kinds: Sequence[str] | None) -> tuple[str, ...]:
    makers = KINDS[source.name]
    asked = tuple(makers) if kinds is None else (kinds,) if isinstance(kinds, str) else tuple(kinds)
    for kind in asked:
        if kind not in makers:
            raise make_unknown_error(f"kind of auxiliary {source.name}", kind, makers)
    if len(set(asked)) < max(1, len(asked)):
        raise SutureError(f"expected different kinds of auxiliary {source.name}, got "
                          f"{', '.join(asked) or 'none'}; leave kinds out for all")
    able = tuple(kind for kind in asked if makers[kind].suits(source))
    if (kinds is not None and able != asked) or not able:
        kind = next(k for k in asked if k not in able)
        raise SutureError(f"auxiliary {source.name} of kind {kind!r} need {makers[kind].needs}; leave it out "
                          "of kinds, or pass other inputs")
    return able


def _make_new(source: Originals, kind: str, k: int, generator: torch.Generator,
              seen: set[bytes]) -> tuple[Tensor, Tensor]:
    """Return the rows (k,) to start from and `k` examples of one kind that are not in `seen`."""
    n, idle, have = len(source.tensor), 0, 0
    stream = _draw_rows(n, generator)
    rows, made = [], []
    while have < k:
        # A few examples may be dropped, such as a gray image with permuted channels. Here every example was
        # tried four times without a new one.
        if idle > 4 * n + 16:
            raise SutureError(f"auxiliary {source.name} of kind {kind!r} are all copies of the {n} "
                              "originals; leave it out of kinds")
        drawn = torch.tensor(list(islice(stream, k - have)))
        new = KINDS[source.name][kind].make(source, drawn, generator)
        good = torch.tensor([d not in seen for d in hash_examples(new)])
        rows.append(drawn[good])
        made.append(new[good])
        have += int(good.sum())
        idle = 0 if good.any() else idle + len(drawn)
    return torch.cat(rows), torch.cat(made)


def _draw_rows(n: int, generator: torch.Generator) -> Iterator[int]:
    """Yield rows below `n` without end, in one random permutation after another."""
    while True:
        yield from torch.randperm(n, generator=generator).tolist()


def _make_generator(seed: int, kind: str) -> torch.Generator:
    """Make a generator for one kind, so that its examples do not depend on the other kinds."""
    digest = hashlib.sha256(f"{seed} {kind}".encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "little"))
