"""Contexts of forward passes, in which all calls and all in-place changes can be seen."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from suture._base import SharedChange, convert_tensors, leave_inference_mode, walk_tensors


def run_eagerly() -> AbstractContextManager[object]:
    """Return a context in which compiled functions run as the code that they were made from."""
    stance = getattr(torch.compiler, "set_stance", None)  # since PyTorch 2.6
    # Without this module nothing was compiled, and to import it takes seconds.
    if "torch._dynamo" not in sys.modules or stance is None or torch.compiler.is_compiling():
        return nullcontext()
    return _EAGER.hold()


_EAGER = SharedChange(lambda: torch.compiler.set_stance("force_eager"))


def count_all_changes() -> AbstractContextManager[object]:
    """Return a context in which the tensors that a network makes count in-place changes.

    Its own `inference_mode` runs as `no_grad`, and one around the pass is left.
    """
    return nullcontext() if torch.compiler.is_compiling() else _count_changes()


@contextmanager
def _count_changes() -> Iterator[None]:
    before = getattr(_HERE, "counts", False)
    with leave_inference_mode(), _COUNTED.hold():
        _HERE.counts = True
        try:
            yield
        finally:
            _HERE.counts = before


_HERE = threading.local()
"""Its attribute `counts` is True in a thread that runs such a pass, and other threads stay as they are."""


@contextmanager
def _replace_inference_mode() -> Iterator[None]:
    before = torch.inference_mode.__enter__

    def enter(self: Any) -> None:
        if not getattr(_HERE, "counts", False):
            before(self)
            return
        self._inference_mode_context = torch.no_grad() if self.mode else torch.enable_grad()
        self._inference_mode_context.__enter__()

    try:
        torch.inference_mode.__enter__ = enter  # type: ignore[method-assign]
        yield
    finally:
        torch.inference_mode.__enter__ = before  # type: ignore[method-assign]


_COUNTED = SharedChange(_replace_inference_mode)


def count_changes(t: Tensor) -> int:
    """Return the number of in-place changes of a tensor; one made in `inference_mode` allows none."""
    return 0 if t.is_inference() else t._version


def make_changeable(inputs: Any) -> Any:
    """Return inputs of which tensors made in `inference_mode`, which allow no change, are copies."""
    if not any(t.is_inference() for t in walk_tensors(inputs)):
        return inputs
    return convert_tensors(inputs, lambda t: t.clone() if t.is_inference() else t)
