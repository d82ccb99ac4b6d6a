"""How a study runs: one live table on a terminal, else a line every so often."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from suture.cli.console import format_duration
from suture.cli.entry_point import clean, problems
from suture.studies import FinishedPair

_RECENT, _STAGES = 6, 6
"""Finished pairs, and stages of running ones, in the table."""
_PAIRS = "pairs"
"""The stage that counts pairs."""
_EVERY = 30.0
"""Seconds between two lines where there is no terminal."""


class StudyDisplay:
    """Shows a study in a block: pairs done, failed and left, the time left, what ended last and what runs.

    Its `progress` and `tell` are what `run_file` calls.
    """

    def __init__(self, shown: Console = problems, every: float = _EVERY) -> None:
        self._console, self._every = shown, every
        self._began = self._said = time.monotonic()
        self._recent: deque[FinishedPair] = deque(maxlen=_RECENT)
        self._stages: dict[str, tuple[int, int | None]] = {}
        self._failed = self._computed = 0
        self._live = Live(console=shown, get_renderable=self._draw, refresh_per_second=4, transient=True)

    def __enter__(self) -> StudyDisplay:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._live.is_started:
            self._live.stop()

    def progress(self, stage: str, done: int, total: int | None) -> None:
        """Note a stage; the one that moved last stands last."""
        if stage == _PAIRS:  # which `tell` counts
            return
        self._stages.pop(stage, None)
        if total is None or done < total:
            self._stages[stage] = done, total
            for old in list(self._stages)[:-_STAGES]:
                del self._stages[old]
        whole = [self._describe()] if self._recent else []
        self._say("; ".join([*whole, f"{stage}: {done}" + ("" if total is None else f" of {total}")]))

    def tell(self, finished: FinishedPair) -> None:
        """Note a finished pair."""
        if not self._recent:
            self._began = time.monotonic()
        self._recent.append(finished)
        self._failed += bool(finished.reason)
        self._computed += not finished.taken_over
        self._say(self._describe())

    def _say(self, text: str) -> None:
        """Print a line if the last one is long ago, and no table is shown."""
        now = time.monotonic()
        if not self._console.is_terminal and now - self._said >= self._every:
            self._said = now
            self._console.print(clean(text), soft_wrap=True)

    def _describe(self) -> str:
        last = self._recent[-1]
        failed = f", {self._failed} failed" if self._failed else ""
        return f"{last.total - last.left} of {last.total} pairs{failed}{self._estimate(last)}"

    def _estimate(self, last: FinishedPair) -> str:
        """Say how long the rest takes at the pace since the first pair."""
        if self._computed < 2 or not last.left:
            return ""
        pace = (time.monotonic() - self._began) / (self._computed - 1)
        return f", about {format_duration(pace * last.left)} left"

    def _draw(self) -> RenderableType:
        parts: list[RenderableType] = []
        if self._recent:
            last = self._recent[-1]
            parts.append(Text(self._describe(), style="bold"))
            bar = Table.grid()
            bar.add_row(ProgressBar(last.total, last.total - last.left, width=40))
            parts.append(bar)
            table = Table(Column("pair", overflow="ellipsis", no_wrap=True), "ended", box=None)
            for pair in list(self._recent):
                end = (clean(f"failed: {pair.reason}") if pair.reason else "earlier" if pair.taken_over else
                       format_duration(pair.seconds))
                table.add_row(clean(f"{pair.source} into {pair.target}"), end)
            parts.append(table)
        running = Table("runs", Column("done", justify="right"), box=None)
        for stage, (done, total) in list(self._stages.items()):
            running.add_row(clean(stage), f"{done}" if total is None else f"{done} of {total}")
        return Group(*parts, *([running] if self._stages else []))
