"""Prefetching: decoding ahead of the consumer, in a small pool of threads."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
X = TypeVar("X")
DECODE_CHUNK = 32
"""Number of examples that one thread decodes at a time.

It is so small that all threads share a first batch of photographs.
"""
CACHE_BYTES = 2**30
"""Largest number of bytes of decoded images that stay decoded."""


def count_workers() -> int:
    """Return the number of threads that decode: the cores this process may use, at most eight."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, cores)


def run_ahead(work: Callable[[X], T], items: Iterable[X], depth: int) -> Generator[T, None, None]:
    """Yield ``map(work, items)`` in order, with up to `depth` results under way or waiting in threads.

    The threads end when the iterator ends, is closed, or an item raises.
    """
    pool = ThreadPoolExecutor(count_workers(), thread_name_prefix="suture-read")
    pending: deque[Future[T]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def collate(raw: list[Any] | Tensor) -> Any:
    """Make a raw batch: a tensor (N, ...) where all examples are tensors of one shape, else a list."""
    if isinstance(raw, Tensor) or not raw or not isinstance(raw[0], Tensor):
        return raw
    return torch.stack(raw) if all(r.shape == raw[0].shape for r in raw) else raw


def join_batches(parts: list[Any]) -> Any:
    """Join several raw batches to one, in order."""
    if len(parts) == 1:
        return parts[0]
    if all(isinstance(p, Tensor) and p.shape[1:] == parts[0].shape[1:] for p in parts):
        return torch.cat(parts)
    return collate([one for part in parts for one in part])


def pin_batch(raw: Any) -> Any:
    """Move a raw batch to page-locked memory if there is a CUDA device.

    It can then be copied while the device computes.
    """
    if not torch.cuda.is_available():
        return raw
    if isinstance(raw, Tensor):
        return raw.pin_memory()
    return [r.pin_memory() if isinstance(r, Tensor) else r for r in raw]


class ImageCache:
    """Cache of decoded images of one size, filled while they are read.

    It stays empty where sizes differ or the images need too much memory.

    Args:
        n: number of images.
        limit: largest number of bytes of all images together.
    """

    def __init__(self, n: int, limit: int | None = None) -> None:
        self._n, self._limit = n, CACHE_BYTES if limit is None else limit
        self._images: Tensor | None = None
        self._have = torch.zeros(n, dtype=torch.bool)
        self._open = True
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy in another process starts empty and reads images for itself.
        return ImageCache, (self._n, self._limit)

    def get(self, rows: Tensor) -> Tensor | None:
        """Return the images at `rows`, or None where one is not there."""
        images = self._images
        return images[rows] if images is not None and self.holds(rows) else None

    def holds(self, rows: Tensor) -> bool:
        """Return True where `get` would return images."""
        return self._images is not None and bool(self._have[rows].all())

    def put(self, rows: Tensor, images: Any) -> None:
        """Keep a raw batch of images at `rows`."""
        with self._lock:
            if not self._open:
                return
            fits = (isinstance(images, Tensor) and images.dtype == torch.uint8
                    and images[0].numel() * self._n <= self._limit)
            if fits and self._images is None:
                self._images = torch.empty(self._n, *images.shape[1:], dtype=torch.uint8)
            if not fits or self._images is None or self._images.shape[1:] != images.shape[1:]:
                self._open, self._images = False, None
                return
            self._images[rows] = images
            self._have[rows] = True
