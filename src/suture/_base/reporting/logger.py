"""The logger `suture`, which prints nothing by itself, and its children by what they tell of."""

from __future__ import annotations

import logging

from suture._base.printing import escape_controls

LOG = logging.getLogger("suture")
LOG.addHandler(logging.NullHandler())  # or a program that sets up no logging would get warnings on stderr


def log_event(text: str, level: int = logging.INFO, of: str = "") -> None:
    """Log one event in one line.

    Args:
        level: of `logging`. INFO is what was done, DEBUG what was chosen or found, WARNING what failed.
        of: child of the logger, such as "compare". Default: the logger itself, which tells of studies.
    """
    log = LOG.getChild(of) if of else LOG
    if log.isEnabledFor(level):
        log.log(level, "%s", escape_controls(text))  # names come from users
