"""Progress reports, free memory, and seeds of random numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from suture._base.errors import SutureError, summarise_error
from suture._base.global_state import SharedChange

_OUT_OF_MEMORY_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory",
                        "not enough memory", "status_alloc_failed")
Progress = Callable[[str, int, int | None], None]
"""Called as ``progress(stage, done, total)``; total is None where it is not known."""


def get_free_bytes(device: torch.device) -> int | None:
    """Return the free bytes of a device, or None where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError, IndexError):
        return None


@contextmanager
def exact_products() -> Iterator[None]:
    """Compute matrix products of float32 in full precision in a block, whatever the user allows elsewhere.

    With TF32 or bfloat16 products, which are good enough for networks, similarities would be off in the third
    digit.
    """
    with _EXACT.hold():
        yield


@contextmanager
def _set_exact() -> Iterator[None]:
    backends: Any = torch.backends
    places: list[tuple[Any, str, object]]
    places = [(backends.cuda.matmul, "fp32_precision", "ieee"),
              (getattr(backends.mkldnn, "matmul", None), "fp32_precision", "ieee")]
    if not all(hasattr(of, name) for of, name, _ in places):  # before PyTorch 2.9
        places = [(backends.cuda.matmul, "allow_tf32", False)]
    before = [getattr(of, name) for of, name, _ in places]
    for of, name, value in places:
        setattr(of, name, value)
    try:
        yield
    finally:
        for (of, name, _), value in zip(places, before, strict=True):
            setattr(of, name, value)


_EXACT = SharedChange(_set_exact)


def is_out_of_memory(error: BaseException) -> bool:
    """Return True for an error of any device or library that says that memory ran out."""
    return (isinstance(error, torch.cuda.OutOfMemoryError | MemoryError)
            or any(words in str(error).lower() for words in _OUT_OF_MEMORY_WORDS))


@contextmanager
def report_out_of_memory(what: str, instead: str) -> Iterator[None]:
    """Turn the error that memory ran out in a block into a `SutureError` of one line."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise SutureError(f"memory ran out in {what}: {summarise_error(error)[:120]}; {instead}") from error


def free_cached_memory() -> None:
    """Return the memory that PyTorch keeps for later to the accelerator."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


def format_bytes(n: int) -> str:
    """Format a number of bytes as text, in MiB or GiB."""
    return f"{n / 2**20:.1f} MiB" if n < 2**30 else f"{n / 2**30:.1f} GiB"


def format_times(times: Iterable[str]) -> str:
    """Format the first and the last of ISO times as local time, to the minute."""
    found = sorted(datetime.fromisoformat(t).astimezone() for t in times)
    first, last = (f"{t:%Y-%m-%d %H:%M}" for t in (found[0], found[-1]))
    return first if first == last else f"{first} to {last}"


def get_time() -> str:
    """Return the time of now, ISO, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def check_free_memory(needed: int, device: torch.device, what: str, instead: str) -> None:
    """Check that `needed` bytes fit into the free memory of a device.

    `what` names the allocation in the error, and `instead` is advice on what to write.
    """
    free = get_free_bytes(device)
    if free is not None and needed > free:
        raise SutureError(f"expected {what} to fit into the free memory of {format_bytes(free)}, got "
                          f"{format_bytes(needed)}; {instead}")


def derive_seed(seed: int, *names: str) -> int:
    """Derive a seed from `seed` and names. It does not depend on any other draw."""
    return int.from_bytes(hashlib.sha256("/".join([str(seed), *names]).encode()).digest()[:7], "big")


@contextmanager
def seed_torch(seed: int, device: str | torch.device = "cpu") -> Iterator[None]:
    """Seed PyTorch's global random state of the CPU and of `device` for a block, then restore it."""
    device = torch.device(device)
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        # torch.manual_seed would also reseed devices whose state is not restored.
        torch.default_generator.manual_seed(seed)
        for card in cuda:
            with torch.cuda.device(card):
                torch.cuda.manual_seed(seed)
        yield
