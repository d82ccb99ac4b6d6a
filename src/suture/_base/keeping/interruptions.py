"""Signals that end a run: after the first, a kept pass finishes its batch and saves; the second ends it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interruption(KeyboardInterrupt):
    """A run that a signal ended; `number` is the signal's."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(number)
        self.number = number


class _State:
    def __init__(self) -> None:
        self.waiting: int | None = None
        self.delays = 0
        self.listening = False


_STATE = _State()


@contextmanager
def listen_to_signals() -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into `Interruption` in a block, then restore the handlers.

    Only the main thread can do so. Handlers that the user installed, and ignored signals (`nohup`), stay.
    """
    if _STATE.listening or threading.current_thread() is not threading.main_thread():
        yield
        return
    usual = (signal.SIG_DFL, signal.default_int_handler)
    before = {s: h for s in SIGNALS if (h := signal.getsignal(s)) in usual}
    _STATE.listening = True
    try:
        for s in before:
            signal.signal(s, _handle)
        yield
    finally:
        _STATE.listening, _STATE.waiting = False, None
        for s, handler in before.items():
            signal.signal(s, handler)


@contextmanager
def delay_interruption() -> Iterator[None]:
    """Let the first signal wait in a block for `find_interruption`, at most until the block ends."""
    _STATE.delays += 1
    try:
        yield
    finally:
        _STATE.delays -= 1
    waits = None if _STATE.delays else find_interruption()
    if waits is not None:
        raise waits


def find_interruption() -> Interruption | None:
    """Return the interruption that waits, if there is one."""
    number, _STATE.waiting = _STATE.waiting, None
    return None if number is None else Interruption(number)


def _handle(number: int, frame: FrameType | None) -> None:
    if _STATE.delays and _STATE.waiting is None:
        _STATE.waiting = number
        return
    _STATE.waiting = None
    raise Interruption(number)
