"""Engines by name, as options and commands give them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from suture._base import SutureError, make_unknown_error
from suture.studies.running.engines import Engine, Serial
from suture.studies.running.processes import Processes
from suture.studies.running.ray_engine import Ray


def _make_serial(argument: str) -> Engine:
    if argument:
        raise SutureError(f"expected engine='serial', got 'serial:{argument}'; it has one process")
    return Serial()


def _make_processes(argument: str) -> Engine:
    return Processes(_read_workers(argument, "processes")) if argument else Processes()


def _make_ray(argument: str) -> Engine:
    if argument.lstrip("+-").replace(".", "", 1).isdecimal():  # a bare number is no address
        return Ray(workers=_read_workers(argument, "ray"))
    return Ray(argument or None)


def _read_workers(text: str, engine: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise SutureError(f"expected a number of workers, got {text!r}; write engine='{engine}:4'")
    return int(text)


ENGINES: Mapping[str, Callable[[str], Engine]] = MappingProxyType({
    "serial": _make_serial, "processes": _make_processes, "ray": _make_ray})
"""Engines by name; what follows a colon is the number of workers, or the address of a cluster."""


def find_engine(given: str | Engine) -> Engine:
    """Return the engine that a name such as "processes:4" or an object stands for."""
    if not isinstance(given, str):
        if not callable(getattr(given, "run", None)):
            raise SutureError(f"expected an engine, got {type(given).__name__}; write engine='serial'")
        return given
    name, _, argument = given.partition(":")
    if name not in ENGINES:
        raise make_unknown_error("engine", name, ENGINES)
    return ENGINES[name](argument)
