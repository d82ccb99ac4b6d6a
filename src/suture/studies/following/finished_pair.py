"""What callbacks get of a pair that is finished, and how they are called."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

from suture._base import describe_error
from suture.results import Comparison


@dataclass(frozen=True, eq=False)
class FinishedPair:
    """A pair of a study that was compared, or failed.

    Attributes:
        source, target: names of the networks.
        about: what is said of the source, and of the target.
        key: of the result; the same for the same networks, data and settings.
        seconds: that the comparison took.
        reason: why it failed; "" if it did not.
        taken_over: True if an earlier run computed it.
        left, total: numbers of pairs that are not finished, and of all.
        load: returns the comparison.
    """

    source: str
    target: str
    about: tuple[Mapping[str, Any], Mapping[str, Any]]
    key: str
    seconds: float
    reason: str
    taken_over: bool
    left: int
    total: int
    load: Callable[[], Comparison] = field(repr=False)

    @cached_property
    def comparison(self) -> Comparison | None:
        """The comparison, loaded when it is first asked for; None if it failed."""
        return None if self.reason else self.load()


Callback = Callable[[FinishedPair], object]


class Callbacks:
    """Calls functions with each finished pair; one that fails costs no result, and is named at the end."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._callbacks = list(callbacks)
        self._failed: dict[int, tuple[int, str]] = {}

    @contextmanager
    def open(self) -> Iterator[Callbacks]:
        """Call `close` of those that have it when a block ends."""
        try:
            yield self
        finally:
            for k, callback in enumerate(self._callbacks):
                if callable(getattr(callback, "close", None)):
                    self._call(k, callback.close)  # type: ignore[attr-defined]

    def tell(self, finished: FinishedPair) -> None:
        """Call all with a finished pair."""
        for k, callback in enumerate(self._callbacks):
            self._call(k, partial(callback, finished))

    @property
    def notes(self) -> list[str]:
        """A sentence for each callback that failed."""
        return [f"the callback {_name(self._callbacks[k])} failed {times} times, at first with {problem}"
                if times > 1 else f"the callback {_name(self._callbacks[k])} failed: {problem}"
                for k, (times, problem) in self._failed.items()]

    def _call(self, k: int, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:
            times, problem = self._failed.get(k, (0, describe_error(error)))
            if not times:
                logging.getLogger("suture").exception("the callback %s failed; the study goes on",
                                                      _name(self._callbacks[k]))
            self._failed[k] = times + 1, problem


def _name(callback: Any) -> str:
    return str(getattr(callback, "__qualname__", type(callback).__name__))
