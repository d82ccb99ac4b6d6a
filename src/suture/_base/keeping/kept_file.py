"""A file that long work leads to: locked meanwhile, with checkpoints beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from suture._base.keeping.checkpoints import Keeper
from suture._base.keeping.interruptions import listen_to_signals
from suture._base.keeping.locks import hold_lock
from suture._base.runtime import Progress

OpenKeeper = Callable[[Any, torch.device | str], Keeper]


@contextmanager
def keep_file(path: Path, restart: bool = False, progress: Progress | None = None) -> Iterator[OpenKeeper]:
    """Hold a file in a block that writes it at its end. An interruption says what was kept.

    The checkpoints beside the file are removed after the block.

    Args:
        path: the file, after a check that it can be written.
        restart: do not go on from the checkpoints of an earlier call.
        progress: hears of a lock that was taken over.

    Yields:
        A function that opens the keeper of the work, from its key and device.
    """
    made: list[Keeper] = []
    names = f"{path.name}.checkpoint-", ""

    def open_keeper(key: Any, device: torch.device | str) -> Keeper:
        made.append(Keeper(path.parent, key, device, names, restart=restart))
        return made[0]

    with hold_lock(path, "writing") as note, listen_to_signals():
        if note and progress is not None:
            progress(note, 1, 1)
        for left in [p for p in path.parent.iterdir() if p.name.startswith(f".{names[0]}")]:
            left.unlink(missing_ok=True)
        try:
            yield open_keeper
        except KeyboardInterrupt as e:
            last = made[0].find_last() if made else ""
            again = "the same call without restart" if restart else "the same call"
            e.args = (f"interrupted; kept in {str(made[0].find_path(last))!r}; {again} goes on from there"
                      if last else "interrupted; nothing was kept yet",)
            raise
        for keeper in made:
            keeper.remove_all()
