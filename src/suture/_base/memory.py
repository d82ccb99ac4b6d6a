"""How much memory is free, and the refusal of what would not fit, before it is taken."""

from __future__ import annotations

from pathlib import Path

import torch

from suture._base.errors import SutureError

_MEMINFO = Path("/proc/meminfo")


def get_free_bytes(device: torch.device) -> int | None:
    """Bytes that can still be taken on a device; None where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError, IndexError):
        return None


def format_bytes(n: int) -> str:
    """Bytes in words."""
    return f"{n / 2**20:.1f} MiB" if n < 2**30 else f"{n / 2**30:.1f} GiB"


def check_free_memory(needed: int, device: torch.device, what: str, instead: str) -> None:
    """Nothing, where it fits.

    Args:
        needed: bytes that will be taken.
        device: where.
        what: what takes them.
        instead: what to write instead.

    Raises:
        SutureError: more than is free.
    """
    free = get_free_bytes(device)
    if free is not None and needed > free:
        raise SutureError(f"expected {what} to fit into the free memory of {format_bytes(free)}, got "
                          f"{format_bytes(needed)}; {instead}")
