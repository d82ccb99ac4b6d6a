"""The micro-batch of training, which is halved when memory runs out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from suture._base import SutureError

_OUT_OF_MEMORY_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory",
                        "not enough memory")

T = TypeVar("T")


class MicroBatch:
    """Maximum number of examples (`most`) that pass a network at once in training.

    It is half of `forward`, the maximum without gradients, because training keeps more tensors and batches
    beyond the CPU's cache are slow. For a ResNet-20 at 32x32 (benchmarks/groups.py) it is 104 images with
    strides, where the size makes no difference. Without strides it is 26: 16 to 32 are fastest, 128 are 34 to
    57 % slower.
    """

    def __init__(self, forward: int) -> None:
        self.most = max(1, forward // 2)
        self.notes: list[str] = []

    def choose_piece_size(self, size: int) -> int:
        """Return the size that cuts `size` examples into as few and as equal pieces as possible."""
        return -(-size // -(-size // self.most))

    def count_at_once(self, size: int) -> int:
        """Return the number of batches of `size` examples that pass a tail together."""
        return max(1, self.most // size)

    def run(self, work: Callable[[], T], size: int) -> T:
        """Return the result of `work`; while memory runs out, halve `most` and start again.

        `work` must leave nothing behind when it fails. Without `most` it would pass `size` examples at once.
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
    return (isinstance(error, torch.cuda.OutOfMemoryError | MemoryError)
            or any(words in str(error).lower() for words in _OUT_OF_MEMORY_WORDS))
