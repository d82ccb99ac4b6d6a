"""What holds for all tests: one thread, also in the processes that they start.

The tensors are small. Several threads gain nothing on them, and wait for one another whenever another process
keeps the cores busy, which slows a training down tenfold. Set `OMP_NUM_THREADS` to have it otherwise. PyTorch
reads it when it is loaded, which is after this file.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
