"""What else writes to a terminal while bars are shown there: half a line, logs, a bar of tqdm."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any


def begin_line(file: Any, width: int) -> None:
    """Go to the begin of an empty line, so that drawing there covers nothing.

    As many spaces as a line has wrap to the next line only where this one has begun (the shell zsh does the
    same before its prompt).

    Args:
        width: of the terminal in columns, if it does not say its own.
    """
    with suppress(OSError, ValueError):  # no file of the system
        width = os.get_terminal_size(file.fileno()).columns
    file.write(" " * width + "\r")
    file.flush()


def list_foreign_bars() -> list[Any]:
    """Return the bars of tqdm that are open on a terminal: `clear` takes one away, `refresh` draws it."""
    bars = getattr(getattr(sys.modules.get("tqdm"), "tqdm", None), "_instances", ())
    return [bar for bar in bars if bar.fp.isatty()]


def move_logs(streams: Iterable[tuple[Any, Any]]) -> None:
    """Let handlers of `logging` that write to a stream write to another one.

    Args:
        streams: pairs of the one and the other.
    """
    pairs = [(of, to) for of, to in streams if of is not None and of is not to]
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    handlers = {h for log in loggers if isinstance(log, logging.Logger) for h in log.handlers
                if isinstance(h, logging.StreamHandler)}
    for handler in handlers:
        other = next((to for of, to in pairs if of is handler.stream), None)
        if other is not None:
            handler.setStream(other)
