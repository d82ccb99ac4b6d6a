"""Changes of PyTorch's global state: made once for all threads that need them, and undone after the last."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from threading import Lock

import torch


class SharedChange:
    """A change of global state that several threads may need at the same time.

    The first thread that enters makes it, and the last one that leaves undoes it. If each thread restored
    what it had found, the change of another one could stay for ever.

    Args:
        make: returns a context manager with the change.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[object]]) -> None:
        self._make, self._lock, self._users, self._open = make, Lock(), 0, ExitStack()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep the change while the context is open."""
        with self._lock:
            if not self._users:
                self._open.enter_context(self._make())
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._open.close()


def leave_inference_mode() -> AbstractContextManager[object]:
    """Return a context outside `torch.inference_mode`, where tensors count in-place changes.

    Whether gradients are computed stays as it was.
    """
    return _leave() if torch.is_inference_mode_enabled() else nullcontext()


@contextmanager
def _leave() -> Iterator[None]:
    with_gradients = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.set_grad_enabled(with_gradients):
        yield
