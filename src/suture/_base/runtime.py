"""Progress reports, free memory, and seeds of random numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import torch

from suture._base.errors import SutureError

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
