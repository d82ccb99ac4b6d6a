"""The number of examples that one training pass may hold in memory.

It follows from the bytes that are saved for backward. It is halved when memory runs out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from suture._base import SutureError
from suture.networks import RecordedPass, SitedNetwork

GPU_SHARE = 0.5
"""Share of the free memory that one backward pass may save; the rest is for gradients and workspaces."""
_OUT_OF_MEMORY_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory",
                        "not enough memory")

T = TypeVar("T")


def is_out_of_memory(error: BaseException) -> bool:
    """Check that an error is a failed allocation, on any device."""
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(w in str(error).lower() for w in _OUT_OF_MEMORY_WORDS)


def try_in_memory(work: Callable[[], T]) -> T | None:
    """Return the result of `work`, or None if memory ran out.

    In that case all tensors that `work` made are freed.
    """
    try:
        return work()
    except (RuntimeError, MemoryError) as e:
        if not is_out_of_memory(e):
            raise
    # Not inside the except clause: the exception holds the frames, and the frames hold the tensors.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


def measure_saved_bytes(work: Callable[[], object]) -> int:
    """Return the bytes that autograd saves for backward while `work` runs.

    Each storage counts once.
    """
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda _: _refuse_backward()):
        work()
    return sum({s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in kept)}.values())


def _refuse_backward() -> Tensor:
    raise AssertionError("measured graphs are not run backward")


def measure_tail_bytes(target: SitedNetwork, index: int, x: Tensor, done: RecordedPass) -> int:
    """Return the bytes that one more example needs in the tail of a site until its gradient is known.

    The result is the difference between two copies of a batch and one, plus the stitched representation and
    its concatenated copy. The difference leaves out the weights, which are saved once.

    Args:
        target: the target network.
        index: of the site.
        x: (N, ...) representations of the site, from `done`.
        done: a full pass over N examples.
    """
    def saved(copies: int) -> int:
        start = torch.cat([x.detach()] * copies).requires_grad_(True)
        return measure_saved_bytes(lambda: target.tail(index, start, done))

    return max(1, (saved(2) - saved(1)) // len(x) + 2 * x.numel() * x.element_size() // len(x))


def find_backward_budget(device: torch.device) -> int | None:
    """Return the bytes that one backward pass may save.

    On cuda this is `GPU_SHARE` of the free memory. On other devices it is None, because the free memory is
    unknown.
    """
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(GPU_SHARE * (free + unused))


class BatchBudget:
    """Number of examples per network pass, and of stitched batches concatenated before each tail.

    Without a byte limit (on a CPU), a pass has at most half of `micro_batch` examples, concatenated batches
    included. Training keeps more tensors than a forward pass, and a batch that does not fit the cache is
    slow. For ResNet-20 at 32x32 (benchmarks/groups.py) the half is 104 images with strides, where the size
    makes no difference beyond noise. Without strides it is 26 images: 16 to 32 at once are fastest, 64 are 5
    to 30 % slower, 128 or more are 34 to 57 % slower.

    Args:
        names: of the target sites.
        micro_batch: most examples that pass a network at once without gradients.
        byte_limit: bytes that one backward pass may save, or None.

    Attributes:
        examples_at_once: most examples that pass a network at once.
    """

    def __init__(self, names: Sequence[str], micro_batch: int, byte_limit: int | None) -> None:
        self.examples_at_once, self.byte_limit = (micro_batch if byte_limit is not None
                                                  else max(1, micro_batch // 2), byte_limit)
        self._names = names
        self._bytes: dict[int, int] = {}
        self._most: dict[int, int] = {}
        self._halved = False

    @property
    def to_measure(self) -> bool:
        """True until `set_tail_bytes` is called, where there is a byte limit."""
        return self.byte_limit is not None and not self._bytes

    def set_tail_bytes(self, sizes: Mapping[int, int]) -> None:
        """Set the bytes per example of each tail (`measure_tail_bytes`), by site index.

        `examples_at_once` is lowered where one batch would exceed the byte limit.
        """
        self._bytes = dict(sizes)
        if self.byte_limit is not None:
            self.examples_at_once = max(1, min(self.examples_at_once, self.byte_limit // max(sizes.values())))

    def count_at_once(self, index: int, size: int) -> int:
        """Return the number of batches of `size` examples to concatenate before tail `index`."""
        if self.byte_limit is not None and index in self._bytes:
            fits = self.byte_limit // (self._bytes[index] * size)
        else:
            fits = self.examples_at_once // size
        return max(1, min(fits, self._most.get(index, fits)))

    def choose_piece_size(self, size: int) -> int:
        """Return the number of examples per piece of a batch of `size` examples.

        The pieces are as few and as equal as possible; each may pass a network.
        """
        return -(-size // -(-size // self.examples_at_once))

    def halve_batches(self, index: int, tried: int) -> None:
        """Halve the number of batches before tail `index`, because `tried` of them ran out of memory."""
        self._most[index] = max(1, tried // 2)

    def halve_examples(self, size: int) -> None:
        """Halve the number of examples per pass, after a batch of `size` examples ran out of memory.

        Raises:
            SutureError: `size` is 1, so no smaller batch exists.
        """
        if size <= 1:
            raise SutureError("out of memory with a single example in training; use fewer sites, a device "
                              "with more memory, or objective='match', which runs no tail")
        self.examples_at_once, self._halved = size // 2, True

    def describe_cuts(self) -> list[str]:
        """Return one sentence for each size that was cut because memory ran out."""
        found = [f"memory ran out in training: stitched batches into {self._names[j]} were concatenated by "
                 f"at most {k}" for j, k in self._most.items()]
        if self._halved:
            found.append(f"memory ran out in training: networks ran on at most {self.examples_at_once} "
                         "examples at once")
        return found
