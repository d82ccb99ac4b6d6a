"""The events of a study in the logger `suture`, and its log file."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from suture._base import LOG, log_event
from suture.studies.following.finished_pair import FinishedPair
from suture.studies.running.engines import Outcome

_FORMAT = "%(asctime)s %(process)d %(levelname)s %(message)s"


@contextmanager
def keep_log(path: Path) -> Iterator[None]:
    """Append the events of a block to a file; a disk that is full does not end the study."""
    before, handler = LOG.level, _open_file(path)
    if not LOG.isEnabledFor(logging.INFO):
        LOG.setLevel(logging.INFO)
    LOG.addHandler(handler)
    try:
        yield
    finally:
        LOG.removeHandler(handler)
        with suppress(OSError):
            handler.close()
        LOG.setLevel(before)


def _open_file(path: Path) -> logging.Handler:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        made = _Quiet(path, encoding="utf-8", errors="replace")
    except OSError:
        return logging.NullHandler()
    made.setLevel(logging.INFO)
    made.setFormatter(logging.Formatter(_FORMAT))
    made.addFilter(lambda record: record.name == LOG.name)  # not the stages of each comparison
    return made


class _Quiet(logging.FileHandler):
    """A file to which what cannot be written is left out without a word."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


def log_pair(finished: FinishedPair) -> None:
    """Log the end of a pair: INFO, DEBUG for an earlier result, WARNING for a failure."""
    _log_end(f"{finished.source} into {finished.target}", finished.reason, finished.taken_over,
             finished.seconds, f"{finished.left} of {finished.total} pairs left")


def log_training(outcome: Outcome, left: int, total: int) -> None:
    """Log the end of a training, as that of a pair."""
    record = outcome.record
    assert record is not None
    _log_end(f"training of {record.pair[0]}", record.reason, outcome.taken_over, record.seconds,
             f"{left} of {total} trainings left")


def _log_end(what: str, reason: str, taken_over: bool, seconds: float, after: str) -> None:
    if reason:
        log_event(f"{what} failed: {reason}; {after}", logging.WARNING)
    elif taken_over:
        log_event(f"{what}: taken over from an earlier run; {after}", logging.DEBUG)
    else:
        log_event(f"{what}: {seconds:.1f} s; {after}")
