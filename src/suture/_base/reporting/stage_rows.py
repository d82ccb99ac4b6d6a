"""The stages that a display of progress shows: the last ones, with the time that each has left."""

from __future__ import annotations

import time
from dataclasses import dataclass

from suture._base.reporting.lines import SETTING_UP, format_count

_MOST = 6
"""Rows that are shown."""


@dataclass
class StageRow:
    """A stage: how much of it is done, since when it runs, and when it was last heard of."""

    stage: str
    done: int
    total: int | None
    began: float
    heard: float

    @property
    def is_finished(self) -> bool:
        return self.total is not None and self.done >= self.total

    @property
    def count(self) -> str:
        return "" if self.total is None and not self.done else format_count(self.done, self.total)

    @property
    def left(self) -> str:
        """The time that the stage has left at its pace so far, or that it took."""
        seconds = self.heard - self.began
        if self.is_finished:
            return _format_clock(seconds) if seconds >= 1 else ""
        if self.total is None or not self.done:
            return ""
        return f"{_format_clock(seconds * (self.total - self.done) / self.done)} left"


class StageRows:
    """The last stages, in the order in which they began.

    Stages of a part, such as "a into b: moments" in a study, go when they are finished: there are many.
    """

    def __init__(self) -> None:
        self._heard = time.monotonic()
        self.rows = [StageRow(SETTING_UP, 0, None, self._heard, self._heard)]

    def update(self, stage: str, done: int, total: int | None) -> bool:
        """Note a stage; return True if rows come or go, or one is finished.

        A stage is first heard of when a part of it is done, and so began when another was last heard of.
        """
        before, self._heard = self._heard, time.monotonic()
        row = next((row for row in self.rows if row.stage == stage), None)
        if row is not None and not (row.is_finished and done < row.done):
            row.done, row.total, row.heard = done, total, self._heard
            return row.is_finished
        kept = [r for r in self.rows if r.stage not in (stage, SETTING_UP) and not _is_gone(r)]
        self.rows = [*_leave_out(kept), StageRow(stage, done, total, before, self._heard)]
        return True


def _is_gone(row: StageRow) -> bool:
    return row.is_finished and ": " in row.stage


def _leave_out(rows: list[StageRow]) -> list[StageRow]:
    """Return the rows without one, a finished one if there is, where one more would be too many."""
    if len(rows) < _MOST:
        return rows
    out = next((row for row in rows if row.is_finished), rows[0])
    return [row for row in rows if row is not out]


def _format_clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
