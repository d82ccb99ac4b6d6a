"""Progress as bars on a terminal."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from suture._base.printing import escape_controls
from suture._base.reporting.shared_terminal import begin_line, list_foreign_bars, move_logs
from suture._base.reporting.stage_rows import StageRows

if TYPE_CHECKING:
    from rich.console import Console

_EVERY = 0.1
"""Seconds between two drawings."""


class TerminalBars:
    """Draws a bar for each of the last stages on a terminal.

    No thread draws, because worker processes of loaders are made by forking this one. So nothing moves while
    a stage tells nothing.

    Args:
        console: of the terminal. Default: that of stderr.
        keeps: leave the last bars on the terminal at the end.
    """

    def __init__(self, console: Console | None = None, keeps: bool = False) -> None:
        from rich.console import Console
        from rich.live import Live

        self._rows, self._drawn = StageRows(), 0.0
        self._streams: list[tuple[Any, Any]] = []
        self._foreign: list[Any] = []
        console = console or Console(stderr=True, emoji=False, highlight=False)
        # What is printed meanwhile comes above the bars. A file as stdout keeps what is its own.
        self._live = Live(console=console, auto_refresh=False, transient=not keeps,
                          redirect_stdout=sys.stdout is not None and sys.stdout.isatty())

    def start(self) -> None:
        console, before = self._live.console, (sys.stdout, sys.stderr)
        self._foreign = list_foreign_bars()
        for bar in self._foreign:
            bar.clear()
        begin_line(console.file, console.width)
        self._live.start()
        self._streams = [*zip(before, (sys.stdout, sys.stderr), strict=True)]
        move_logs(self._streams)  # or bars would be drawn over their lines
        self._draw()

    def update(self, stage: str, done: int, total: int | None) -> None:
        if self._rows.update(stage, done, total) or time.monotonic() - self._drawn >= _EVERY:
            self._draw()

    def stop(self) -> None:
        self._draw()
        self._live.stop()
        move_logs((after, before) for before, after in self._streams)
        for bar in self._foreign:
            bar.refresh()

    def _draw(self) -> None:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        self._drawn = time.monotonic()
        table = Table.grid(padding=(0, 1))
        for row in self._rows.rows:
            table.add_row(Text(escape_controls(row.stage), overflow="ellipsis", no_wrap=True),
                          ProgressBar(row.total, row.done, width=24, pulse=row.total is None),
                          Text(row.count), Text(row.left))
        self._live.update(table, refresh=True)
