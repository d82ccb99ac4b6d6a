"""The micro-batch of training: the examples that pass a network at once, halved when memory runs out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from suture._base import SutureError

_OUT_OF_MEMORY_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory",
                        "not enough memory")

T = TypeVar("T")


class MicroBatch:
    """Number of examples that may pass a network at once in training.

    It is half of the number without gradients, because training keeps more tensors, and a batch that does
    not fit the cache of a CPU is slow. For ResNet-20 at 32x32 (benchmarks/groups.py) the half is 104 images
    with strides, where the size makes no difference beyond noise. Without strides it is 26 images: 16 to 32
    at once are fastest, 64 are 5 to 30 % slower, 128 or more are 34 to 57 % slower.

    Args:
        forward: most examples that pass a network at once without gradients.

    Attributes:
        most: most examples that pass a network at once, concatenated batches included.
        notes: a sentence if memory ran out.
    """

    def __init__(self, forward: int) -> None:
        self.most = max(1, forward // 2)
        self.notes: list[str] = []

    def choose_piece_size(self, size: int) -> int:
        """Return the size of the pieces of a batch of `size` examples, as few and as equal as possible."""
        return -(-size // -(-size // self.most))

    def count_at_once(self, size: int) -> int:
        """Return the number of batches of `size` examples that are concatenated before a tail."""
        return max(1, self.most // size)

    def run(self, work: Callable[[], T], size: int) -> T:
        """Return the result of `work`; while memory runs out, halve `most` and start again.

        Args:
            work: reads `most`. Nothing that it did may count when it fails.
            size: examples that it would pass at once if there were no bound.

        Raises:
            SutureError: memory runs out with a single example.
        """
        while True:
            try:
                return work()
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
            # Not in the except clause: the exception holds the frames, and the frames hold the tensors.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if min(self.most, size) == 1:
                raise SutureError("out of memory with a single example in training; use a device with more "
                                  "memory, or objective='match', which runs no tail")
            self.most = min(self.most, size) // 2
            self.notes = [f"memory ran out in training: networks ran on at most {self.most} examples at once"]


def _is_out_of_memory(error: BaseException) -> bool:
    """Check that an error is a failed allocation, on any device."""
    return (isinstance(error, torch.cuda.OutOfMemoryError | MemoryError)
            or any(words in str(error).lower() for words in _OUT_OF_MEMORY_WORDS))
