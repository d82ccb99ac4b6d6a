"""Outputs of a network: which tensor is scored, and what its values are."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from suture._base import SutureError, make_unknown_error
from suture.networks.arguments import apply
from suture.networks.calls import freeze, name_tensors

NEAR = {torch.float32: 1e-3, torch.float64: 1e-3}
"""Largest distance from one of a sum of probabilities, by type; 1e-2 for half precision."""
_HALF = 1e-2
_PASSED_ON = frozenset((
    "Add", "Alias", "AsStrided", "Cat", "Clone", "Div", "Expand", "Index", "Mean", "Mul", "Permute",
    "ReshapeAlias", "Select", "Slice", "Split", "Squeeze", "Stack", "Sum", "T", "ToCopy", "Transpose",
    "Unbind", "UnsafeView", "Unsqueeze", "View"))
"""Operations behind which the one that made the values is looked for."""
_UNBOUNDED = frozenset((
    "AdaptiveAvgPool2D", "Addmm", "AvgPool2D", "Baddbmm", "Bmm", "Convolution", "Elu", "Gelu", "LeakyRelu",
    "Linear", "Mm", "NativeBatchNorm", "NativeLayerNorm", "PreluKernel", "Relu", "Silu", "Softplus"))
"""Operations whose values may be any, so that values in [0, 1] are so by chance."""


class OutputKind(Enum):
    """What the values of an output are.

    - "logits": scored by their softmax.
    - "probabilities": rows that sum to one, of a softmax in the network. Their logarithms are logits.
    - "sigmoid": a probability for each class alone. log(p / (1 - p)) is its logit.
    - "log_probabilities": logarithms of probabilities, which are logits.
    - "values": numbers that are scored as they are, with the task "none".
    """

    LOGITS = "logits"
    PROBABILITIES = "probabilities"
    SIGMOID = "sigmoid"
    LOG_PROBABILITIES = "log_probabilities"
    VALUES = "values"


@dataclass(frozen=True)
class Readout:
    """How the scored tensor is read from a network's output.

    Attributes:
        path: its place, such as ``"logits"``, ``"1"`` or ``"heads.0"``; "" if it is the output itself.
        kind: what its values are.
        single: True if it is one number for each example, the logit or probability of class 1 of two.
        tokens: True if it is (N, T), one number for each token; it is read as (N, T, 1).
    """

    path: str = ""
    kind: OutputKind = OutputKind.LOGITS
    single: bool = False
    tokens: bool = False

    @classmethod
    def parse(cls, written: str) -> tuple[str | None, OutputKind | None]:
        """Split ``PATH@KIND`` as a user writes it; None for what is left out."""
        path, _, kind = written.partition("@")
        names = [k.value for k in OutputKind]
        if kind and kind not in names:
            raise make_unknown_error("kind of output", kind, names)
        return path or None, OutputKind(kind) if kind else None

    @property
    def written(self) -> str:
        """The place and the kind as `parse` reads them."""
        return f"{self.path}@{self.kind.value}"

    def pick(self, output: Any) -> Tensor:
        """Return the scored tensor as it is in the output."""
        named = name_tensors(output)
        if self.path not in named:
            raise SutureError(f"expected output {self.path!r} of the network, got "
                              f"{describe_outputs(named)}; write output=... with one of these")
        return named[self.path]

    def read(self, output: Any) -> Tensor:
        """Return the logits, or the values, of an output.

        Probabilities are limited to what their type tells from 0 and 1.
        """
        x = self.pick(output)
        if self.kind in (OutputKind.PROBABILITIES, OutputKind.SIGMOID):
            limits = torch.finfo(x.dtype)
            # The smallest normal number: the gradient of a smaller one's logarithm is infinite.
            x = x.float().clamp(min=limits.tiny)
            if self.kind is OutputKind.SIGMOID:
                x = x.clamp(max=1 - limits.eps / 2)
                x = x.log() - torch.log1p(-x)
            else:
                x = x.log()
        if self.single:
            x = x.reshape(-1, 1)
            x = torch.cat([torch.zeros_like(x), x], 1)
        return x[..., None] if self.tokens else x


def describe_outputs(named: dict[str, Tensor]) -> str:
    """List the tensors of an output with their shapes."""
    return ", ".join(f"{path!r} {tuple(t.shape)}" for path, t in named.items()) or "no tensor"


def lies_within(x: Tensor) -> bool:
    """Return True if all finite values, of which there are some, lie in [0, 1]."""
    known = x[x.isfinite()]
    return bool(len(known)) and bool(((known >= 0) & (known <= 1)).all())


def sums_to_one(x: Tensor) -> bool:
    """Return True if each row of `x` (..., K), with K of at least 2, is a distribution over K classes."""
    rows = x.float().flatten(0, -2)
    rows = rows[~rows.isnan().any(1)]
    if x.shape[-1] < 2 or not len(rows) or not bool(((rows >= 0) & (rows <= 1)).all()):
        return False
    return bool((rows.sum(1) - 1).abs().max() <= NEAR.get(x.dtype, _HALF))


def find_last_operations(network: nn.Module, inputs: Any, path: str) -> frozenset[str]:
    """Return the names of the operations that made an output's values, such as ``Sigmoid`` or ``Addmm``.

    Views, sums and products of their results are passed over. The names are those of autograd, so functions
    are seen as well as modules. The result is empty if the network runs without gradients.
    """
    found = None
    # A forward pass that writes into its own parameters fails with gradients.
    with torch.enable_grad(), freeze(network), suppress(RuntimeError):
        for p in network.parameters():
            p.requires_grad_(p.is_floating_point())
        found = name_tensors(apply(network, inputs)).get(path)
    stack = [] if found is None or found.grad_fn is None else [found.grad_fn]
    seen, names = set(stack), set()
    while stack:
        node = stack.pop()
        name = node.name().rstrip("0123456789").removesuffix("Backward")
        if name in _PASSED_ON:
            new = {of for of, _ in node.next_functions if of is not None} - seen
            seen |= new
            stack += new
        elif "AccumulateGrad" not in name:
            names.add(name)
    return frozenset(names)


def is_unbounded(operations: frozenset[str]) -> bool:
    """Return True if one of the last operations may give any value."""
    return bool(operations & _UNBOUNDED)

