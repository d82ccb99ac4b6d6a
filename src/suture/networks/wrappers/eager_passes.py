"""Contexts of forward passes, in which all calls and all in-place changes can be seen."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch


def run_eagerly() -> AbstractContextManager[object]:
    """Return a context in which compiled functions run as the code that they were made from."""
    stance = getattr(torch.compiler, "set_stance", None)  # since PyTorch 2.6
    # Without this module nothing was compiled, and to import it takes seconds.
    if "torch._dynamo" not in sys.modules or stance is None or torch.compiler.is_compiling():
        return nullcontext()
    found: AbstractContextManager[object] = stance("force_eager")
    return found


@contextmanager
def count_all_changes() -> Iterator[None]:
    """Run a network's own `inference_mode` as `no_grad`, so that its tensors count in-place changes."""
    before = torch.inference_mode.__enter__

    def enter(self: Any) -> None:
        self._inference_mode_context = torch.no_grad() if self.mode else torch.enable_grad()
        self._inference_mode_context.__enter__()

    try:
        torch.inference_mode.__enter__ = enter  # type: ignore[method-assign]
        yield
    finally:
        torch.inference_mode.__enter__ = before  # type: ignore[method-assign]
