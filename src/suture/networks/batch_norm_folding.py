"""Folding of batch norms into the convolutions before them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from suture.networks.calls import Call, disable_gradients, freeze, record, walk
from suture.networks.module_outputs import extract_tensors

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def fold_batch_norms(network: nn.Module, inputs: Any, unchanged: Collection[str] = ()) -> int:
    """Fold batch norms into the convolutions before them, and return the number of folded ones.

    Each saves one pass over memory. A pair is folded if both modules are called once. Scale and shift move
    into the convolution, and the batch norm returns its input. Module paths and calls stay the same.
    Everything is undone if the output of the network or of another module changes by more than rounding.

    Args:
        network: a private copy (`prepare`) in float32; it is changed.
        inputs: a few examples.
        unchanged: paths of modules whose outputs must not change.
    """
    with freeze(network), disable_gradients():
        whole = record(network, inputs)
        before = list(walk(whole))
        pairs = _find_foldable(before, unchanged)
        undo = [_fold_pair(conv.module, norm.module) for conv, norm in pairs]
        changed = {id(conv.output) for conv, _ in pairs}
        again = record(network, inputs)
        after = {c.id: c for c in walk(again)}
        same = are_equal_outputs(whole.output, again.output) and all(
            are_equal_outputs(c.output, after[c.id].output) for c in before if id(c.output) not in changed)
        for back in () if same else undo:
            back()
    return len(pairs) if same else 0


def are_equal_outputs(one: Any, other: Any) -> bool:
    """Return True where the tensors in two outputs are equal up to rounding of float32."""
    return all(torch.allclose(a, b, rtol=1e-3, atol=1e-4, equal_nan=True)
               for a, b in zip(extract_tensors(one), extract_tensors(other), strict=True))


def _find_foldable(calls: Sequence[Call], unchanged: Collection[str]) -> list[tuple[Call, Call]]:
    """Find the (convolution, batch norm) pairs that can be folded without a change of `unchanged` modules."""
    times = Counter(c.path for c in calls)
    kept = {id(t) for c in calls if c.path in unchanged for t in extract_tensors(c.output)}
    made = {id(c.output): c for c in calls if isinstance(c.module, _CONVOLUTIONS) and times[c.path] == 1
            and id(c.output) not in kept and c.module.weight.dtype == torch.float32}
    norms = (c for c in calls if isinstance(c.module, nn.modules.batchnorm._BatchNorm) and times[c.path] == 1
             and c.module.running_mean is not None and "forward" not in c.module.__dict__ and c.args)
    return [(made.pop(id(c.args[0])), c) for c in norms if id(c.args[0]) in made]


def _fold_pair(conv: Any, norm: Any) -> Callable[[], None]:
    """Fold a batch norm into a convolution, and return a function that undoes it."""
    weight, bias = conv.weight, conv.bias
    conv.weight, conv.bias = fuse_conv_bn_weights(weight, bias, norm.running_mean, norm.running_var, norm.eps,
                                                  norm.weight, norm.bias)
    norm.__dict__["forward"] = _return_input

    def back() -> None:
        conv.weight, conv.bias = weight, bias
        del norm.__dict__["forward"]

    return back


def _return_input(x: Tensor) -> Tensor:
    return x
