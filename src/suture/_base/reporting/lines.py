"""Progress as lines of text on stderr, for a file or a pipe."""

from __future__ import annotations

import sys
import time

from suture._base.printing import escape_controls

SETTING_UP = "setting up"
"""What is shown before the first stage."""
_EVERY = 10.0
"""Seconds between two lines of one stage."""


class Lines:
    """Prints a line where a stage begins and where it ends, and one every ten seconds between."""

    def __init__(self) -> None:
        self._said, self._stage = 0.0, ""

    def start(self) -> None:
        self._print(SETTING_UP)

    def update(self, stage: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if stage != self._stage or done == total or now - self._said >= _EVERY:
            self._said, self._stage = now, stage
            self._print(f"{stage}: {format_count(done, total)}")

    def stop(self) -> None:
        """Do nothing: lines stay."""

    def _print(self, text: str) -> None:
        print(f"suture: {escape_controls(text)}", file=sys.stderr, flush=True)  # noqa: T201


def format_count(done: int, total: int | None) -> str:
    return f"{done}" if total is None else f"{done} of {total}"
