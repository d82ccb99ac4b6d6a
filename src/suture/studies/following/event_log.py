"""The logger `suture`, and the log file of a study."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from suture._base import escape_controls
from suture.studies.following.finished_pair import FinishedPair
from suture.studies.running.engines import Outcome

LOG = logging.getLogger("suture")
LOG.addHandler(logging.NullHandler())  # or a program that sets up no logging would get warnings on stderr
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
        _log(logging.WARNING, f"{what} failed: {reason}; {after}")
    elif taken_over:
        _log(logging.DEBUG, f"{what}: taken over from an earlier run; {after}")
    else:
        _log(logging.INFO, f"{what}: {seconds:.1f} s; {after}")


def log_event(text: str) -> None:
    """Log what else happens."""
    _log(logging.INFO, text)


def _log(level: int, text: str) -> None:
    LOG.log(level, "%s", escape_controls(text))  # names come from users, and an event is one line
