"""How much passes a tail at once in training: measured in bytes saved for backward, cut when memory runs
out."""

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
    """Whether an allocation failed, on whatever device."""
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(w in str(error).lower() for w in _OUT_OF_MEMORY_WORDS)


def try_in_memory(work: Callable[[], T]) -> T | None:
    """What `work` returns; None where memory ran out, with all that it had made let go."""
    try:
        return work()
    except (RuntimeError, MemoryError) as e:
        if not is_out_of_memory(e):
            raise
    # Only after the except clause: the exception holds the frames, and they hold the tensors.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


def measure_saved_bytes(work: Callable[[], object]) -> int:
    """Bytes of all storages that autograd saves for backward while `work` runs; each storage once."""
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda _: _refuse_backward()):
        work()
    return sum({s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in kept)}.values())


def _refuse_backward() -> Tensor:
    raise AssertionError("measured graphs are not run backward")


def measure_tail_bytes(target: SitedNetwork, index: int, x: Tensor, done: RecordedPass) -> int:
    """Bytes that one more example takes in the tail of a site until its gradient is there.

    What two copies of a batch save more than one (weights are saved once however many there are), and the
    stitched representation and its concatenated copy.

    Args:
        index: of the site.
        x: (N, ...) representations of the site, from `done`.
        done: a full pass over N examples.
    """
    def saved(copies: int) -> int:
        start = torch.cat([x.detach()] * copies).requires_grad_(True)
        return measure_saved_bytes(lambda: target.tail(index, start, done))

    return max(1, (saved(2) - saved(1)) // len(x) + 2 * x.numel() * x.element_size() // len(x))


def find_backward_budget(device: torch.device) -> int | None:
    """Bytes that one backward pass may save: `GPU_SHARE` of what is free on cuda; None where that is not
    known."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(GPU_SHARE * (free + unused))


class BatchBudget:
    """How many stitched batches may pass each tail concatenated, and how many examples a network.

    Without a budget (on a CPU) a piece, and what is concatenated, has at most half of `micro_batch` examples:
    training keeps more than a forward pass does, and beyond what fills the cache a larger batch only costs.
    For ResNet-20 at 32x32 (benchmarks/groups.py) that is 104 images with strides, where no cut is faster than
    the others beyond noise, and 26 without, where 16 to 32 at once are the fastest, 64 take 5 to 30 % longer,
    128 or more 34 to 57 %.

    Args:
        names: of the target sites.
        micro_batch: most examples that pass a network at once without gradients.
        byte_limit: bytes that one backward pass may save, or None.

    Attributes:
        micro: most examples that pass a network at once.
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
        """Whether `learn` is still to be called."""
        return self.byte_limit is not None and not self._bytes

    def set_tail_bytes(self, sizes: Mapping[int, int]) -> None:
        """Take over the bytes per example of each tail (`measure_tail_bytes`); a single batch has to fit the
        budget."""
        self._bytes = dict(sizes)
        if self.byte_limit is not None:
            self.examples_at_once = max(1, min(self.examples_at_once, self.byte_limit // max(sizes.values())))

    def count_at_once(self, index: int, size: int) -> int:
        """How many batches of `size` examples to concatenate in front of tail `index`."""
        if self.byte_limit is not None and index in self._bytes:
            fits = self.byte_limit // (self._bytes[index] * size)
        else:
            fits = self.examples_at_once // size
        return max(1, min(fits, self._most.get(index, fits)))

    def choose_piece_size(self, size: int) -> int:
        """Examples in each of the fewest, about equal pieces of a batch of `size` that may pass a network."""
        return -(-size // -(-size // self.examples_at_once))

    def halve_batches(self, index: int, tried: int) -> None:
        """Memory ran out with `tried` batches in front of tail `index`: from now on half as many."""
        self._most[index] = max(1, tried // 2)

    def halve_examples(self, size: int) -> None:
        """Memory ran out with one batch of `size` examples: from now on half as many examples.

        Raises:
            SutureError: it was a single example.
        """
        if size <= 1:
            raise SutureError("out of memory with a single example in training; use fewer sites, a device "
                              "with more memory, or objective='match', which runs no tail")
        self.examples_at_once, self._halved = size // 2, True

    def describe_cuts(self) -> list[str]:
        """What was cut because memory ran out, one sentence each."""
        found = [f"memory ran out in training: stitched batches into {self._names[j]} were concatenated by "
                 f"at most {k}" for j, k in self._most.items()]
        if self._halved:
            found.append(f"memory ran out in training: networks ran on at most {self.examples_at_once} "
                         "examples at once")
        return found
