"""Free memory, and memory in words."""

from __future__ import annotations

import torch

from suture._base import runtime


def test_free_memory_is_read_where_the_system_tells_it() -> None:
    free = runtime.get_free_bytes(torch.device("cpu"))
    assert free is None or 2**20 < free < 2**50
    assert runtime.format_bytes(3 * 2**19) == "1.5 MiB"
    assert runtime.format_bytes(5 * 2**29) == "2.5 GiB"
